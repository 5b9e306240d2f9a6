"""Compiling a recipe for a machine before there is one: does it fit, what does it cost.

    snclr preflight --config=imagenet_vit_s16 --topology=v5e:8x8

`hlo/` counts what a compiled program does; nothing here runs one.
"""

from __future__ import annotations

import time

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from snclr_jax.data.choose import choose_from_data, choose_of_objective
from snclr_jax.devices.mesh import make_mesh
from snclr_jax.preflight.chips import chip_of, slice_devices
from snclr_jax.preflight.hlo.work import largest_arrays, list_work, summarize
from snclr_jax.preflight.lower import compile_step, held_bytes, number_of_images
from snclr_jax.preflight.report import (
    SCOPES,
    Memory,
    advice,
    cost_lines,
    estimate,
    held_lines,
    largest_lines,
    memory_lines,
    time_lines,
)
from snclr_jax.run.loggers import check_loggers
from snclr_jax.settings.check import check_against_data, check_config, notes

SHOWN = 5  # arrays


class DoesNotFit(Exception):
    """The step needs more memory than a device has; names the fields to change."""


def preflight(
    config: ConfigDict,
    *,
    topology: str | None = None,
    slices: int = 1,
    images: int | None = None,
) -> None:
    """Compiles the training step of a config and prints what it needs and costs.

    Nothing is allocated, and with a topology no accelerator is needed.

    Args:
      config: a recipe, see `configs/base.py`.
      topology: a TPU slice such as "v5e:8x8"; None compiles for the devices here.
      slices: number of such slices.
      images: size of the training set; None finds out (see `number_of_images`).

    Raises:
      ValueError: where a field, the topology or the number of images cannot be used.
      DoesNotFit: where the step needs more memory than a device has.
    """
    mesh = make_mesh(slice_devices(topology, slices) if topology else None)
    device = mesh.devices.flat[0]
    chip = chip_of(device)
    if images is not None:  # which may be all that is known of them
        config = choose_of_objective(config, images=images, devices=mesh.size)
    # What is compiled depends on no mean or deviation of channels.
    config, chosen = choose_from_data(config, devices=mesh.size, measure=False)
    check_config(config, devices=mesh.size)
    check_loggers(config.log.to)
    images = number_of_images(config, images)
    check_against_data(config, images)
    steps = config.epochs * (images // config.batch_size)
    print(*filter(len, [chosen, *notes(config, images)]), sep="\n")
    print(*held_lines(held_bytes(config, mesh, images=images)), sep="\n")
    print(
        f"{config.model.name}, batch {config.batch_size}, {config.epochs} epochs of "
        f"{images} images: {steps} steps on {mesh.size} x {device.device_kind}\n"
        "compiling the whole training step, every instruction of it scheduled as for a "
        "run;\non 2 cores and for 64 TPU chips, a ResNet-50 or ViT-S took 2 to 6 "
        "minutes and 7 GB",
        flush=True,
    )
    started = time.perf_counter()
    compiled = _compile(config, mesh, images)
    print(f"compiled in {time.perf_counter() - started:.0f} s")

    memory = Memory.of(compiled)
    program = compiled.as_text() or ""
    work, caveats = list_work(program)
    lines = [
        *memory_lines(memory, chip),
        *largest_lines(largest_arrays(program, SHOWN)),
        *cost_lines(summarize(work, caveats), summarize(work, caveats, SCOPES)),
    ]
    if chip:
        cost_in_time = estimate(work, chip, dtype=config.model.dtype)
        lines += time_lines(cost_in_time, chip, steps=steps, between_slices=slices > 1)
    else:
        lines += [f"time: no peak numbers are known for {device.device_kind}"]
    print("\n".join(lines))
    if chip and memory.peak > chip.memory:
        reason = f"{memory.peak / 2**30:.1f} GiB of {chip.memory / 2**30:.1f} GiB"
        raise DoesNotFit(_verdict(reason, config, mesh.size, images))


def _compile(config: ConfigDict, mesh: Mesh, images: int) -> jax.stages.Compiled:
    try:
        return compile_step(config, mesh, images=images)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise ValueError(f"the step cannot be compiled: {error}") from error
        reason = str(error).split("RESOURCE_EXHAUSTED:")[-1].strip().split("\n")[0]
        raise DoesNotFit(_verdict(reason, config, mesh.size, images)) from error


def _verdict(reason: str, config: ConfigDict, devices: int, images: int) -> str:
    fields = advice(config, devices=devices, images=images)
    return f"the step does not fit: {reason.rstrip('.')}; {fields}"
