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

from snclr_jax.preflight.hlo.bytes import carried_on, traffic
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
# They hand on what others have made.
_MAKES_NOTHING = frozenset(
    "parameter constant tuple get-tuple-element bitcast while call conditional "
    "opt-barrier optimization-barrier send recv".split()
)
# A TPU multiplies float32 matrices in passes of bfloat16 (jax.lax.Precision).
_PASSES = {"high": 3, "highest": 6}


class Collective(NamedTuple):
    """One collective operation; `bytes` are of its result on one device.

    `group` is the number of devices that take part together, or of slices where it goes
    through the network of the data center.
    """

    kind: str
    bytes: float
    group: int
    between_slices: bool = False


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


@dataclasses.dataclass(frozen=True)
class Cost:
    """The cost of a program, or of a part of it, on one device.

    Attributes:
      flops: floating point and other arithmetic operations.
      bytes: read from and written to main memory; on a TPU without what stays in the
        memory on the chip.
      collectives: by kind, how many run and the bytes of all their results.
      notes: what could not be counted exactly, in words.
    """

    flops: float
    bytes: float
    collectives: dict[str, tuple[int, float]]
    notes: tuple[str, ...]


def cost(hlo_text: str, scopes: Sequence[str] = ()) -> Cost:
    """Returns what a compiled program costs on one device.

    Args:
      hlo_text: `compiled.as_text()`.
      scopes: as in `summarize`.
    """
    return summarize(*list_work(hlo_text), scopes)


def list_work(hlo_text: str) -> tuple[list[Work], tuple[str, ...]]:
    """Returns the work of every instruction that runs, and notes as in `Cost`."""
    notes: dict[str, None] = {}
    work = list(_walk(Program(hlo_text).entry, 1, "", notes))
    return work, tuple(notes)


def summarize(
    work: Iterable[Work], notes: tuple[str, ...], scopes: Sequence[str] = ()
) -> Cost:
    """Returns the sum of some work.

    Args:
      work, notes: from `list_work`.
      scopes: names of `jax.named_scope`s or functions; counts only what was traced
        inside one of them, its gradient included. A fusion belongs where its own name
        says; an instruction without a name belongs with its reader, or its loop.
    """
    scope = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, scopes))})(?!\w)")
    total_flops = total_bytes = 0.0
    collectives: dict[str, tuple[int, float]] = {}
    for item in work:
        if scopes and not scope.search(item.op_name):
            continue
        total_flops += item.times * item.flops
        total_bytes += item.times * item.bytes
        if item.collective:
            kind, size, _, between_slices = item.collective
            kind += " between slices" if between_slices else ""
            count, before = collectives.get(kind, (0, 0.0))
            collectives[kind] = count + item.times, before + item.times * size
    return Cost(total_flops, total_bytes, collectives, notes)


def largest_arrays(hlo_text: str, count: int) -> list[tuple[float, str]]:
    """Returns the largest arrays that a program makes: bytes, and what they are.

    Not all of them are there at once. What is inside a fusion is never made.
    """
    sizes = {}
    for op in _made(Program(hlo_text).entry):
        if op.opcode not in _MAKES_NOTHING and not op.opcode.endswith("-start"):
            shapes = ", ".join(f"{a.dtype}{list(a.shape)}" for a in op.results[:3])
            sizes[f"{shapes} {_traced_name(op) or op.name}"] = op.memory
    ordered = sorted(sizes.items(), key=lambda item: -item[1])
    return [(size, what) for what, size in ordered[:count]]


def _made(computation: Computation) -> Iterator[Instruction]:
    keys = ("body", "to_apply", "branch_computations", "true_computation")
    for op in computation.values():
        yield op
        if op.opcode in ("while", "call", "conditional"):
            for called in op.called(*keys, "false_computation"):
                yield from _made(called)


