"""Gradient accumulation that keeps a loss over the whole batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh

from snclr_jax.devices.mesh import over_batch, over_batches


def in_micro_batches(
    forward: Callable[..., tuple[Any, Any]], count: int, mesh: Mesh, *arrays: Array
) -> tuple[Any, Any]:
    """Returns `forward(*arrays)`, computed for one micro-batch after the other.

    The backward pass computes each micro-batch again, so that the activations of one
    exist at a time, while the loss still sees the whole batch (GradCache: Gao et al.,
    2021). A micro-batch takes equally many consecutive rows of every device.

    Args:
      forward: from arrays (b, ...) to outputs (b, ...) and BatchNorm statistics. These
        move by a mean over groups of images; the mean over micro-batches is the same.
      count: number of micro-batches, a divisor of the images of each device.
      mesh: the devices.
      *arrays: (b, ...).
    """
    if count == 1:
        return forward(*arrays)

    def split(rows: Array) -> Array:
        size = rows.shape[0] // (mesh.size * count)
        rows = rows.reshape(mesh.size, count, size, *rows.shape[1:]).swapaxes(0, 1)
        rows = rows.reshape(count, mesh.size * size, *rows.shape[3:])
        return jax.lax.with_sharding_constraint(rows, over_batches(mesh))

    def merge(rows: Array) -> Array:
        size = rows.shape[1] // mesh.size
        rows = rows.reshape(count, mesh.size, size, *rows.shape[2:]).swapaxes(0, 1)
        rows = rows.reshape(count * mesh.size * size, *rows.shape[3:])
        return jax.lax.with_sharding_constraint(rows, over_batch(mesh))

    outputs, stats = jax.lax.map(
        lambda micro_batch: jax.checkpoint(forward)(*micro_batch),
        [split(rows) for rows in arrays],
    )
    stats = jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), stats)
    return jax.tree.map(merge, outputs), stats
