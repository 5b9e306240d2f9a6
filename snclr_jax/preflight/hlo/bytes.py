"""Bytes of main memory that one instruction reads and writes.

The rules are those of XLA's own HloCostAnalysis: an instruction reads its operands and
writes its results; a slice reads what it returns; an update in place reads and writes
the updated part alone; what stays inside a fusion costs nothing. Unlike there, arrays
that a TPU's compiler keeps in the memory on the chip cost nothing either.
"""

from __future__ import annotations

import re

from snclr_jax.preflight.hlo.text import Computation, Instruction, Program

_NO_TRAFFIC = frozenset(
    """parameter constant get-tuple-element tuple bitcast after-all opt-barrier
    optimization-barrier partition-id replica-id while conditional call domain
    async-start async-update add-dependency get-dimension-size""".split()
)
_NO_TRAFFIC_CALLS = re.compile(
    'custom_call_target="(AllocateBuffer|ConcatBitcast|AssumeGatherIndicesInBound)"'
)
_SLICES = ("dynamic-slice", "slice", "gather")
_IN_PLACE = ("dynamic-update-slice", "scatter")


def traffic(program: Program, computation: Computation, op: Instruction) -> float:
    """Returns the bytes that an instruction reads from and writes to main memory."""
    if op.opcode in _NO_TRAFFIC or op.opcode.endswith("-start"):
        return 0.0
    if op.opcode.endswith("-done"):
        return _asynchronous(program, computation, op)
    if op.opcode == "custom-call" and _NO_TRAFFIC_CALLS.search(op.attributes):
        return 0.0
    read = sum(
        _read(program, computation, op, number) for number in range(len(op.operands))
    )
    return read + _written(program, computation, op)


def _asynchronous(
    program: Program, computation: Computation, done: Instruction
) -> float:
    """A copy, slice or collective that runs beside others: its result, in and out."""
    start = computation.operand(done, 0)
    if start.opcode in ("async-start", "call-start"):
        return 0.0  # what they call was counted there
    written = sum(map(program.main_memory, done.results))
    if not start.opcode.endswith("-start") or not start.operands:
        return 2 * written
    source = computation.operand(start, 0).results
    in_memory = any(program.main_memory(array) for array in source)
    return written + in_memory * sum(array.bytes for array in done.results)


def _read(
    program: Program, computation: Computation, op: Instruction, number: int
) -> float:
    """Bytes read from operand `number`."""
    operand = computation.operand(op, number)
    whole = sum(map(program.main_memory, operand.results))
    if whole == 0:
        return 0.0
    if op.opcode == "fusion":
        inside = program.computations[op.called("calls")[0]]
        return min(whole, _read_of(program, inside, inside.parameters[number]))
    if number == 0 and op.opcode in _SLICES:
        return min(whole, sum(array.bytes for array in op.results))
    if op.opcode in _IN_PLACE and number < len(op.results):
        # A scatter combines with what is there, an update only replaces it.
        return _updates(computation, op)[number] if op.opcode == "scatter" else 0.0
    return whole


def _read_of(program: Program, inside: Computation, value: Instruction) -> float:
    """Bytes that the users of a value inside a fusion read of it."""
    total = 0.0
    for user in inside.users[value.name]:
        if _hands_through(program, user):
            total += _read_of(program, inside, user)
        elif user.opcode != "tuple" and not _carried_on(user):
            total += sum(
                _read(program, inside, user, number)
                for number, name in enumerate(user.operands)
                if name == value.name
            )
    return total


def _hands_through(program: Program, op: Instruction) -> bool:
    """Whether the result is the operand under another shape."""
    if op.opcode == "fusion" and len(op.operands) == 1:
        inside = program.computations[op.called("calls")[0]]
        op = _behind_bitcasts(inside, inside.root)
    return op.opcode in ("bitcast", "get-tuple-element", "parameter")


def _behind_bitcasts(computation: Computation, op: Instruction) -> Instruction:
    while op.opcode == "bitcast":
        op = computation.operand(op, 0)
    return op


def _carried_on(op: Instruction) -> bool:
    """Whether this repeats a collective that another fusion started."""
    return bool(re.search(r'"flag_start":"\d', op.attributes))


def _written(program: Program, computation: Computation, op: Instruction) -> float:
    """Bytes of main memory written for the results of an instruction."""
    if op.opcode == "fusion":
        inside = program.computations[op.called("calls")[0]]
        return _written_by_root(program, inside, inside.root)
    whole = sum(map(program.main_memory, op.results))
    if op.opcode in _IN_PLACE:
        return min(whole, sum(_updates(computation, op)))
    return whole


def _written_by_root(program: Program, inside: Computation, root: Instruction) -> float:
    if root.opcode == "tuple":
        return sum(
            _written_by_root(program, inside, inside[name]) for name in root.operands
        )
    whole = sum(map(program.main_memory, root.results))
    root = _behind_bitcasts(inside, root)
    if root.opcode == "parameter":
        return 0.0  # handed through
    return min(whole, _written(program, inside, root)) if whole else 0.0


def _updates(computation: Computation, op: Instruction) -> list[float]:
    """Bytes of the part that an operation in place replaces, of each of its arrays."""
    arrays = len(op.results)
    # scatter(arrays, indices, updates), dynamic-update-slice(array, update, indices)
    first = arrays + 1 if op.opcode == "scatter" else 1
    names = op.operands[first : first + arrays]
    return [computation[name].results[0].bytes for name in names]
