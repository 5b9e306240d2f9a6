"""The rows of a batch that are nearest to each other, on a device mesh.

Rows travel once, queries stay: every device looks its own images up among all of them.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh

from snclr_jax.devices.mesh import AXIS, gather
from snclr_jax.queue.ring import NeighborQueue
from snclr_jax.queue.search import nearest_rows
from snclr_jax.queue.sharded import ROWS_OF_VIEWS


@jax.named_scope("nearest_others")
def nearest_others(rows: Array, k: int, *, block: int, mesh: Mesh) -> Array:
    """Returns the k rows of other images, in the same view, nearest to each row.

    Forward, one device receives the v b d numbers of all rows, a view at a time; no
    gradient reaches anything.

    Args:
      rows: (v, b, d) unit rows, sharded over b.
      k: at most b - 1.
      block: most numbers that exist at once in a step of the search.
      mesh: its size divides b.

    Returns:
      (v, b, k, d), most similar first, sharded over b. Equally similar: the first row
      of the batch first.
    """

    def of_view(own: Array) -> Array:
        everyone = gather(own)
        place = jnp.arange(len(everyone), dtype=jnp.int32)
        # A row is its own image: none finds itself.
        ring = NeighborQueue(everyone, place, place, jnp.int32(0))
        mine = jax.lax.axis_index(AXIS) * len(own) + jnp.arange(len(own))
        bank = jnp.zeros_like(place)
        _, nearest = nearest_rows(
            ring, own, mine, bank[: len(own)], bank, k=k, block=block
        )
        return everyone[nearest]

    return jax.shard_map(
        lambda own: jax.lax.map(of_view, own),
        mesh=mesh,
        in_specs=ROWS_OF_VIEWS,
        out_specs=ROWS_OF_VIEWS,
    )(jax.lax.stop_gradient(rows))
