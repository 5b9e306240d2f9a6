"""Bytes of main memory that one instruction reads and writes.

The rules are those of XLA's own HloCostAnalysis: an instruction reads its operands and
writes its results; a slice reads what it returns; an update in place reads and writes
the updated part alone; what stays inside a fusion costs nothing. Unlike there, arrays
that a TPU's compiler keeps in the memory on the chip cost nothing either.
"""

from __future__ import annotations

import re

from snclr_jax.preflight.hlo.text import Instruction

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


def traffic(op: Instruction) -> float:
    """Returns the bytes that an instruction reads from and writes to main memory."""
    if op.opcode in _NO_TRAFFIC or op.opcode.endswith("-start"):
        return 0.0
    if op.opcode.endswith("-done"):
        return _asynchronous(op)
    if op.opcode == "custom-call" and _NO_TRAFFIC_CALLS.search(op.attributes):
        return 0.0
    return sum(_read(op, number) for number in range(len(op.operands))) + _written(op)


def _asynchronous(done: Instruction) -> float:
    """A copy, slice or collective that runs beside others: its result, in and out."""
    start = done.operands[0]
    if start.opcode in ("async-start", "call-start"):
        return 0.0  # what they call was counted there
    if not start.opcode.endswith("-start") or not start.operands:
        return 2 * done.memory
    return done.memory + (start.operands[0].memory > 0) * done.bytes


def _read(op: Instruction, number: int) -> float:
    """Bytes read from operand `number`."""
    whole = op.operands[number].memory
    if whole == 0:
        return 0.0
    if op.opcode == "fusion":
        return min(whole, _read_of(op.fused.parameters[number]))
    if number == 0 and op.opcode in _SLICES:
        return min(whole, op.bytes)
    if op.opcode in _IN_PLACE and number < len(op.results):
        # A scatter combines with what is there, an update only replaces it.
        return _updates(op)[number] if op.opcode == "scatter" else 0.0
    return whole


def _read_of(value: Instruction) -> float:
    """Bytes that the users of a value inside a fusion read of it."""
    total = 0.0
    for user in value.users:
        if _hands_through(user):
            total += _read_of(user)
        elif user.opcode != "tuple" and not carried_on(user):
            total += sum(
                _read(user, number)
                for number, operand in enumerate(user.operands)
                if operand is value
            )
    return total


def _hands_through(op: Instruction) -> bool:
    """Whether the result is the operand under another shape."""
    if op.opcode == "fusion" and len(op.operands) == 1:
        op = _behind_bitcasts(op.fused.root)
    return op.opcode in ("bitcast", "get-tuple-element", "parameter")


def _behind_bitcasts(op: Instruction) -> Instruction:
    while op.opcode == "bitcast":
        op = op.operands[0]
    return op


def carried_on(op: Instruction) -> bool:
    """Whether this repeats a collective that another fusion started.

    A TPU hides a collective behind other work: a fusion starts it, others carry it on,
    one ends it, and each of them repeats the instruction. Only in the starting one it
    has no place in the sequence (-1).
    """
    return bool(re.search(r'"flag_start":"\d', op.attributes))


def _written(op: Instruction) -> float:
    """Bytes of main memory written for the results of an instruction."""
    if op.opcode == "fusion":
        return _written_by_root(op.fused.root)
    return min(op.memory, sum(_updates(op))) if op.opcode in _IN_PLACE else op.memory


def _written_by_root(root: Instruction) -> float:
    if root.opcode == "tuple":
        return sum(map(_written_by_root, root.operands))
    whole = root.memory
    root = _behind_bitcasts(root)
    if root.opcode == "parameter":
        return 0.0  # handed through
    return min(whole, _written(root)) if whole else 0.0


def _updates(op: Instruction) -> list[float]:
    """Bytes of the part that an operation in place replaces, of each of its arrays."""
    arrays = len(op.results)
    # scatter(arrays, indices, updates), dynamic-update-slice(array, update, indices)
    first = arrays + 1 if op.opcode == "scatter" else 1
    return [operand.results[0].bytes for operand in op.operands[first : first + arrays]]
