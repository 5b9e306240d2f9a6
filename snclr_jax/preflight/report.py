"""What a compiled step needs and costs, in words a reader can act on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import jax

from snclr_jax.data.feed import is_resident
from snclr_jax.preflight.chips import Chip
from snclr_jax.preflight.hlo.work import Collective, Cost, Work
from snclr_jax.settings.objective import build_objective

# The named scope of step/train_step.py around the objective.
SCOPES = ("objective",)
GIB = 2**30


class Memory(NamedTuple):
    """Bytes on one device; an output that reuses an argument counts as `aliased`."""

    arguments: int
    outputs: int
    aliased: int
    temporaries: int
    program: int

    @classmethod
    def of(cls, compiled: jax.stages.Compiled) -> Memory:
        """Reads the compiler's own account."""
        stats: Any = compiled.memory_analysis()
        return cls(
            stats.argument_size_in_bytes,
            stats.output_size_in_bytes,
            stats.alias_size_in_bytes,
            stats.temp_size_in_bytes,
            stats.generated_code_size_in_bytes,
        )

    @property
    def peak(self) -> int:
        """Everything that is there at once."""
        new_outputs = self.outputs - self.aliased
        return self.arguments + new_outputs + self.temporaries + self.program


class Estimate(NamedTuple):
    """Seconds of one step at a chip's peak numbers.

    `arithmetic`, `memory` and `network` are each alone; `step` is the estimate.
    """

    arithmetic: float
    memory: float
    network: float
    step: float


def estimate(work: Iterable[Work], chip: Chip, *, dtype: str) -> Estimate:
    """Returns the time of a step at peak: a lower bound, not a prediction.

    Every instruction takes the longer of its arithmetic and its memory traffic (they
    overlap), instructions follow one another, and the collectives are added as if
    nothing hid them. On a TPU float32 products at higher precision count once per pass.

    Args:
      work: from `list_work`.
      chip: the peak numbers.
      dtype: of the model's computation.
    """
    peak = chip.bfloat16 if dtype == "bfloat16" else chip.float32
    arithmetic = memory = network = step = 0.0
    for item in work:
        compute = item.times * item.passes / peak
        move = item.times * item.bytes / chip.memory_bandwidth
        send = 0.0
        if item.collective:
            send = item.times * _sent(item.collective) / chip.network
        arithmetic, memory, network = (
            arithmetic + compute,
            memory + move,
            network + send,
        )
        step += max(compute, move) + send
    return Estimate(arithmetic, memory, network, step)


def _sent(collective: Collective) -> float:
    """Bytes that leave a device, by the ring algorithm, n devices, result r bytes."""
    n = collective.group
    match collective.kind:
        case "all-reduce":  # a reduce-scatter, then an all-gather
            factor = 2 * (n - 1) / n
        case "reduce-scatter":  # r is 1 / n of what is reduced
            factor = n - 1
        case "all-gather" | "all-to-all" | "ragged-all-to-all":
            factor = (n - 1) / n
        case _:
            factor = 1
    return factor * collective.bytes


def memory_lines(memory: Memory, chip: Chip | None) -> Iterator[str]:
    """Yields the section on memory."""
    yield "memory per device"
    for name in ("arguments", "outputs", "aliased", "temporaries", "program", "peak"):
        yield f"  {name:<12} {getattr(memory, name) / GIB:9.3f} GiB"
    if chip:
        share = memory.peak / chip.memory
        yield f"  {chip.name} has {chip.memory / GIB:.1f} GiB: {share:.0%} used"


def cost_lines(whole: Cost, part: Cost) -> Iterator[str]:
    """Yields the sections on work, collectives and the share of search and loss.

    Args:
      whole: of the step.
      part: of the objective.
    """
    yield "work per step and device (loops in full, the dearest branch of a condition)"
    yield f"  operations   {whole.flops / 1e9:12.2f} GFLOP"
    yield f"  memory       {whole.bytes / 1e9:12.3f} GB read and written"
    yield "collectives per step and device, bytes of their results"
    yield from _collective_lines(whole)
    yield "of which the objective"
    if not (part.flops or part.bytes):
        yield "  nothing in the compiled program bears its name"
    else:
        flops = f"{part.flops / max(whole.flops, 1):.2%} of the step"
        moved = f"{part.bytes / max(whole.bytes, 1):.2%} of the step"
        yield f"  operations   {part.flops / 1e9:12.2f} GFLOP  {flops}"
        yield f"  memory       {part.bytes / 1e9:12.3f} GB     {moved}"
        yield from _collective_lines(part)
    yield from (f"note: {note}" for note in whole.notes)


def _collective_lines(cost: Cost) -> Iterator[str]:
    for kind, (count, size) in sorted(cost.collectives.items()):
        yield f"  {kind:<20} {count:5d} x {size / 1e6:10.3f} MB in all"
    if not cost.collectives:
        yield "  none"


def time_lines(time: Estimate, chip: Chip, *, steps: int) -> Iterator[str]:
    """Yields the section on time.

    Args:
      time: of one step.
      chip: whose peak numbers were used.
      steps: of the whole recipe.
    """
    yield f"time, estimated from the peak numbers of {chip.name} ({chip.source})"
    yield (
        f"  TFLOP/s: {chip.bfloat16 / 1e12:.0f} bfloat16, "
        f"{chip.float32 / 1e12:.0f} float32; memory "
        f"{chip.memory_bandwidth / 1e9:.0f} GB/s, network {chip.network / 1e9:.0f} GB/s"
    )
    yield f"  arithmetic alone  {time.arithmetic * 1e3:9.2f} ms"
    yield f"  memory alone      {time.memory * 1e3:9.2f} ms"
    yield f"  network alone     {time.network * 1e3:9.2f} ms"
    yield f"  step              {time.step * 1e3:9.2f} ms"
    yield f"  recipe            {time.step * steps / 3600:9.2f} h for {steps} steps"
    yield (
        "  A step is the sum over instructions of the longer of arithmetic and\n"
        "  memory, and the network. No program reaches every peak: this is a lower\n"
        "  bound, and leaves out reading the data."
    )


def advice(config, *, devices: int, images: int) -> str:
    """Returns the fields to change where a step does not fit the memory."""
    smaller = max(devices, config.batch_size // 2 // devices * devices)
    fields = [f"more devices than {devices}"]
    objective = build_objective(config)
    if 1 < smaller < config.batch_size and smaller % objective.batch_limits()[0] == 0:
        fields.insert(0, f"--config.batch_size={smaller} (it is {config.batch_size})")
    if config.model.dtype != "bfloat16":
        fields.append(f"--config.model.dtype=bfloat16 (it is {config.model.dtype})")
    fields += objective.savings()
    if is_resident(config, images):
        fields.append("--config.data.resident=False")
    return "use " + ", or ".join(fields)
