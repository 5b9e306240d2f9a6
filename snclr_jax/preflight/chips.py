"""Peak numbers of accelerators, from their makers, and TPU slices without a TPU."""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import os
import re
from typing import Any

import jax
from jax.experimental import topologies

GB, TERA = 1e9, 1e12


@dataclasses.dataclass(frozen=True)
class Chip:
    """What one device can do at most.

    Attributes:
      name: for the report.
      bfloat16, float32: FLOP/s of matrix products; float32 at JAX's default precision
        (one bfloat16 pass on a TPU, TF32 on a GPU).
      memory: bytes.
      memory_bandwidth: bytes/s.
      network: bytes/s that leave the chip over all its links (half of what is sold as
        bidirectional).
      source: of the numbers.
      largest: chips of the largest slice.
      between_slices: bytes/s of a chip to other slices; 0 where it is not published.
    """

    name: str
    bfloat16: float
    float32: float
    memory: float
    memory_bandwidth: float
    network: float
    source: str
    largest: int = 1
    between_slices: float = 0.0


def _chip(name: str, *numbers: float, source: str) -> Chip:
    """Takes the numbers in TFLOP/s, TFLOP/s, GiB, GB/s and GB/s."""
    units = (TERA, TERA, 2**30, GB, GB)
    scaled = (n * unit for n, unit in zip(numbers, units, strict=True))
    return Chip(name, *scaled, source=source)


def _tpu(kind: str, *numbers: float, largest: int, between_slices: float) -> Chip:
    """The same, chips, and GB/s between slices."""
    chip = _chip(f"TPU {kind}", *numbers, source=f"cloud.google.com/tpu/docs/{kind}")
    rate = between_slices * GB
    return dataclasses.replace(chip, largest=largest, between_slices=rate)


# Interconnect in Gbit/s per chip: v4 2400, v5e 1600, v5p 4800, v6e 3200. Between slices
# v5p 50; v5e and v6e 6.4 and 25.6 Tbit/s per pod of 256; v4 is not said.
TPUS = {
    "v4": _tpu("v4", 275, 275, 32, 1200, 300, largest=4096, between_slices=0),
    "v5e": _tpu("v5e", 197, 197, 16, 819, 200, largest=256, between_slices=3.125),
    "v5p": _tpu("v5p", 459, 459, 95, 2765, 600, largest=6144, between_slices=6.25),
    "v6e": _tpu("v6e", 918, 918, 32, 1600, 400, largest=256, between_slices=12.5),
}
_KIND_OF_TPU = {
    "TPU v4": "v4",
    "TPU v5 lite": "v5e",
    "TPU v5": "v5p",
    "TPU v6 lite": "v6e",
}
_SHEET = "NVIDIA data sheet, SXM, without sparsity"
GPUS = {
    "A100-SXM4-40GB": _chip("A100 40 GB", 312, 156, 40, 1555, 300, source=_SHEET),
    "A100-SXM4-80GB": _chip("A100 80 GB", 312, 156, 80, 2039, 300, source=_SHEET),
    "H100 80GB HBM3": _chip("H100", 989, 494, 80, 3350, 450, source=_SHEET),
    "H200": _chip("H200", 989, 494, 140, 4800, 450, source=_SHEET),
}
_EXAMPLES = "v5e:8x8, v6e:4x8, v4:4x4x4 or v5p:2x2x4"


def chip_of(device: jax.Device) -> Chip | None:
    """Returns the peak numbers of a device, None where they are not known."""
    if device.device_kind in _KIND_OF_TPU:
        return TPUS[_KIND_OF_TPU[device.device_kind]]
    # "NVIDIA H200", and not "NVIDIA GH200".
    matches = [chip for part, chip in GPUS.items() if f" {part}" in device.device_kind]
    return matches[0] if matches else None


def slice_devices(topology: str, slices: int = 1) -> list[jax.Device]:
    """Returns the devices of TPU slices, to compile for and not to run on.

    Needs libtpu and no TPU.

    Args:
      topology: kind of TPU and shape of the slice, such as "v5e:8x8".
      slices: number of such slices, joined by the network of the data center.

    Raises:
      ValueError: where there is no such slice, or no libtpu.
    """
    kind, _, shape = topology.partition(":")
    axes = 2 if kind in ("v5e", "v6e") else 3
    if kind not in TPUS or not re.fullmatch(rf"\d+(x\d+){{{axes - 1}}}", shape):
        raise ValueError(
            f"--topology={topology} is not a TPU slice; use one of {tuple(TPUS)} and "
            "the shape of the slice in chips, two axes for v5e and v6e, three for v4 "
            f"and v5p, such as {_EXAMPLES}"
        )
    chips = math.prod(map(int, shape.split("x")))
    if chips > TPUS[kind].largest:
        raise ValueError(
            f"--topology={topology} has {chips} chips, and the largest slice of {kind} "
            f"has {TPUS[kind].largest}; use a smaller one, and --slices for several"
        )
    if importlib.util.find_spec("libtpu") is None:
        raise ValueError(
            f'--topology={topology} needs the TPU compiler: pip install ".[tpu]"'
        )
    # Without these libtpu looks for a TPU machine around it, and says so at length;
    # the last one lets it be loaded beside another compilation.
    for name, value in {
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_ACCELERATOR_TYPE": "v5litepod-4",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_WORKER_ID": "0",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    }.items():
        os.environ.setdefault(name, value)
    # The host itself must not look for a TPU either.
    jax.config.update("jax_platforms", "cpu")
    # The two cores of a v4 chip run as one; the other kinds have no choice.
    options: dict[str, Any] = {"chip_config_name": "megacore"} if kind == "v4" else {}
    if slices > 1:
        options["num_slices"] = slices
    if shape == "1x1":  # a host has four chips unless told otherwise
        options["chips_per_host_bounds"] = (1, 1, 1)
    try:
        return list(
            topologies.get_topology_desc(
                platform="tpu", topology_name=topology, **options
            ).devices
        )
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).split("\n")[0]
        raise ValueError(
            f"--topology={topology} is not a slice that exists ({reason}); use one "
            f"such as {_EXAMPLES}"
        ) from error
