"""Top-K search, positiveness and loss on the sharded queue, inside the compiled step.

Queries travel, rows stay. Every device owns q / P rows of the queue and b / P images.
With m_r = how often row r was chosen by anyone in the global batch,

    D_i = sum_j exp(z_i . t_j / tau) + sum_r m_r exp(z_i . c_r / tau)

so a device needs the queries of all images (b x d) and the counts of its own rows,
never the b x K x d neighbors of everyone: the sums over rows are reduced over devices,
and the K logits of an image are read where its neighbors live.

`losses.py` and `neighbor_queue.py` hold the same in plain form and are its oracle.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from snclr_jax import losses
from snclr_jax.neighbor_queue import (
    UNFILLED,
    UNKNOWN_IMAGE,
    NeighborQueue,
    Neighbors,
    bank_of,
    eligible,
    push,
    similarities,
)

AXIS = "data"
ROWS = P(AXIS)
QUEUE_SPEC = NeighborQueue(keys=ROWS, image_id=ROWS, pushed_at=ROWS, cursor=P())
# exp(s / tau - 1 / tau) >= exp(-2 / tau) stays a normal float32 number down to here.
SMALLEST_CONSTANT_SHIFT_TEMPERATURE = 0.025


class Loss(NamedTuple):
    """One direction's loss and the positiveness it used.

    Attributes:
      value: () mean of L_i over the global batch.
      weights: (b, k) positiveness w_ik, before the neighbor weight.
    """

    value: Array
    weights: Array


def search_and_loss(
    queue: NeighborQueue,
    prediction: Array,
    anchor: Array,
    target: Array,
    image_id: Array,
    *,
    config,
    mesh: Mesh,
    neighbor_weight: Array | float = 1.0,
) -> tuple[Loss, Neighbors]:
    """Searches the neighbors of the targets and returns the loss of one direction.

    Same value and gradients as `find_neighbors`, `positiveness` and
    `soft_neighbor_loss` composed, on any mesh.

    Args:
      queue: the ring, rows sharded over the mesh axis "data".
      prediction: (b, d) unit rows z of one view, sharded over the batch.
      anchor: (b, d) y, or W2^T W1 y for linear attention, of the same view.
      target: (b, d) unit rows t of the other view, without gradient.
      image_id: (b,) int32 image of each row.
      config: the run's config; reads `queue`, `attention` and `loss`.
      mesh: device mesh with the axis "data"; its size divides b and q.
      neighbor_weight: lambda, multiplies w_ik for k >= 1.

    Returns:
      The loss and the neighbors of the targets, their keys left out.
    """
    settings = config.loss
    losses.check_loss(
        settings.form, settings.temperature, settings.decoupled, prediction.shape[0]
    )
    on_each_device = jax.shard_map(
        functools.partial(_search_and_loss_of_device, config=config),
        mesh=mesh,
        in_specs=(QUEUE_SPEC, ROWS, ROWS, ROWS, ROWS, P()),
        out_specs=(Loss(P(), ROWS), Neighbors(None, *[ROWS] * 5)),
    )
    weight = jnp.asarray(neighbor_weight, prediction.dtype)
    target = jax.lax.stop_gradient(target)
    return on_each_device(queue, prediction, anchor, target, image_id, weight)


def push_targets(
    queue: NeighborQueue,
    target: Array,
    image_id: Array,
    step: Array,
    *,
    banks: int,
    mesh: Mesh,
) -> NeighborQueue:
    """Does `push` on the sharded queue: each device keeps the new rows that it owns."""
    size = queue.keys.shape[0]

    def push_to_owned(queue, target, image_id, step):
        return push(
            queue,
            _gather(target),
            image_id=_gather(image_id),
            step=step,
            banks=banks,
            first_row=_first_row(queue),
            size=size,
        )

    return jax.shard_map(
        push_to_owned,
        mesh=mesh,
        in_specs=(QUEUE_SPEC, ROWS, ROWS, P()),
        out_specs=QUEUE_SPEC,
    )(queue, target, image_id, step)


def _search_and_loss_of_device(
    queue: NeighborQueue,
    prediction: Array,
    anchor: Array,
    target: Array,
    image_id: Array,
    neighbor_weight: Array,
    *,
    config,
) -> tuple[Loss, Neighbors]:
    settings = config.loss
    targets = _gather(target)
    neighbors = _search(queue, targets, _gather(image_id), config.queue)
    owned = _owned(neighbors, queue)

    logits = similarities(_gather(prediction), queue.keys) / settings.temperature
    own_neighbors = _reduce(_read(logits, owned))
    attention_logits = _reduce(_read(similarities(_gather(anchor), queue.keys), owned))
    target_logits = similarities(prediction, targets) / settings.temperature
    log_denominator = _log_denominator(logits, target_logits, owned, settings)

    batch = target.shape[0]
    first = jax.lax.axis_index(AXIS) * batch
    mine = jax.tree.map(
        lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, first, batch), neighbors
    )
    weights = losses.positiveness_of_logits(
        attention_logits,
        valid=mine.valid,
        temperature=config.attention.temperature,
        gamma=config.attention.gamma,
        threshold=config.attention.threshold,
    )
    image = jnp.arange(batch)
    per_image = losses.combine(
        log_denominator,
        target_logits[image, first + image],
        own_neighbors,
        neighbor_weight * weights,
        mine.valid,
        form=settings.form,
    )
    value = jax.lax.psum(jnp.sum(per_image), AXIS) / targets.shape[0]
    return Loss(value, weights), mine


def _search(
    queue: NeighborQueue, targets: Array, image_id: Array, settings
) -> Neighbors:
    """Finds the neighbors of all targets: locally, then among the devices' winners."""
    batch, owned = targets.shape[0], queue.keys.shape[0]
    k, size = settings.k, owned * jax.lax.axis_size(AXIS)
    if k == 0:
        nothing = jnp.zeros((batch, 0), jnp.int32)
        similarity = nothing.astype(targets.dtype)
        return Neighbors(
            None, similarity, nothing, nothing, nothing, nothing.astype(bool)
        )
    if not settings.exclude_same_image:
        image_id = jnp.full_like(image_id, UNKNOWN_IMAGE)
    first_row = _first_row(queue)
    row_bank = bank_of(size, settings.banks, "queue.size")
    row_bank = jax.lax.dynamic_slice_in_dim(row_bank, first_row, owned)
    allowed = eligible(
        queue, image_id, bank_of(batch, settings.banks, "the batch"), row_bank
    )
    similarity = jnp.where(allowed, similarities(targets, queue.keys), -jnp.inf)
    # K may exceed the rows of one device.
    similarity, local = jax.lax.top_k(similarity, min(k, owned))
    candidates = (
        similarity,
        first_row + local,
        queue.image_id[local],
        queue.pushed_at[local],
    )
    # Devices are concatenated in row order and top_k keeps the first of equals, so ties
    # go to the lowest row on any number of devices.
    similarity, row, neighbor_id, pushed_at = (
        jax.lax.all_gather(each, AXIS, axis=1, tiled=True) for each in candidates
    )
    similarity, place = jax.lax.top_k(similarity, k)
    row, neighbor_id, pushed_at = (
        jnp.take_along_axis(each, place, axis=1)
        for each in (row, neighbor_id, pushed_at)
    )
    valid = similarity > -jnp.inf
    return Neighbors(
        keys=None,
        similarity=similarity,
        row=row,
        image_id=jnp.where(valid, neighbor_id, UNKNOWN_IMAGE),
        pushed_at=jnp.where(valid, pushed_at, UNFILLED),
        valid=valid,
    )


