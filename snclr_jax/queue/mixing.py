"""Rows mixed from rows of the queue, wherever these lie (MoCHi's synthetic negatives).

The hardest rows of an image are elected among all devices, and the device that owns the
image draws what is mixed of them. Rows move as parts of a mixture: each device adds up
what it owns of it, and the image's device receives the sum. So mixtures are the same on
any mesh, for v b m d numbers a step; pairs within one device would move nothing, and
be another distribution on another mesh.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from snclr_jax.devices.mesh import AXIS, gather
from snclr_jax.queue.every_row import merged
from snclr_jax.queue.ring import NeighborQueue
from snclr_jax.queue.settings import QueueSettings
from snclr_jax.queue.sharded import (
    QUEUE_SPEC,
    ROWS_OF_VIEWS,
    elect,
    neighbors_of_own_images,
    search_own_rows,
)


class Hardest(NamedTuple):
    """The n rows of the queue that are most similar to each image.

    Attributes:
      row: (v, b, n) int32 row of the queue, most similar first.
      count: (v, b) int32, how many of them there are: fewer in a queue that is filling.
    """

    row: Array
    # Hides tuple.count, which nobody calls on it.
    count: Array


class Mixtures(NamedTuple):
    """m mixtures for each image.

        h_m = u( own_m query + sum_p weight_mp c_row_mp ),    u(x) = x / |x|

    Attributes:
      row: (v, b, m, 2) int32 rows c of the queue.
      weight: (v, b, m, 2).
      own: (v, b, m).
      valid: (v, b, m) bool; the others do not exist.
    """

    row: Array
    weight: Array
    own: Array
    valid: Array


@jax.named_scope("mixing")
def hardest_rows(
    queue: NeighborQueue,
    query: Array,
    image_id: Array,
    *,
    count: int,
    block: int,
    mesh: Mesh,
) -> Hardest:
    """Finds the filled rows with the largest query_i . c_r, on all devices.

    An earlier view of the same image is none of them: it would be the hardest of all,
    and is no negative.

    Args:
      queue: q rows, sharded.
      query: (v, b, d) unit rows, sharded over b.
      image_id: (b,) int32; -1 excludes nothing.
      count: n; at most q.
      block: most numbers that exist at once on a device.
      mesh: its size divides b and q.
    """
    settings = QueueSettings(k=count, block=block)
    views = query.shape[0]

    def of_device(queue: NeighborQueue, query: Array, image_id: Array) -> Hardest:
        # By image, then by view: the queries of one device's images lie together.
        z = jnp.swapaxes(gather(query), 0, 1).reshape(-1, query.shape[-1])
        image_id = jnp.repeat(image_id, views)
        candidates = search_own_rows(queue, z, image_id, settings)
        elected = elect(candidates.similarity, count)
        neighbors = neighbors_of_own_images(queue, candidates.row, elected)
        found = jnp.sum(neighbors.valid, axis=1, dtype=jnp.int32)
        row, found = (
            jnp.swapaxes(x.reshape(-1, views, *x.shape[1:]), 0, 1)
            for x in (neighbors.row, found)
        )
        return Hardest(row, found)

    return jax.shard_map(
        of_device,
        mesh=mesh,
        in_specs=(QUEUE_SPEC, ROWS_OF_VIEWS, P()),
        out_specs=Hardest(ROWS_OF_VIEWS, ROWS_OF_VIEWS),
    )(queue, jax.lax.stop_gradient(query), image_id)


@jax.named_scope("mixing")
def log_sum_over_mixtures(
    query: Array,
    keys: Array,
    mixtures: Mixtures,
    *,
    temperature: float,
    block: int,
    mesh: Mesh,
) -> Array:
    """Returns log sum_m exp(query_i . h_im / temperature), h without gradient.

    Args:
      query: (v, b, d) unit rows, sharded over b.
      keys: (q, d) rows of the queue, sharded over q.
      mixtures: what h is made of, sharded over b.
      temperature: tau > 0.
      block: most numbers that exist at once on a device.
      mesh: its size divides b and q.

    Returns:
      (v, b); -inf where there is no mixture, with a gradient of 0.
    """

    def of_device(query: Array, keys: Array, mixtures: Mixtures):
        def of_block(_: None, part: Mixtures):
            rows = _mixed_rows(keys, part) + part.own[..., None] * query[:, :, None]
            square = jnp.sum(rows * rows, axis=-1, keepdims=True)
            rows = rows * jax.lax.rsqrt(jnp.maximum(square, 1e-24))
            highest = jax.lax.Precision.HIGHEST
            logits = jnp.einsum("vbd,vbmd->vbm", query, rows, precision=highest)
            logits = jnp.where(part.valid, logits / temperature, -jnp.inf)
            log_sum = jax.nn.logsumexp(logits, axis=-1)
            share = jnp.where(part.valid, jnp.exp(logits - log_sum[..., None]), 0.0)
            mean = jnp.einsum("vbm,vbmd->vbd", share, rows, precision=highest)
            return None, (log_sum, mean)

        # Both rows of each mixture, and the mixture, of all images.
        width = block // (3 * query.size * jax.lax.axis_size(AXIS))
        _, softmaxes = jax.lax.scan(of_block, None, _in_blocks(mixtures, width))
        return merged(*softmaxes)

    fixed = jax.lax.stop_gradient(query)
    log_sum, mean = jax.shard_map(
        of_device,
        mesh=mesh,
        in_specs=(ROWS_OF_VIEWS, P(AXIS), Mixtures(*4 * (ROWS_OF_VIEWS,))),
        out_specs=(ROWS_OF_VIEWS, ROWS_OF_VIEWS),
    )(fixed, keys, mixtures)
    # The mean row is the gradient, which the forward pass made on its way.
    return log_sum + jnp.sum((query - fixed) * mean, axis=-1) / temperature


def _mixed_rows(keys: Array, part: Mixtures) -> Array:
    """Returns the weighted sums of rows of the queue, (v, b / P, m, d), for own images.

    Each device adds what it owns for all images.
    """
    owned = keys.shape[0]
    row, weight = (
        jax.lax.all_gather(x, AXIS, axis=1, tiled=True) for x in (part.row, part.weight)
    )
    row = row - jax.lax.axis_index(AXIS) * owned
    weight = jnp.where((row >= 0) & (row < owned), weight, 0.0)
    rows = keys[jnp.clip(row, 0, owned - 1)].astype(weight.dtype)
    highest = jax.lax.Precision.HIGHEST
    sums = jnp.einsum("vbmp,vbmpd->vbmd", weight, rows, precision=highest)
    return jax.lax.psum_scatter(sums, AXIS, scatter_dimension=1, tiled=True)


def _in_blocks(mixtures: Mixtures, width: int) -> Mixtures:
    """Returns (v, b, m, ...) as (blocks, v, b, up to `width`, ...), filled up."""
    count = mixtures.valid.shape[2]
    width = max(1, min(width, count))
    blocks = -(-count // width)

    def blocked(x: Array) -> Array:
        rest = [(0, 0), (0, 0), (0, blocks * width - count)] + [(0, 0)] * (x.ndim - 3)
        x = jnp.pad(x, rest).reshape(*x.shape[:2], blocks, width, *x.shape[3:])
        return jnp.moveaxis(x, 2, 0)

    return jax.tree.map(blocked, mixtures)
