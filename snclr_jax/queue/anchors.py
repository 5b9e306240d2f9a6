"""Neighbors as anchors: each row that an image elected has to find that image.

The transpose of a search's usual loss: rows of the queue are the anchors, and queries
of the whole batch, which carry the gradient, the candidates. The device that owns an
elected row has all that its loss needs once the queries are gathered: no row moves, and
nothing is summed over devices but the losses.
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
from snclr_jax.queue.ring import NeighborQueue, Neighbors, similarities
from snclr_jax.queue.settings import QueueSettings
from snclr_jax.queue.sharded import (
    QUEUE_SPEC,
    ROWS,
    ROWS_OF_VIEWS,
    WHOLE,
    elect,
    neighbors_of_own_images,
    search_own_rows,
)
from snclr_jax.queue.sums import MOST_ROWS, in_blocks


class Anchored(NamedTuple):
    """The loss of the neighbors of one target, and these.

    Attributes:
      value: () mean over all anchors that were found and all views; 0 without any.
      neighbors: of the target, their keys left out.
      recall: () of an approximate search, as in `sharded.Candidates`.
    """

    value: Array
    neighbors: Neighbors
    recall: Array | None


class Anchors(NamedTuple):
    """The elected rows of one device, once for each image that elected them.

    Attributes:
      row: (n,) int32 row of the device's keys; filled up with any.
      image: (n,) int32 image of the global batch, whose neighbor it is.
      count: () int32, the length of the list before it was filled up.
    """

    row: Array
    image: Array
    # Hides tuple.count, which nobody calls on it.
    count: Array


@jax.named_scope("neighbors_as_anchors")
def neighbors_as_anchors(
    queue: NeighborQueue,
    candidates: Array,
    target: Array,
    image_id: Array,
    *,
    settings: QueueSettings,
    temperature: float,
    decoupled: bool,
    mesh: Mesh,
) -> Anchored:
    """Searches the neighbors of the targets and returns the loss of one direction.

        L = mean_ik [ log sum_j exp(n_ik . z_j / tau) - n_ik . z_i / tau ]

    n_ik is the k-th of the rows nearest to t_i.

    Args:
      queue: the ring, keys sharded over the mesh axis "data".
      candidates: (v, b, d) unit rows z of v views, sharded over the batch.
      target: (b, d) unit rows t of another view; no gradient.
      image_id: (b,) int32 image of each row.
      settings: of the search.
      temperature: tau > 0.
      decoupled: leave j = i out of the sum; b is at least 2.
      mesh: its size divides b and the rows of the queue.
    """

    def of_device(queue, candidates, target, image_id):
        z, t = gather(candidates), gather(target)
        local = search_own_rows(queue, t, image_id, settings)
        elected = elect(local.similarity, settings.k)
        anchors = _listed(local.row, elected.count)
        total: Any = loss_of_anchors(
            z, queue.keys, anchors, temperature, decoupled, settings.block
        )
        found = jnp.maximum(jax.lax.psum(anchors.count, AXIS), 1)
        value = jax.lax.psum(total, AXIS) / (found * z.shape[0])
        neighbors = neighbors_of_own_images(queue, local.row, elected)
        return Anchored(value, neighbors, local.recall)

    recall = WHOLE if settings.search == "approx" else None
    return jax.shard_map(
        of_device,
        mesh=mesh,
        in_specs=(QUEUE_SPEC, ROWS_OF_VIEWS, ROWS, P()),
        out_specs=Anchored(WHOLE, Neighbors(None, *[ROWS] * 5), recall),
    )(queue, candidates, jax.lax.stop_gradient(target), image_id)


def _listed(row: Array, count: Array) -> Anchors:
    """Lists the elected of (b, l) candidates, the first `count` (b,) of each image."""
    elected = jnp.arange(row.shape[1]) < count[:, None]
    image, column = jnp.nonzero(elected, size=row.size, fill_value=0)
    return Anchors(row[image, column], image.astype(jnp.int32), jnp.sum(count))


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def loss_of_anchors(
    z: Array,
    keys: Array,
    anchors: Anchors,
    temperature: float,
    decoupled: bool,
    block: int,
) -> Array:
    """Returns sum_va [ log sum_j exp(n_a . z_vj / tau) - n_a . z_v,i(a) / tau ].

    Its gradient by z, n_a times the softmax less one for the image itself, is gathered
    by the forward pass on its way: backward only scales it.

    Args:
      z: (v, b, d) unit rows.
      keys: (r, d) unit rows of this device, without gradient.
      anchors: which of them are n_a, and for which image i(a).
      temperature: tau > 0.
      decoupled: leave j = i(a) out of the sum.
      block: most numbers of the logits and their softmax that exist at once.

    Returns:
      ().
    """
    return _loss_and_gradient(z, keys, anchors, temperature, decoupled, block)[0]


def _loss_and_gradient(z, keys, anchors, temperature, decoupled, block):
    (views, batch, dim), size = z.shape, anchors.row.shape[0]
    width = max(1, min(size, block // (2 * views * batch), MOST_ROWS))
    padding = -size % width
    row, image = (jnp.pad(each, (0, padding)) for each in (anchors.row, anchors.image))

    def add(number: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        total, gradient = carry
        first = number * width
        rows = keys[jax.lax.dynamic_slice_in_dim(row, first, width)]
        images = jax.lax.dynamic_slice_in_dim(image, first, width)
        filled = first + jnp.arange(width) < anchors.count
        # (w, v, b): anchors, views, candidates.
        logits = similarities(rows, z.reshape(-1, dim)) / temperature
        logits = logits.reshape(width, views, batch)
        own = (images[:, None] == jnp.arange(batch))[:, None]
        positive = jnp.sum(jnp.where(own, logits, 0.0), axis=-1)
        if decoupled:
            logits = jnp.where(own, -jnp.inf, logits)
        log_sum = jax.nn.logsumexp(logits, axis=-1)
        losses = jnp.where(filled[:, None], log_sum - positive, 0.0)
        pull = jnp.exp(logits - log_sum[..., None]) - own
        pull = jnp.where(filled[:, None, None], pull / temperature, 0.0)
        moved = jnp.einsum(
            "wvb,wd->vbd", pull, rows, precision=jax.lax.Precision.HIGHEST
        )
        return total + jnp.sum(losses), gradient + moved

    # zeros_like, since the carry of a loop must vary over the mesh as the data do.
    carry = jnp.zeros_like(z, shape=()), jnp.zeros_like(z)
    return in_blocks(add, carry, size=size, width=width, count=anchors.count)


def _scale_gradient(temperature, decoupled, block, gradient, scale):
    return scale * gradient, None, None


loss_of_anchors.defvjp(_loss_and_gradient, _scale_gradient)
