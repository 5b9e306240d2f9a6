"""The neighbor queue: earlier target projections, searched for soft neighbors.

The queue is one ring of rows with one fixed layout, whatever the number of devices.
Rows are unit vectors; nothing here normalizes.

This file is the plain form, easy to read and to test. `sharded.py` computes the same on
rows that are spread over devices.
"""

from __future__ import annotations

from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
from jax import Array

UNKNOWN_IMAGE = -1
UNFILLED = -1


class NeighborQueue(flax.struct.PyTreeNode):
    """A first-in, first-out memory of target projections (the set C, section 3.1).

    With `banks` > 1 the ring is cut into that many contiguous rings of q / banks rows,
    each filled by one contiguous share of the batch; they share the cursor, since all
    of them advance by the same number of rows.

    Attributes:
      keys: (q, d) unit rows.
      image_id: (q,) int32, the image each row was computed from; -1 is unknown and
        never excludes anything.
      pushed_at: (q,) int32, the step of the push; -1 marks a row not yet filled.
      cursor: () int32 in [0, q / banks), the next row to be written in every bank.
    """

    keys: Array
    image_id: Array
    pushed_at: Array
    cursor: Array


class Neighbors(NamedTuple):
    """The K most similar eligible rows of each query, most similar first.

    Attributes:
      keys: (b, k, d) the rows, or None where they stay on the device that owns them.
      similarity: (b, k) float32 cosine similarity; -inf where there is no neighbor.
      row: (b, k) int32 row of the queue. Equal similarities: the lowest row first.
      image_id: (b, k) int32; -1 where unknown or where there is no neighbor.
      pushed_at: (b, k) int32; -1 where there is no neighbor.
      valid: (b, k) bool, false where fewer than K rows were eligible.
    """

    keys: Array | None
    similarity: Array
    row: Array
    image_id: Array
    pushed_at: Array
    valid: Array


def init_queue(size: int, dim: int, *, dtype: jnp.dtype = jnp.float32) -> NeighborQueue:
    """Returns an empty queue of `size` rows of dimension `dim`.

    The authors start from random unit rows, which are searchable and teach noise; here
    an unfilled row is marked and is never a neighbor.

    Args:
      size: q, the number of rows; 0 is allowed and makes a queue without neighbors.
      dim: d, the embedding dimension.
      dtype: type of the keys.

    Raises:
      ValueError: for a negative size or a dimension below 1.
    """
    if size < 0 or dim < 1:
        raise ValueError(
            f"objective.queue.size {size} must be >= 0 and its dim {dim} >= 1"
        )
    return NeighborQueue(
        keys=jnp.zeros((size, dim), dtype),
        image_id=jnp.full((size,), UNKNOWN_IMAGE, jnp.int32),
        pushed_at=jnp.full((size,), UNFILLED, jnp.int32),
        cursor=jnp.zeros((), jnp.int32),
    )


def similarities(queries: Array, keys: Array) -> Array:
    """Returns the (b, q) products of unit rows, accumulated in at least float32.

    Similarities rounded to bfloat16 tie so often that the neighbors would be arbitrary,
    hence the accumulation type and the precision.
    """
    dtype = jnp.promote_types(jnp.promote_types(queries.dtype, keys.dtype), jnp.float32)
    return jnp.einsum(
        "bd,qd->bq",
        queries,
        keys,
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=dtype,
    )


def eligible(
    queue: NeighborQueue,
    image_id: Array,
    bank: Array,
    row_bank: Array,
) -> Array:
    """Returns (b, q) bool: may row r be a neighbor of image i?

    A row is eligible when it is filled, lies in the image's bank and does not hold an
    earlier view of the same image.

    Args:
      queue: the rows (all of them, or the share of one device).
      image_id: (b,) int32; -1 excludes nothing.
      bank: (b,) int32, the bank of each image.
      row_bank: (q,) int32, the bank of each row.
    """
    filled = queue.pushed_at != UNFILLED
    same_image = (image_id[:, None] == queue.image_id) & (
        image_id[:, None] != UNKNOWN_IMAGE
    )
    same_bank = bank[:, None] == row_bank
    return filled & same_bank & ~same_image


def bank_of(count: int, banks: int, what: str) -> Array:
    """Returns (count,) int32: entry i belongs to bank i // (count / n).

    The images of a global batch and the rows of the ring are split alike.
    """
    return jnp.arange(count, dtype=jnp.int32) // max(per_bank(count, banks, what), 1)


def per_bank(count: int, banks: int, what: str) -> int:
    """Returns count / n, or raises ValueError naming `what` that is being divided."""
    if count % banks:
        raise ValueError(
            f"{what} {count} is not a multiple of objective.queue.banks {banks}; use "
            f"{-(-count // banks) * banks}"
        )
    return count // banks


