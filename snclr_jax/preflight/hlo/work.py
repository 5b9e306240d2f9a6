"""What a compiled program costs: operations, bytes and collectives, loops multiplied.

XLA's own analysis counts the body of a loop once. Here the program is walked from its
entry: a `while` multiplies its body by its trip count, a `conditional` takes its most
expensive branch, a fusion reads its operands and writes its results once.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from snclr_jax.preflight.hlo.bytes import traffic
from snclr_jax.preflight.hlo.flops import Uncounted, flops
from snclr_jax.preflight.hlo.text import Computation, Instruction, Program
from snclr_jax.preflight.hlo.trips import trip_count

COLLECTIVES = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)
# A TPU multiplies float32 matrices in passes of bfloat16 (jax.lax.Precision).
_PASSES = {"high": 3, "highest": 6}


class Collective(NamedTuple):
    """One collective operation; `bytes` are of its result on one device.

    `group` is the number of devices that take part together.
    """

    kind: str
    bytes: float
    group: int


class Work(NamedTuple):
    """What one instruction of the program costs on one device.

    Attributes:
      op_name: the name stack of the traced function, or that of the enclosing loop.
      times: how often it runs.
      flops, bytes: of one run; bytes of main memory, read and written.
      passes: flops, each weighted by the passes that its precision takes on a TPU.
      collective: set where the instruction communicates.
    """

    op_name: str
    times: int
    flops: float
    bytes: float
    passes: float
    collective: Collective | None


class Traffic(NamedTuple):
    """How many collectives of a kind a program runs, and the bytes of their results."""

    # Hides tuple.count, which nobody calls on it.
    count: int  # pyright: ignore[reportIncompatibleMethodOverride]
    bytes: float


@dataclasses.dataclass(frozen=True)
class Cost:
    """The cost of a program, or of a part of it, on one device.

    Attributes:
      flops: floating point and other arithmetic operations.
      bytes: read from and written to main memory; on a TPU without what stays in the
        memory on the chip.
      collectives: by kind.
      notes: what could not be counted exactly, in words.
    """

    flops: float
    bytes: float
    collectives: dict[str, Traffic]
    notes: tuple[str, ...]


def cost(hlo_text: str, scopes: Sequence[str] = ()) -> Cost:
    """Returns what a compiled program costs on one device.

    Args:
      hlo_text: `compiled.as_text()`.
      scopes: names of `jax.named_scope`s or functions; counts only what was traced
        inside one of them, its gradient included. A fusion belongs where its own name
        says; an instruction without a name belongs with its reader, or its loop.
    """
    work, notes = list_work(hlo_text)
    return summarize(work, notes, scopes)


def list_work(hlo_text: str) -> tuple[list[Work], tuple[str, ...]]:
    """Returns the work of every instruction that runs, and notes as in `Cost`."""
    notes: dict[str, None] = {}
    program = Program(hlo_text)
    work = list(_walk(program, program.entry, 1, "", notes))
    return work, tuple(notes)


def summarize(
    work: Iterable[Work], notes: tuple[str, ...], scopes: Sequence[str] = ()
) -> Cost:
    """Returns the sum of some work; `scopes` as in `cost`."""
    scope = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, scopes))})(?!\w)")
    total_flops = total_bytes = 0.0
    collectives: dict[str, Traffic] = {}
    for each in work:
        if scopes and not scope.search(each.op_name):
            continue
        total_flops += each.times * each.flops
        total_bytes += each.times * each.bytes
        if each.collective:
            kind, size, _ = each.collective
            count, before = collectives.get(kind, Traffic(0, 0.0))
            collectives[kind] = Traffic(count + each.times, before + each.times * size)
    return Cost(total_flops, total_bytes, collectives, notes)


def _walk(
    program: Program,
    computation: Computation,
    times: int,
    outer_name: str,
    notes: dict[str, None],
) -> Iterator[Work]:
    """Yields the work of a computation that runs `times` times."""
    for op in computation.instructions.values():
        name = _traced_name(computation, op) or outer_name
        match op.opcode:
            case "while":
                trips, note = trip_count(program, computation, op)
                notes.update({note: None} if note else {})
                inner, runs = op.called("body"), times * trips
            case "call" | "call-start" | "async-start":
                inner, runs = op.called("to_apply", "calls"), times
            case "conditional":
                inner, runs = [_dearest(program, op, notes)], times
            case _:
                yield from _own_work(program, computation, op, times, name, notes)
                continue
        for each in inner:
            yield from _walk(program, program.computations[each], runs, name, notes)


def _traced_name(computation: Computation, op: Instruction) -> str:
    """The name stack of an instruction, or of the first that reads what it returns.

    The compiler's own copies bear no name, or that of an argument: they serve whoever
    reads them.
    """
    if "/" in op.op_name:
        return op.op_name
    readers = (_traced_name(computation, each) for each in computation.users[op.name])
    return next(filter(None, readers), "")


def _dearest(program: Program, op: Instruction, notes: dict[str, None]) -> str:
    """Returns the branch of a conditional with the most operations, then bytes."""

    def price(branch: str) -> tuple[float, float]:
        work = _walk(program, program.computations[branch], 1, "", notes)
        total = summarize(work, ())
        return total.flops, total.bytes

    keys = ("branch_computations", "true_computation", "false_computation")
    return max(op.called(*keys), key=price)


def _own_work(
    program: Program,
    computation: Computation,
    op: Instruction,
    times: int,
    name: str,
    notes: dict[str, None],
) -> Iterator[Work]:
    """Yields the work of one instruction, everything fused into it included."""
    arithmetic = passes = 0.0
    for inside, each in _with_fused(program, computation, op):
        try:
            count = flops(program, inside, each)
        except Uncounted as error:
            notes[f"operations of {error} are not counted"] = None
            count = 0.0
        arithmetic += count
        passes += count * _passes(program, inside, each)
        collective = _collective(program, inside, each)
        if collective:
            yield Work(each.op_name or name, times, 0.0, 0.0, 0.0, collective)
    moved = traffic(program, computation, op)
    if arithmetic or moved:
        yield Work(name, times, arithmetic, moved, passes, None)


def _with_fused(
    program: Program, computation: Computation, op: Instruction
) -> Iterator[tuple[Computation, Instruction]]:
    """Yields the instruction and all that run inside it, each with its computation."""
    yield computation, op
    if op.opcode in ("fusion", "fusion-start"):
        inside = program.computations[op.called("calls")[0]]
        for each in inside.instructions.values():
            yield from _with_fused(program, inside, each)


def _passes(program: Program, computation: Computation, op: Instruction) -> int:
    precision = op.attribute("operand_precision").strip("{}").split(",")[0]
    if precision not in _PASSES or not program.on_tpu:
        return 1
    dtypes = {computation.operand(op, side).results[0].dtype for side in (0, 1)}
    return _PASSES[precision] if "f32" in dtypes else 1


def _collective(
    program: Program, computation: Computation, op: Instruction
) -> Collective | None:
    """Returns the collective that an instruction is, or ends; each is counted once."""
    kind, start = op.opcode, op
    if kind.endswith("-done"):
        kind = kind.removesuffix("-done")
        if kind in COLLECTIVES:
            start = _start_of(computation, op)
    # A TPU hides a collective behind other work: a fusion starts it, others carry it
    # on, one ends it, and each of them repeats the instruction. Only in the starting
    # one it has no place in the sequence (-1).
    if kind not in COLLECTIVES or re.search(r'"flag_start":"\d', op.attributes):
        return None
    size = sum(array.bytes for array in op.results)
    return Collective(kind, size, _group(program, start))


def _start_of(computation: Computation, done: Instruction) -> Instruction:
    start = computation.operand(done, 0)
    return start if start.opcode.endswith("-start") else done


def _group(program: Program, op: Instruction) -> int:
    """Devices that take part together, from any of the ways to print their groups."""
    if found := re.search(r"replica_groups=\{\{([\d,]+)\}", op.attributes):
        return found[1].count(",") + 1
    if found := re.search(r"replica_groups=\[\d+,(\d+)\]", op.attributes):
        return int(found[1])
    if found := re.search(r"replica_groups=mesh\[(.*?)\] \{(.*?)\}", op.attributes):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", found[1]))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"\w+", found[2]))
    return program.devices
