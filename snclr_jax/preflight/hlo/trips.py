"""How often a loop of a compiled program runs.

Most compilers write the trip count beside the loop. A TPU's does not: there it follows
from the counter, whose start, step and end are constants of the program.
"""

from __future__ import annotations

import math
import re

from snclr_jax.preflight.hlo.text import Computation, Instruction, Program

_KNOWN = re.compile(r'"known_trip_count":\{"n":"?(\d+)')


def trip_count(
    program: Program, computation: Computation, loop: Instruction
) -> tuple[int, str]:
    """Returns the trip count of a `while`, and a note where it is a guess.

    A loop that compares a counter with a constant runs ceil((end - start) / step)
    times; where start and step are not constants they are taken as 0 and 1, and a loop
    of another form counts once.
    """
    if found := _KNOWN.search(loop.attributes):
        return int(found[1]), ""
    condition = program.computations[loop.called("condition")[0]]
    body = program.computations[loop.called("body")[0]]
    counter, end = _comparison(program, condition)
    if counter is None or end is None:
        return 1, f"loop {loop.op_name or loop.name} has no fixed length: counted once"
    start = _initial(computation, loop, counter)
    step = _step(program, body, counter)
    note = ""
    if start is None or not step:
        note = f"loop {loop.op_name or loop.name} is taken to run from 0 to {end} by 1"
        start, step = 0, 1
    return max(0, math.ceil((end - start) / step)), note


def _comparison(
    program: Program, condition: Computation
) -> tuple[int | None, int | None]:
    """Returns the counter's place in the loop's state and its end, exclusive."""
    inside, compare, resolve = condition, condition.root, {}
    if compare.opcode == "fusion":
        inside = program.computations[compare.called("calls")[0]]
        for number, parameter in inside.parameters.items():
            resolve[parameter.name] = condition.operand(compare, number)
        compare = inside.root
    direction = compare.attribute("direction")
    if compare.opcode != "compare" or direction not in ("LT", "LE", "GT", "GE"):
        return None, None
    sides = [_origin(inside, inside.operand(compare, i), resolve) for i in (0, 1)]
    if direction in ("GT", "GE"):
        sides.reverse()
    low, high = sides
    if low.opcode != "get-tuple-element" or (end := _constant(high)) is None:
        return None, None
    return int(low.attribute("index")), end + (direction in ("LE", "GE"))


def _initial(computation: Computation, loop: Instruction, counter: int) -> int | None:
    """The counter's constant before the loop."""
    state = computation.operand(loop, 0)
    if state.opcode != "tuple":
        return None
    return _constant(_origin(computation, computation.operand(state, counter)))


def _step(program: Program, body: Computation, counter: int) -> int | None:
    """The constant that the body adds to the counter."""
    if body.root.opcode != "tuple":
        return None
    inside, add, resolve = body, body.operand(body.root, counter), {}
    add = _origin(body, add)
    if add.opcode == "fusion":
        fused = program.computations[add.called("calls")[0]]
        for number, parameter in fused.parameters.items():
            resolve[parameter.name] = body.operand(add, number)
        inside, add = fused, fused.root
    if add.opcode != "add":
        return None
    sides = [_origin(inside, inside.operand(add, i), resolve) for i in (0, 1)]
    constants = [value for side in sides if (value := _constant(side)) is not None]
    return constants[0] if len(constants) == 1 else None


def _origin(
    computation: Computation,
    op: Instruction,
    resolve: dict[str, Instruction] | None = None,
) -> Instruction:
    """Follows copies, and a fusion's parameters out of it (`resolve`)."""
    while op.opcode in ("copy", "bitcast", "convert", "reshape"):
        op = computation.operand(op, 0)
    return (resolve or {}).get(op.name, op)


def _constant(op: Instruction) -> int | None:
    value = op.literal.strip("{} ")
    return (
        int(value) if op.opcode == "constant" and value.lstrip("-").isdigit() else None
    )
