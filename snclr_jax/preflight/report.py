"""What a compiled step needs and costs, in words a reader can act on."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax

from snclr_jax.models import build_model
from snclr_jax.preflight.chips import Chip
from snclr_jax.preflight.hlo.work import Collective, Cost, Work
from snclr_jax.settings.check import check_config
from snclr_jax.settings.objective import build_objective
from snclr_jax.settings.ranges import get_field
from snclr_jax.settings.resident import is_resident

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

    `arithmetic`, `memory`, `network` and `slices`, the network between slices, are each
    alone; `step` is the estimate.
    """

    arithmetic: float
    memory: float
    network: float
    slices: float
    step: float


def estimate(work: Iterable[Work], chip: Chip, *, dtype: str) -> Estimate:
    """Returns the time of a step at peak: a lower bound, not a prediction.

    Every instruction takes the longer of its arithmetic and its memory traffic (they
    overlap), instructions follow one another, and the collectives are added as if
    nothing hid them. On a TPU float32 products at higher precision count once per pass.
    What goes between slices costs no time where a chip's rate is not known.

    Args:
      work: from `list_work`.
      chip: the peak numbers.
      dtype: of the model's computation.
    """
    peak = chip.bfloat16 if dtype == "bfloat16" else chip.float32
    arithmetic = memory = network = slices = step = 0.0
    for item in work:
        compute = item.times * item.passes / peak
        move = item.times * item.bytes / chip.memory_bandwidth
        near, far = _sending(item.collective, chip)
        arithmetic += compute
        memory += move
        network += item.times * near
        slices += item.times * far
        step += max(compute, move) + item.times * (near + far)
    return Estimate(arithmetic, memory, network, slices, step)


def _sending(collective: Collective | None, chip: Chip) -> tuple[float, float]:
    """Seconds inside a slice, and between slices."""
    if collective is None:
        return 0.0, 0.0
    sent = _sent(collective)
    if collective.between_slices:
        return 0.0, sent / chip.between_slices if chip.between_slices else 0.0
    return sent / chip.network, 0.0


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


def held_lines(held: Mapping[str, int]) -> Iterator[str]:
    """Yields what lies on a device all the time, the largest first."""
    yield "held on each device"
    for name, size in sorted(held.items(), key=lambda item: -item[1]):
        if size:
            yield f"  {name:<22} {size / GIB:9.3f} GiB"


def largest_lines(arrays: Iterable[tuple[float, str]]) -> Iterator[str]:
    """Yields the largest arrays that a step makes, see `largest_arrays`."""
    yield "largest arrays of the step"
    yield from (f"  {size / GIB:9.3f} GiB  {what}" for size, what in arrays)


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
        yield f"  {kind:<29} {count:5d} x {size / 1e6:10.3f} MB in all"
    if not cost.collectives:
        yield "  none"


def time_lines(
    time: Estimate, chip: Chip, *, steps: int, between_slices: bool = False
) -> Iterator[str]:
    """Yields the section on time.

    Args:
      time: of one step.
      chip: whose peak numbers were used.
      steps: of the whole recipe.
      between_slices: whether there are several.
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
    if between_slices and chip.between_slices:
        rate = f"at {chip.between_slices / 1e9:.3f} GB/s a chip"
        yield f"  between slices    {time.slices * 1e3:9.2f} ms {rate}"
    elif between_slices:
        yield f"  between slices    not counted: no rate of {chip.name} is published"
    yield f"  step              {time.step * 1e3:9.2f} ms"
    yield f"  recipe            {time.step * steps / 3600:9.2f} h for {steps} steps"
    yield (
        "  A step is the sum over instructions of the longer of arithmetic and\n"
        "  memory, and the network. No program reaches every peak: this is a lower\n"
        "  bound, and leaves out reading the data."
    )


def advice(config, *, devices: int, images: int) -> str:
    """Returns the fields to change where a step does not fit the memory."""
    savings = build_objective(config).savings()
    # Calls of several steps need the images on the device.
    leaves = is_resident(config, images) and config.steps_per_call == 1
    smaller = {
        "batch_size": max(devices, config.batch_size // 2 // devices * devices),
        "accumulate": 2 * config.accumulate,
        "model.remat": True,
        "model.dtype": "bfloat16",
        **{f"objective.{name}": value for name, value in savings.items()},
        "data.resident": False if leaves else config.data.resident,
    }
    fields = [
        f"--config.{name}={value} (it is {get_field(config, name)})"
        for name, value in smaller.items()
        if value != get_field(config, name)
        and _is_accepted(config, name, value, devices)
    ]
    return "use " + ", or ".join([*fields, f"more devices than {devices}"])


def _is_accepted(config, name: str, value: Any, devices: int) -> bool:
    """Whether a run would take the config with another value of a field."""
    changed = copy.deepcopy(config)
    changed.update_from_flattened_dict({name: value})
    try:
        check_config(changed, devices=devices)
        build_model(changed.model)
    except ValueError:
        return False
    return True
