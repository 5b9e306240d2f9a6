"""The neighbor queue on a device mesh: where its rows live, search and push.

Every device owns q / P rows and b / P images. Queries travel, rows stay: each device
offers candidates from its own rows to all images, and the owner of an image elects the
nearest. docs/sharded_queue.md counts what is sent.

`ring.py` holds the same in plain form and is the oracle.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from snclr_jax.devices.mesh import AXIS, gather
from snclr_jax.queue.ring import (
    UNFILLED,
    UNKNOWN_IMAGE,
    NeighborQueue,
    Neighbors,
    bank_of,
    push,
)
from snclr_jax.queue.search import nearest_rows
from snclr_jax.queue.settings import QueueSettings

# Any, since specs stand for arrays in trees that are typed as trees of arrays.
ROWS: Any = P(AXIS)
ROWS_OF_VIEWS: Any = P(None, AXIS)
WHOLE: Any = P()
# Every device keeps the ids and ages of all rows: 8 bytes each, and read at will.
QUEUE_SPEC = NeighborQueue(keys=ROWS, image_id=WHOLE, pushed_at=WHOLE, cursor=WHOLE)
# A step hands no rows on as if they were whole, whatever it is asked for.
EMPTY_SPEC = NeighborQueue(WHOLE, WHOLE, WHOLE, WHOLE)
# Queries whose approximate search is repeated exactly, to measure its recall.
RECALL_QUERIES = 64


class Candidates(NamedTuple):
    """The candidates of all images among this device's rows, most similar first.

    Attributes:
      similarity: (b, l) float32, -inf where there is none; l = min(K, rows).
      row: (b, l) int32 row of this device.
      recall: see `snclr_fused.Direction`.
    """

    similarity: Array
    row: Array
    recall: Array | None


class Election(NamedTuple):
    """The K nearest over all devices, as this device's images see them.

    Attributes:
      similarity: (b / P, K), -inf where there is no neighbor.
      column: (b / P, K) int32 column among the candidates of all devices, P l of them.
      count: (b,) int32: the first `count` candidates of this device were elected.
    """

    similarity: Array
    column: Array
    # Hides tuple.count, which nobody calls on it.
    count: Array


def search_own_rows(
    queue: NeighborQueue, targets: Array, image_id: Array, settings: QueueSettings
) -> Candidates:
    """Finds the candidates of all images among the rows of this device."""
    batch, owned = targets.shape[0], queue.keys.shape[0]
    if settings.k == 0:
        nothing = jnp.zeros((batch, 0), jnp.int32)
        return Candidates(nothing.astype(targets.dtype), nothing, None)
    if not settings.exclude_same_image:
        image_id = jnp.full_like(image_id, UNKNOWN_IMAGE)
    row_bank = bank_of(queue.image_id.shape[0], settings.banks, "objective.queue.size")
    row_bank, row_image, pushed_at = (
        jax.lax.dynamic_slice_in_dim(array, first_row(queue), owned)
        for array in (row_bank, queue.image_id, queue.pushed_at)
    )
    queue = NeighborQueue(queue.keys, row_image, pushed_at, queue.cursor)
    queries = (targets, image_id, bank_of(batch, settings.banks, "the batch"))
    # K may exceed the rows of one device.
    search = functools.partial(
        nearest_rows, row_bank=row_bank, k=min(settings.k, owned), block=settings.block
    )
    if settings.search == "exact":
        return Candidates(*search(queue, *queries), None)
    approximate = search(queue, *queries, recall=settings.recall)
    similarity, row = search(queue, *(array[:RECALL_QUERIES] for array in queries))
    hit = jnp.any(row[:, :, None] == approximate[1][:RECALL_QUERIES, None], axis=2)
    valid = similarity > -jnp.inf
    total = jax.lax.psum(jnp.stack([jnp.sum(hit & valid), jnp.sum(valid)]), AXIS)
    missed = (total[1] - total[0]) / jnp.maximum(total[1], 1)
    return Candidates(*approximate, 1.0 - missed)


def elect(similarity: Array, k: int) -> Election:
    """Elects the K nearest among the (b, l) candidates of every device.

    Similarities go to the device that owns the image; how many were elected comes back.
    Devices are concatenated in row order and top_k keeps the first of equals, so ties
    go to the lowest row on any number of devices.
    """
    offered, devices = similarity.shape[1], jax.lax.axis_size(AXIS)
    similarity, column = jax.lax.top_k(_to_owners(similarity), k)
    # A device's winners are the first of its candidates, which are sorted.
    device = jnp.where(similarity > -jnp.inf, column // offered, -1)
    counts = jnp.sum(device[:, :, None] == jnp.arange(devices), axis=1, dtype=jnp.int32)
    count = jax.lax.all_to_all(counts, AXIS, split_axis=1, concat_axis=0, tiled=True)
    return Election(similarity, column, count[:, 0])


def _to_owners(values: Array) -> Array:
    """Turns (b, l) values of this device's candidates into (b / P, P l) values of the
    candidates of this device's images."""
    return jax.lax.all_to_all(values, AXIS, split_axis=0, concat_axis=1, tiled=True)


def of_neighbors(values: Array, elected: Election) -> Array:
    """Turns (b, l) values of candidates into (b / P, K) values of neighbors."""
    return jnp.take_along_axis(_to_owners(values), elected.column, axis=1)


def neighbors_of_own_images(
    queue: NeighborQueue, row: Array, elected: Election
) -> Neighbors:
    """Returns the neighbors of this device's images, without their keys."""
    row = of_neighbors(first_row(queue) + row, elected)
    valid = elected.similarity > -jnp.inf
    return Neighbors(
        keys=None,
        similarity=elected.similarity,
        row=row,
        image_id=jnp.where(valid, queue.image_id[row], UNKNOWN_IMAGE),
        pushed_at=jnp.where(valid, queue.pushed_at[row], UNFILLED),
        valid=valid,
    )


@jax.named_scope("push_targets")
def push_targets(
    queue: NeighborQueue,
    target: Array,
    image_id: Array,
    step: Array,
    *,
    banks: int,
    mesh: Mesh,
) -> NeighborQueue:
    """Does `push` on the sharded queue: each device keeps the new keys that it owns."""
    # jaxlib 0.11.2 crashes where it compiles a shard_map that passes no rows through.
    if queue.image_id.size == 0:
        return queue

    def push_to_owned(queue, target, image_id, step):
        return push(
            queue,
            gather(target),
            image_id=image_id,
            step=step,
            banks=banks,
            first_row=first_row(queue),
        )

    return jax.shard_map(
        push_to_owned,
        mesh=mesh,
        in_specs=(QUEUE_SPEC, ROWS, P(), P()),
        out_specs=QUEUE_SPEC,
    )(queue, target, image_id, step)


def first_row(queue: NeighborQueue) -> Array:
    """Returns the row of the whole ring that this device's rows begin with."""
    return jax.lax.axis_index(AXIS) * queue.keys.shape[0]
