"""How a run's queue is used: which rows images choose as their neighbors."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from snclr_jax.devices.mesh import place_everywhere, replicated
from snclr_jax.queue.ring import UNFILLED, NeighborQueue, Neighbors
from snclr_jax.queue.sharded import (
    QUEUE_SPEC,
    ROWS,
    elect,
    neighbors_of_own_images,
    search_own_rows,
)
from snclr_jax.run.metrics import progress_bar

# The share of rows that is asked for how much of all choices it takes.
MOST_USED = 0.01


class Searches(NamedTuple):
    """A queue at one step of a run, and the images that search it.

    Attributes:
      queue: rows spread over the devices, as in the run's state.
      queries: float32 (n, d) unit target projections t of training images.
      image_id: int32 (n,) place of each in the training set.
      step: updates made, `state.step`.
      config: of the run; reads `batch_size` and `queue`.
      labels: int (images of the training set,), below 0 where unknown, or None.
    """

    queue: NeighborQueue
    queries: np.ndarray
    image_id: np.ndarray
    step: int
    config: Any
    labels: np.ndarray | None = None


def queue_use(searches: Searches, *, mesh: Mesh) -> dict[str, float]:
    """Returns what the n K choices of the queries say about the queue.

    Images search as in training: K, approximate search and the exclusion of the same
    image are the run's, and so are the banks. An image's bank is its place in the
    batch, so blocks of `batch_size` queries stand for batches, and each image sees one
    bank, as it does in one step.

    Args:
      searches: the queue and the images.
      mesh: the devices; their number divides the queue and the batch.

    Returns:
      Shares in [0, 1], and one age:
      queue_fill: of the rows, those that are filled.
      queue_used: of the filled rows, those that any query chose. Choices without any
        preference would use about 1 - exp(-n K / rows).
      queue_most_used: of all choices, those of the most used 1% of the filled rows; of
        at least one row.
      queue_age: mean age of the chosen rows, in steps.
      queue_purity: of the choices whose two labels are known, those of the same class.
      The fill alone where nothing was chosen, and no purity without known labels.

    Raises:
      ValueError: for arrays that do not fit each other, or a number of devices that
        does not divide the batch or the queue.
    """
    _check(searches, mesh)
    queue = searches.queue
    filled = np.asarray(queue.pushed_at) != UNFILLED
    size = max(len(filled), 1)
    found = {"queue_fill": float(np.sum(filled) / size)}
    if not searches.config.queue.k:
        return found
    neighbors = _neighbors(searches, mesh)
    chosen = neighbors.valid
    if not chosen.any():
        return found
    uses = np.bincount(neighbors.row[chosen], minlength=size)[filled]
    most = max(1, round(MOST_USED * len(uses)))
    found["queue_used"] = float(np.mean(uses > 0))
    found["queue_most_used"] = float(np.sort(uses)[-most:].sum() / uses.sum())
    ages = int(searches.step) - neighbors.pushed_at[chosen]
    found["queue_age"] = float(np.mean(ages))
    if searches.labels is not None:
        own = searches.labels[searches.image_id][:, None]
        theirs = searches.labels[neighbors.image_id]
        known = chosen & (neighbors.image_id >= 0) & (own >= 0) & (theirs >= 0)
        if known.any():
            found["queue_purity"] = float(np.mean((own == theirs)[known]))
    return found


def _neighbors(searches: Searches, mesh: Mesh) -> Neighbors:
    """Returns every query's neighbors in host memory, without their keys."""
    count, block = len(searches.queries), searches.config.batch_size
    # The first queries fill up the last block; what they find there does not count.
    order = np.arange(-(-count // block) * block) % count
    settings = searches.config.queue
    search = jax.jit(
        partial(_search, settings=settings, mesh=mesh),
        out_shardings=replicated(mesh),
    )
    found = []
    for start in progress_bar(
        range(0, len(order), block),
        desc="queue",
    ):
        part = order[start : start + block]
        queries, image_id = (
            place_everywhere(np.ascontiguousarray(each[part]), mesh)
            for each in (searches.queries, searches.image_id)
        )
        found.append(jax.device_get(search(searches.queue, queries, image_id)))
    return jax.tree.map(lambda *parts: np.concatenate(parts)[:count], *found)


def _search(
    queue: NeighborQueue, queries: Array, image_id: Array, *, settings: Any, mesh: Mesh
) -> Neighbors:
    def on_each_device(queue, queries, image_id):
        local = search_own_rows(queue, queries, image_id, settings)
        elected = elect(local.similarity, settings.k)
        return neighbors_of_own_images(queue, local.row, elected)

    return jax.shard_map(
        on_each_device,
        mesh=mesh,
        in_specs=(QUEUE_SPEC, P(), P()),
        out_specs=Neighbors(None, *[ROWS] * 5),
    )(queue, queries, image_id)


def _check(searches: Searches, mesh: Mesh) -> None:
    queries, image_id = searches.queries, searches.image_id
    dim = searches.queue.keys.shape[1]
    if queries.ndim != 2 or not len(queries) or queries.shape[1] != dim:
        raise ValueError(
            f"queries of shape {queries.shape} do not fit queue rows of dim {dim}; use "
            f"one or more target projections of the run, shape (n, {dim})"
        )
    if image_id.shape != queries.shape[:1]:
        raise ValueError(
            f"image_id has shape {image_id.shape} for {len(queries)} queries; use one "
            f"per query, shape ({len(queries)},)"
        )
    if searches.labels is not None and image_id.max() >= len(searches.labels):
        raise ValueError(
            f"image_id {image_id.max()} is not among the {len(searches.labels)} labels;"
            " use labels of the whole training set of the run"
        )
    for field, value in (
        ("batch_size", searches.config.batch_size),
        ("queue.size", searches.queue.keys.shape[0]),
    ):
        if value % mesh.size:
            raise ValueError(
                f"the run's {field} {value} is not a multiple of {mesh.size} devices; "
                "evaluate on a number of devices that divides it"
            )
