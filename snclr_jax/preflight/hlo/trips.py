"""How often a loop of a compiled program runs.

Most compilers write the trip count beside the loop. A TPU's does not: there it follows
from the counter, whose start, step and end are constants of the program.
"""

from __future__ import annotations

import math
import re

from snclr_jax.preflight.hlo.text import Instruction

_KNOWN = re.compile(r'"known_trip_count":\{"n":"?(\d+)')


def trip_count(loop: Instruction) -> tuple[int, str]:
    """Returns the trip count of a `while`, and a note where it is a guess.

    A loop that compares a counter with a constant runs ceil((end - start) / step)
    times; where start and step are not constants they are taken as 0 and 1, and a loop
    of another form counts once.
    """
    if match := _KNOWN.search(loop.attributes):
        return int(match[1]), ""
    name = loop.op_name or loop.name
    compare, sides = _opened(loop.called("condition")[0].root)
    direction = compare.attribute("direction")
    if direction in ("GT", "GE"):
        sides.reverse()
    end = _constant(sides[-1]) if direction in ("LT", "LE", "GT", "GE") else None
    if end is None or sides[0].opcode != "get-tuple-element":
        return 1, f"loop {name} has no fixed length: counted once"
    end += direction in ("LE", "GE")
    counter = int(sides[0].attribute("index"))
    start, step = _start(loop, counter), _step(loop, counter)
    if start is None or not step:
        return max(0, end), f"loop {name} is taken to run from 0 to {end} by 1"
    return max(0, math.ceil((end - start) / step)), ""


def _start(loop: Instruction, counter: int) -> int | None:
    """The counter's constant before the loop."""
    state = loop.operands[0]
    if state.opcode != "tuple":
        return None
    return _constant(_origin(state.operands[counter]))


def _step(loop: Instruction, counter: int) -> int | None:
    """The constant that the body adds to the counter."""
    state = loop.called("body")[0].root
    if state.opcode != "tuple":
        return None
    add, sides = _opened(_origin(state.operands[counter]))
    constants = [value for side in sides if (value := _constant(side)) is not None]
    return constants[0] if add.opcode == "add" and len(constants) == 1 else None


def _opened(op: Instruction) -> tuple[Instruction, list[Instruction]]:
    """Returns an operation, a fusion's last one, and where its operands are from."""
    inner = op.fused.root if op.opcode == "fusion" else op
    origins = [_origin(operand) for operand in inner.operands]
    if inner is not op:
        origins = [
            op.operands[int(origin.literal)] if origin.opcode == "parameter" else origin
            for origin in origins
        ]
    return inner, origins


def _origin(op: Instruction) -> Instruction:
    while op.opcode in ("copy", "bitcast", "convert", "reshape"):
        op = op.operands[0]
    return op


def _constant(op: Instruction) -> int | None:
    value = op.literal.strip("{} ")
    return (
        int(value) if op.opcode == "constant" and value.lstrip("-").isdigit() else None
    )
