"""Every image against all other images of its batch, with gradients to both sides.

Candidates travel: a device receives the rows of all images, w b d numbers, and walks
through its own images in blocks. Backward, each block is computed again, and what it
gives to the rows of others comes back to their devices: a reduce-scatter of w b d.
`every_row.py` serves candidates without gradient.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from snclr_jax.devices.mesh import AXIS, gather
from snclr_jax.queue.sharded import ROWS_OF_VIEWS

# Similarities, their exponentials, and what the backward pass makes of both.
_COPIES = 4


def log_sum_over_other_images(
    query: Array,
    candidate: Array,
    *,
    temperature: float,
    mesh: Mesh,
    block: int,
) -> Array:
    """Returns log sum_{j != i} exp(query_i . candidate_j / temperature).

    Args:
      query: (v, b, d) unit rows of v views, sharded over b, which is at least 2.
      candidate: (w, b, d) unit rows of w views of the same images, sharded alike.
      temperature: tau > 0.
      mesh: its size divides b.
      block: most numbers that exist at once on a device, or those of one image.

    Returns:
      (v, w, b), for each view of the queries and of the candidates.
    """

    def log_sum(similarity: Array, other: Array) -> Array:
        logits = jnp.where(other, similarity / temperature, -jnp.inf)
        return jax.nn.logsumexp(logits, axis=-1)

    return over_other_images(log_sum, query, candidate, mesh=mesh, block=block)


@jax.named_scope("other_images")
def over_other_images(
    function: Callable[[Array, Array], Array],
    query: Array,
    candidate: Array,
    *,
    mesh: Mesh,
    block: int,
) -> Array:
    """Returns `function` of the similarities of each image with all others.

    Args:
      function: from the similarities of one image's rows, (v, w, b), and from which of
        the b images are another one, (b,), to (v, w) numbers.
      query, candidate, mesh, block: as `log_sum_over_other_images` has them.

    Returns:
      (v, w, b).
    """

    def of_device(query: Array, candidate: Array) -> Array:
        everyone, (views, images, _) = gather(candidate), query.shape
        candidates, batch, _ = everyone.shape

        # Not every image's similarities are kept for the backward pass.
        @functools.partial(jax.checkpoint, prevent_cse=False)
        def of_image(rows: Array, number: Array) -> Array:
            similarity = _similarities(rows, everyone)
            return function(similarity, jnp.arange(batch) != number)

        first = jax.lax.axis_index(AXIS) * images
        at_once = max(1, block // (_COPIES * views * candidates * batch))
        out = jax.lax.map(
            lambda image: of_image(*image),
            (jnp.swapaxes(query, 0, 1), first + jnp.arange(images)),
            batch_size=min(at_once, images),
        )
        return jnp.moveaxis(out, 0, -1)

    on_each_device = jax.shard_map(
        of_device,
        mesh=mesh,
        in_specs=(ROWS_OF_VIEWS, ROWS_OF_VIEWS),
        out_specs=P(None, None, AXIS),
    )
    return on_each_device(query, candidate)


def products_of_views(views: Array) -> Array:
    """Returns the products of all views of an image, (v, v, b), of rows (v, b, d)."""
    highest = jax.lax.Precision.HIGHEST
    return jnp.einsum("vbd,wbd->vwb", views, views, precision=highest)


def _similarities(rows: Array, everyone: Array) -> Array:
    highest = jax.lax.Precision.HIGHEST
    return jnp.einsum("vd,wbd->vwb", rows, everyone, precision=highest)