def _walk(
    computation: Computation, times: int, outer_name: str, notes: dict[str, None]
) -> Iterator[Work]:
    """Yields the work of a computation that runs `times` times."""
    for op in computation.values():
        name, runs = _traced_name(op) or outer_name, times
        match op.opcode:
            case "while":
                trips, note = trip_count(op)
                notes.update({note: None} if note else {})
                inner, runs = op.called("body"), times * trips
            case "call" | "call-start" | "async-start":
                inner = op.called("to_apply", "calls")
            case "conditional":
                inner = [_dearest(op, notes)]
            case _:
                yield from _own_work(op, times, name, notes)
                continue
        for called in inner:
            yield from _walk(called, runs, name, notes)


def _traced_name(op: Instruction) -> str:
    """The name stack of an instruction, or of the first that reads what it returns.

    The compiler's own copies bear no name, or that of an argument: they serve whoever
    reads them.
    """
    if "/" in op.op_name:
        return op.op_name
    return next(filter(None, map(_traced_name, op.users)), "")


def _dearest(op: Instruction, notes: dict[str, None]) -> Computation:
    """Returns the branch of a conditional with the most operations, then bytes."""

    def price(branch: Computation) -> tuple[float, float]:
        total = summarize(_walk(branch, 1, "", notes), ())
        return total.flops, total.bytes

    keys = ("branch_computations", "true_computation", "false_computation")
    return max(op.called(*keys), key=price)


def _own_work(
    op: Instruction, times: int, name: str, notes: dict[str, None]
) -> Iterator[Work]:
    """Yields the work of one instruction, everything fused into it included."""
    arithmetic = passes = 0.0
    for inner in _with_fused(op):
        try:
            count = flops(inner)
        except Uncounted as error:
            notes[f"operations of {error} are not counted"] = None
            continue
        arithmetic += count
        passes += count * _passes(inner)
        if collective := _collective(inner):
            yield Work(inner.op_name or name, times, 0.0, 0.0, 0.0, collective)
    moved = traffic(op)
    if arithmetic or moved:
        yield Work(name, times, arithmetic, moved, passes, None)


def _with_fused(op: Instruction) -> Iterator[Instruction]:
    """Yields the instruction and all that run inside it."""
    yield op
    if op.opcode in ("fusion", "fusion-start"):
        for inner in op.fused.values():
            yield from _with_fused(inner)


def _passes(op: Instruction) -> int:
    precision = op.attribute("operand_precision").strip("{}").split(",")[0]
    if precision not in _PASSES or not op.program.on_tpu:
        return 1
    dtypes = {operand.results[0].dtype for operand in op.operands[:2]}
    return _PASSES[precision] if "f32" in dtypes else 1


def _collective(op: Instruction) -> Collective | None:
    """Returns the collective that an instruction is, or ends; each is counted once."""
    between = re.search(r'_xla_megascale_transfer_type="(\w+)"', op.attributes)
    if op.opcode == "recv" and between:
        kind = between[1].lower().replace("_", "-")
        return Collective(kind, op.bytes, _slices(op), between_slices=True)
    kind = op.opcode.removesuffix("-done")
    if kind not in COLLECTIVES or carried_on(op):
        return None
    ends = kind != op.opcode and op.operands[0].opcode.endswith("-start")
    return Collective(kind, op.bytes, _group(op.operands[0] if ends else op))


def _slices(op: Instruction) -> int:
    """Slices that take part: of "{1,2}x{0:3}", or "{1:2}x{0:3}", two."""
    slices = re.search(r'_xla_megascale_target="\{([\d,:]+)\}', op.attributes)
    if not slices:
        return 2
    ends = [list(map(int, part.split(":"))) for part in slices[1].split(",")]
    return sum(end[-1] - end[0] + 1 for end in ends)


def _group(op: Instruction) -> int:
    """Devices that take part together, from any of the ways to print their groups."""
    if match := re.search(r"replica_groups=\{\{([\d,]+)\}", op.attributes):
        return match[1].count(",") + 1
    if match := re.search(r"replica_groups=\[\d+,(\d+)\]", op.attributes):
        return int(match[1])
    if match := re.search(r"replica_groups=mesh\[(.*?)\] \{(.*?)\}", op.attributes):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", match[1]))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"\w+", match[2]))
    return op.program.devices
