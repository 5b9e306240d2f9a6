"""Rows of which each process reads a share, for all of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from snclr_jax.devices.agreement import in_agreement
from snclr_jax.devices.mesh import place_batch, place_everywhere, replicated
from snclr_jax.devices.processes import from_all


def shares(size: int) -> list[range]:
    """Returns which of `size` rows each process reads, in the order of the processes.

    Neighbors in the set stay together, no share has more than one row more than
    another, and none is empty: of fewer rows than processes some are read twice.
    """
    count = jax.process_count()
    starts = [process * size // count for process in range(count + 1)]
    return [
        range(start, max(stop, start + 1)) for start, stop in itertools.pairwise(starts)
    ]


def own_share(size: int) -> range:
    """Returns which of `size` rows this process reads, see `shares`."""
    return shares(size)[jax.process_index()]


def read_in_shares(read: Callable[[range], Any], size: int) -> Sequence[Any]:
    """Returns what `read` does of all rows; each process reads its share of them.

    Every process calls it.

    Args:
      read: returns a number or a text for each of some rows.
      size: number of all rows.

    Raises:
      ValueError, OSError: on every process, where `read` raises it on one.
    """
    if jax.process_count() == 1:
        return read(range(size))
    own = in_agreement(lambda: read(own_share(size)), lambda _: {})
    rows: list[Any] = [None] * size
    parts = from_all(np.asarray(own).tolist())
    for share, part in zip(shares(size), parts, strict=True):
        rows[share.start : share.stop] = part
    return rows


def place_shares(rows: np.ndarray, size: int, mesh: Mesh) -> jax.Array:
    """Returns all `size` rows on every device; each process passes its share.

    They travel between the devices once, and none is read by two processes.
    """
    if jax.process_count() == 1:
        return place_everywhere(rows, mesh)
    every = shares(size)
    devices = mesh.size // len(every)
    height = -(-max(map(len, every)) // devices) * devices
    place = np.empty(size, np.int32)
    for process, share in enumerate(every):
        place[share.start : share.stop] = process * height + np.arange(len(share))

    def in_order(padded: jax.Array, place: jax.Array) -> jax.Array:
        return jax.lax.with_sharding_constraint(padded, replicated(mesh))[place]

    placed = jax.jit(in_order, out_shardings=replicated(mesh))(
        place_batch(filled_up(rows, height), mesh), place
    )
    # Collectives that another program starts meanwhile would meet those of this one.
    return jax.block_until_ready(placed)


def filled_up(rows: np.ndarray, count: int) -> np.ndarray:
    """Returns the rows, with zeros behind them up to `count`."""
    return np.pad(rows, [(0, count - len(rows)), *[(0, 0)] * (rows.ndim - 1)])