def _log_denominator(
    logits: Array, target_logits: Array, owned: tuple[Array, Array], settings
) -> Array:
    """Returns (b / P,) log D_i of this device's images.

    Args:
      logits: (b, q / P) z_i . c_r / tau of all images and this device's rows.
      target_logits: (b / P, b) z_i . t_j / tau of this device's images.
      owned: see `_owned`.
      settings: config.loss.
    """
    batch, rows = logits.shape
    local, is_mine = owned
    multiplicity = jnp.zeros((rows,), logits.dtype)
    multiplicity = multiplicity.at[local].add(is_mine.astype(logits.dtype))
    multiplicity = jnp.broadcast_to(multiplicity, logits.shape)
    own_images, images = target_logits.shape
    counts = jnp.ones_like(target_logits)
    if settings.decoupled:
        # m_r - [r in T_i]: counted before the exponential, since subtracting two nearly
        # equal sums afterwards would lose every digit.
        chosen = jnp.zeros(logits.shape, logits.dtype)
        chosen = chosen.at[jnp.arange(batch)[:, None], local].add(
            is_mine.astype(logits.dtype)
        )
        multiplicity = multiplicity - chosen
        mine = jax.lax.axis_index(AXIS) * own_images + jnp.arange(own_images)
        counts = (mine[:, None] != jnp.arange(images)).astype(logits.dtype)

    # Terms that do not count are masked in the exponent too: exp may overflow there.
    masked = jnp.where(multiplicity > 0, logits, -jnp.inf)
    masked_targets = jnp.where(counts > 0, target_logits, -jnp.inf)
    shift = jnp.full((batch,), 1.0 / settings.temperature, logits.dtype)
    if settings.temperature < SMALLEST_CONSTANT_SHIFT_TEMPERATURE:
        top = _gather(jnp.max(masked_targets, axis=1))
        top = jnp.maximum(top, jnp.max(masked, axis=1, initial=-jnp.inf))
        shift = jax.lax.pmax(jax.lax.stop_gradient(top), AXIS)
    from_rows = _reduce(
        jnp.sum(multiplicity * jnp.exp(masked - shift[:, None]), axis=1)
    )
    first = jax.lax.axis_index(AXIS) * own_images
    shift = jax.lax.dynamic_slice_in_dim(shift, first, own_images)
    from_targets = jnp.sum(jnp.exp(masked_targets - shift[:, None]), axis=1)
    return shift + jnp.log(from_targets + from_rows)


def _owned(neighbors: Neighbors, queue: NeighborQueue) -> tuple[Array, Array]:
    """Returns the neighbors' (b, k) place among this device's rows, and which are here.

    The place of a row that lives elsewhere, or of a missing neighbor, is 0.
    """
    local = neighbors.row - _first_row(queue)
    is_mine = neighbors.valid & (local >= 0) & (local < queue.keys.shape[0])
    return jnp.where(is_mine, local, 0), is_mine


def _read(products: Array, owned: tuple[Array, Array]) -> Array:
    """Returns (b, k): the products of each image with its neighbors that live here."""
    local, is_mine = owned
    return jnp.where(is_mine, jnp.take_along_axis(products, local, axis=1), 0.0)


def _first_row(queue: NeighborQueue) -> Array:
    return jax.lax.axis_index(AXIS) * queue.keys.shape[0]


def _gather(values: Array) -> Array:
    """All devices' rows, in the order of the global batch."""
    return jax.lax.all_gather(values, AXIS, tiled=True)


def _reduce(values: Array) -> Array:
    """The sum over devices, each keeping the rows of its own images."""
    return jax.lax.psum_scatter(values, AXIS, tiled=True)
