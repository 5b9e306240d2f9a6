"""The device mesh, and where each part of the state and batch lives on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, Sharding
from jax.sharding import PartitionSpec as P

from snclr_jax.devices.limits import check_address_space

AXIS = "data"


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Returns a mesh with the one axis "data" over `devices` (default: all).

    Process p holds rows [p b/P, (p + 1) b/P) of a batch, on any machine.

    Raises:
      ValueError: as `check_address_space`.
    """
    check_address_space()
    devices = jax.devices() if devices is None else devices
    # jax.make_mesh orders a TPU slice by its wires, and refuses several slices.
    devices = sorted(devices, key=lambda device: (device.process_index, device.id))
    # Automatic axes: the model's code is not written for explicit ones.
    return Mesh(np.asarray(devices), (AXIS,), axis_types=(AxisType.Auto,))


def has_cudnn_attention(mesh: Mesh) -> bool:
    """Whether cuDNN's fused attention runs there: on NVIDIA GPUs from Ampere on."""
    # "9.0" of an H200, "gfx942" of an AMD GPU, and others have none.
    capability = getattr(mesh.devices.flat[0], "compute_capability", "")
    generation = str(capability).partition(".")[0]
    return generation.isdigit() and int(generation) >= 8


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, P())


def over_batch(mesh: Mesh) -> NamedSharding:
    """The leading axis is split over the devices."""
    return NamedSharding(mesh, P(AXIS))


def over_batches(mesh: Mesh) -> NamedSharding:
    """The second axis is split over the devices: several batches, one after another."""
    return NamedSharding(mesh, P(None, AXIS))


def placed_shapes(shapes: Any, sharding: Sharding) -> Any:
    """Returns shapes and types, from `jax.eval_shape`, of arrays that lie somewhere."""
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        shapes,
    )


def own_rows(batch_size: int, mesh: Mesh, *, micro_batches: int = 1) -> slice:
    """Returns which rows of a global batch this process holds, see `make_mesh`.

    Raises:
      ValueError: where the devices do not divide the micro-batches of the batch.
    """
    if batch_size % (micro_batches * mesh.size):
        raise ValueError(
            f"the run's batch_size {batch_size}, in {micro_batches} micro-batches, is "
            f"not a multiple of {mesh.size} devices; use a number of devices that "
            "divides it"
        )
    share = batch_size // jax.process_count()
    return slice(jax.process_index() * share, (jax.process_index() + 1) * share)


def place_batch(rows: np.ndarray, mesh: Mesh) -> jax.Array:
    """Returns the global array of which this process holds `rows`."""
    return jax.make_array_from_process_local_data(over_batch(mesh), rows)


def place_batches(rows: np.ndarray, mesh: Mesh) -> jax.Array:
    """Returns the global (n, b) array of which this process holds some columns."""
    return jax.make_array_from_process_local_data(over_batches(mesh), rows)


def place_everywhere(array: np.ndarray, mesh: Mesh) -> jax.Array:
    """Returns `array` on every device; each process passes the same values."""
    return jax.make_array_from_process_local_data(replicated(mesh), array)


def gather(values: jax.Array) -> jax.Array:
    """All devices' rows (..., b, d), in the order of the global batch."""
    return jax.lax.all_gather(values, AXIS, axis=values.ndim - 2, tiled=True)