def find_neighbors(
    queue: NeighborQueue,
    queries: Array,
    k: int,
    *,
    image_id: Array | None = None,
    banks: int = 1,
) -> Neighbors:
    """Finds the K queue rows with the largest cosine similarity (section 3.1).

        T_i = the K eligible rows r with the largest t_i . c_r

    Args:
      queue: the ring of q unit rows.
      queries: (b, d) unit rows, the target projections t.
      k: K, at most q.
      image_id: (b,) int32; rows with the same id are not eligible. None excludes none.
      banks: n; image i and row r meet only where they belong to the same bank.

    Returns:
      `Neighbors` with (b, k) entries, most similar first, ties to the lowest row.

    Raises:
      ValueError: where k exceeds the rows of the queue, or shapes do not fit.
    """
    size, dim = queue.keys.shape
    if not 0 <= k <= size:
        raise ValueError(f"k={k} neighbors cannot be found in a queue of {size} rows")
    if queries.ndim != 2 or queries.shape[1] != dim:
        raise ValueError(
            f"queries of shape {queries.shape} do not fit queue rows of dim {dim}"
        )
    batch = queries.shape[0]
    if image_id is None:
        image_id = jnp.full((batch,), UNKNOWN_IMAGE, jnp.int32)
    allowed = eligible(
        queue,
        image_id,
        bank_of(batch, banks, "the batch"),
        bank_of(size, banks, "objective.queue.size"),
    )
    similarity = jnp.where(allowed, similarities(queries, queue.keys), -jnp.inf)
    similarity, row = jax.lax.top_k(similarity, k)
    valid = similarity > -jnp.inf
    return Neighbors(
        keys=queue.keys[row],
        similarity=similarity,
        row=row,
        image_id=jnp.where(valid, queue.image_id[row], UNKNOWN_IMAGE),
        pushed_at=jnp.where(valid, queue.pushed_at[row], UNFILLED),
        valid=valid,
    )


def push(
    queue: NeighborQueue,
    keys: Array,
    *,
    image_id: Array,
    step: Array | int,
    banks: int = 1,
    first_row: Array | int = 0,
) -> NeighborQueue:
    """Writes the newest target projections over the oldest rows.

    Image i is number j of its bank g and goes to row g q/n + (cursor + j) mod q/n. The
    ring wraps and no row is lost: after ceil(q / b) pushes every row is new. Where a
    bank's share of the batch exceeds its rows, the last ones stay.
    To push both views, push one after the other with the same `step`.

    Args:
      queue: the ring. One device may pass its contiguous share of the keys, with the
        ids and ages of all rows.
      keys: (b, d) unit rows, in the order of the global batch.
      image_id: (b,) int32, -1 where unknown.
      step: the training step, kept as the age of the rows.
      banks: n; the batch is split into n contiguous shares, one for each bank.
      first_row: the row of the ring that `queue.keys` begins with; keys of other rows
        are left to their owners.

    Returns:
      The queue after the push, its cursor advanced by b / n.

    Raises:
      ValueError: where the shapes do not fit, or banks do not divide the batch or ring.
    """
    if keys.ndim != 2 or keys.shape[1] != queue.keys.shape[1]:
        raise ValueError(
            f"keys of shape {keys.shape} do not fit queue rows of shape "
            f"{queue.keys.shape}"
        )
    if image_id.shape != keys.shape[:1]:
        raise ValueError(
            f"image_id of shape {image_id.shape} does not fit keys of shape "
            f"{keys.shape}"
        )
    owned, size = queue.keys.shape[0], queue.image_id.shape[0]
    if size == 0:
        return queue
    batch = keys.shape[0]
    pushed_per_bank = per_bank(batch, banks, "the batch")
    rows_per_bank = per_bank(size, banks, "objective.queue.size")
    bank = bank_of(batch, banks, "the batch")
    within = jnp.arange(batch, dtype=jnp.int32) - bank * pushed_per_bank
    row = bank * rows_per_bank + (queue.cursor + within) % rows_per_bank
    # Where a bank receives more than it can hold, only its last keys are written, so
    # that no row is written twice. Other rows fall off the end ("drop").
    stays = within >= pushed_per_bank - rows_per_bank
    own = row - first_row
    own = jnp.where(stays & (own >= 0), own, owned)
    row = jnp.where(stays, row, size)

    return NeighborQueue(
        keys=write(queue.keys, own, keys),
        image_id=write(queue.image_id, row, image_id),
        pushed_at=write(queue.pushed_at, row, jnp.broadcast_to(step, (batch,))),
        cursor=(queue.cursor + pushed_per_bank) % rows_per_bank,
    )


def write(old: Array, index: Array, new: Array) -> Array:
    """Returns `old` with `new` rows at `index`; those beyond its end are dropped."""
    return old.at[index].set(new.astype(old.dtype), mode="drop")
