"""Top-K search, positiveness and loss on the sharded queue, inside the compiled step.

Queries travel, rows stay. Every device owns q / P rows of the queue and b / P images.
With m_r = how often row r was chosen by anyone in the global batch,

    D_i = sum_j exp(z_i . t_j / tau) + sum_r m_r exp(z_i . c_r / tau)

so a device needs the queries of all images (b x d) and the counts of its own rows,
never the b x K x d neighbors of everyone. It computes, for all images, what its own
rows add to the softmax of the positiveness, to the numerator and to D_i; sums and
maxima over devices, b numbers each, complete them. docs/sharded_queue.md derives this
and counts what is sent; `queue/sums.py` holds the arithmetic of one device.

`snclr_plain.py` and `queue/ring.py` hold the same in plain form and are its oracle.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from snclr_jax.devices.mesh import AXIS, gather
from snclr_jax.objectives import snclr_plain as losses
from snclr_jax.queue.every_row import list_rows
from snclr_jax.queue.ring import NeighborQueue, Neighbors
from snclr_jax.queue.sharded import (
    QUEUE_SPEC,
    ROWS,
    ROWS_OF_VIEWS,
    WHOLE,
)
from snclr_jax.queue.sums import RowList, log_sum_exp

if TYPE_CHECKING:
    from snclr_jax.objectives.snclr import SNCLR


class Direction(NamedTuple):
    """One target and the views that predict it: their loss and its neighbors.

    Attributes:
      value: () mean of L_i over the global batch and the views that predict.
      weights: (..., b, k) positiveness w_ik, before the neighbor weight.
      neighbors: of the target, their keys left out.
      recall: () share of the exact K nearest rows that each device's approximate search
        found among its own, measured on a few queries; None where search is exact.
    """

    value: Array
    weights: Array
    neighbors: Neighbors
    recall: Array | None


@jax.named_scope("search_and_loss")
def search_and_loss(
    queue: NeighborQueue,
    prediction: Array,
    anchor: Array,
    target: Array,
    image_id: Array,
    *,
    settings: SNCLR,
    mesh: Mesh,
    neighbor_weight: Array | float = 1.0,
) -> Direction:
    """Searches the neighbors of the targets and returns the loss of one direction.

    Same value and gradients as `find_neighbors`, `positiveness` and
    `soft_neighbor_loss` composed, on any mesh. Several views may predict one target:
    its neighbors are searched, and their rows read, once for all of them.

    Args:
      queue: the ring, keys sharded over the mesh axis "data".
      prediction: (b, d) unit rows z of one view, or (v, b, d) of v views, sharded over
        the batch.
      anchor: y, or W2^T W1 y for linear attention, of the same views and shape.
      target: (b, d) unit rows t of another view, without gradient.
      image_id: (b,) int32 image of each row.
      settings: of the objective.
      mesh: device mesh with the axis "data"; its size divides b and q.
      neighbor_weight: lambda, multiplies w_ik for k >= 1.
    """
    losses.check_loss(
        settings.form, settings.temperature, settings.decoupled, target.shape[0]
    )
    approximate = settings.queue.search == "approx" and settings.queue.k
    on_each_device = jax.shard_map(
        functools.partial(_search_and_loss_of_device, settings=settings),
        mesh=mesh,
        in_specs=(QUEUE_SPEC, ROWS_OF_VIEWS, ROWS_OF_VIEWS, ROWS, P(), P()),
        out_specs=Direction(
            WHOLE,
            ROWS_OF_VIEWS,
            Neighbors(None, *[ROWS] * 5),
            WHOLE if approximate else None,
        ),
    )
    direction = on_each_device(
        queue,
        prediction.reshape(-1, *target.shape),
        anchor.reshape(-1, *target.shape),
        jax.lax.stop_gradient(target),
        image_id,
        jnp.asarray(neighbor_weight, prediction.dtype),
    )
    weights = direction.weights.reshape(*prediction.shape[:-1], settings.queue.k)
    return direction._replace(weights=weights)


def _search_and_loss_of_device(
    queue: NeighborQueue,
    prediction: Array,
    anchor: Array,
    target: Array,
    image_id: Array,
    neighbor_weight: Array,
    *,
    settings: SNCLR,
) -> Direction:
    z, y, t = gather(prediction), gather(anchor), gather(target)
    found = settings.weigh(queue, z, y, t, image_id)
    row, chosen = found.local.row, found.chosen
    per_image = losses.combine(
        _log_denominator(z, target, queue.keys, row, chosen, settings),
        jnp.sum(z * t, axis=-1) / settings.temperature,
        found.products / settings.temperature,
        neighbor_weight * found.weights,
        chosen,
        form=settings.form,
        axis_name=AXIS,
    )
    # Every device has the losses of all images; the mean says so to the compiler.
    value = jax.lax.pmean(jnp.mean(per_image), AXIS)
    return Direction(value, *found.of_own_images(queue), found.local.recall)


def _log_denominator(
    z: Array, target: Array, keys: Array, row: Array, chosen: Array, settings: SNCLR
) -> Array:
    """Returns (v, b) log D_i of all images, from the targets and rows of all devices.

    Args:
      z: (v, b, d) predictions of all images.
      target: (b / P, d) targets of this device's images.
      keys: (q / P, d) rows of this device.
      row: (b, l) candidates among these rows.
      chosen: (b, l) bool, which candidates were elected.
      settings: of the objective.
    """
    views, batch, dim = z.shape
    everything = jnp.ones(target.shape[0], bool)
    targets = list_rows(z, everything, settings.decoupled)
    rows = _chosen_rows(z, row, chosen, keys.shape[0], settings.decoupled)

    def log_sum(keys: Array, listed: RowList) -> Array:
        queries, tau = z.reshape(views * batch, dim), settings.temperature
        out: Any = log_sum_exp(queries, keys, listed, tau, settings.queue.block)
        return out.reshape(views, batch)

    parts = jnp.stack([log_sum(target, targets), log_sum(keys, rows)])
    top = jax.lax.pmax(jax.lax.stop_gradient(jnp.max(parts, axis=0)), AXIS)
    return top + jnp.log(jax.lax.psum(jnp.sum(jnp.exp(parts - top), axis=0), AXIS))


def _chosen_rows(
    z: Array, row: Array, chosen: Array, rows: int, decoupled: bool
) -> RowList:
    """Lists this device's chosen rows, each once, with their multiplicities m_r.

    The list has b l entries where that is less than the rows of the device ("gathered":
    few devices, a long queue), and one entry for each row otherwise ("stationary": many
    devices). Only the part of it that is filled costs anything.
    """
    multiplicity = jnp.zeros((rows,), z.dtype).at[row].add(chosen.astype(z.dtype))
    listed = multiplicity > 0
    size = min(row.size, rows)
    (entries,) = jnp.nonzero(listed, size=size, fill_value=0)
    count = jnp.sum(listed)
    filled = jnp.arange(size) < count
    excluded = None
    if decoupled:
        excluded = jnp.where(chosen, (jnp.cumsum(listed) - 1)[row], -1)
        # The views of an image are so many queries with the same candidates.
        excluded = jnp.tile(excluded, (z.shape[0], 1))
    return RowList(
        row=entries,
        multiplicity=jnp.where(filled, multiplicity[entries], 0),
        count=count,
        excluded=excluded,
    )
