"""DCL with soft neighbors as further positives: an objective of this project.

SNCLR puts the neighbors of all images into every denominator, where they push images
away from what is like them. Here they only pull. docs/what_we_tried.md has the figures.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
from annotated_types import Ge
from jax import Array
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from snclr_jax.devices.mesh import AXIS, gather
from snclr_jax.objectives.simclr import ordered_pairs, pairs_of_views
from snclr_jax.objectives.soft_neighbors import Attending, SoftNeighbors
from snclr_jax.queue.ring import NeighborQueue, Neighbors
from snclr_jax.queue.settings import QueueSettings
from snclr_jax.queue.sharded import (
    QUEUE_SPEC,
    ROWS,
    ROWS_OF_VIEWS,
    WHOLE,
)
from snclr_jax.step.objective import Found, Now, Seen, mean_row


class Pull(NamedTuple):
    """What the neighbors of the images do to their v views.

    Attributes:
      total: (v, b) sum_k w_ik.
      logit: (v, b) sum_k w_ik y_i . c_ik / tau.
      weights: (v, b, k) positiveness w_ik.
      neighbors: of the images, their keys left out.
      recall: () of an approximate search, as in `sharded.Candidates`.
    """

    total: Array
    logit: Array
    weights: Array
    neighbors: Neighbors
    recall: Array | None


@dataclasses.dataclass(frozen=True)
class PulledDCL(SoftNeighbors):
    """Decoupled contrastive learning, with a pull towards neighbors.

        L_vw = mean_i [ (1 + lambda sum_k w_vik) log sum_r exp(y_vi . r / tau)
                        - y_vi . y_wi / tau
                        - lambda sum_k w_vik y_vi . c_ik / tau ]

    r over the rows of other images in views v and w; c_ik the neighbors of image i, and
    w_vik how positive they are to y_vi: a subclass says so. With K = 0 it is DCL.
    """

    def loss(
        self, params: dict[str, Array], state: NeighborQueue, seen: Seen, now: Now
    ) -> tuple[Array, tuple[Pull]]:
        """Returns scale x the mean of L_vw, v and w different, one of them global."""
        others, positive = pairs_of_views(seen, self.temperature, now.mesh)
        pull = self.pull(params, state, seen, now)
        view, _ = ordered_pairs(seen)
        weight = self.weight_now(now)
        away = (1 + weight * pull.total[view]) * others
        near = positive / self.temperature + weight * pull.logit[view]
        return self.scale * jnp.mean(away - near), (pull,)

    def neighbors(
        self, params: dict[str, Array], state: NeighborQueue, seen: Seen, now: Now
    ) -> Found:
        """Returns the neighbors of each image, and their positiveness to view 0."""
        pull = self.pull(params, state, seen, now)
        # All of them but the keys, which were left out.
        return Found(*pull.neighbors[1:], pull.weights[0])

    def pull(
        self, params: dict[str, Array], state: NeighborQueue, seen: Seen, now: Now
    ) -> Pull:
        """Searches the neighbors of each image, once for all of its views."""
        rows = seen.projection
        return pull_of_neighbors(
            state,
            rows,
            self.anchor(params, rows),
            self.asks(state, seen, now),
            seen.image_id,
            settings=self,
            mesh=now.mesh,
        )

    def anchor(self, params: dict[str, Array], y: Array) -> Array:
        """Returns (v, b, d) of what a neighbor is compared with to be weighed."""
        del params
        return y

    def asks(self, state: NeighborQueue, seen: Seen, now: Now) -> Array:
        """Returns the (b, d) unit rows that search; without gradient."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class SoftDCL(Attending, PulledDCL):
    """Decoupled contrastive learning, with a pull towards soft neighbors of a ring.

        t_i  = sum_u y_ui / |sum_u y_ui|                          u: global views

    The loss is that of `PulledDCL`: c_ik are the K rows of the queue nearest to t_i,
    and w_vik how positive they are to y_vi (SNCLR, section 3.2).
    """

    # tau, which divides every similarity in the loss.
    temperature: Annotated[float, Ge(1e-6)] = 0.1
    queue: QueueSettings = QueueSettings(push="mean")

    def asks(self, state: NeighborQueue, seen: Seen, now: Now) -> Array:
        """Returns t of each image."""
        del state, now
        return mean_row(seen.target)


@jax.named_scope("pull_of_neighbors")
def pull_of_neighbors(
    queue: NeighborQueue,
    rows: Array,
    anchor: Array,
    target: Array,
    image_id: Array,
    *,
    settings: PulledDCL,
    mesh: Mesh,
) -> Pull:
    """Searches the neighbors of each image, once for all of its views.

    Queries travel, rows stay, as in `snclr_fused.py`.

    Args:
      queue: the ring, keys sharded over the mesh axis "data".
      rows: (v, b, d) unit rows y of v views, sharded over the batch.
      anchor: (v, b, d) y, or W2^T W1 y for linear attention.
      target: (b, d) unit rows that search; no gradient.
      image_id: (b,) int32 image of each row.
      settings: of the objective.
      mesh: its size divides b and the rows of the queue.
    """

    def of_device(queue, rows, anchor, target, image_id):
        y, a, t = gather(rows), gather(anchor), gather(target)
        found = settings.weigh(queue, y, a, t, image_id)
        logits = found.products / settings.temperature
        parts = jnp.stack([found.weights, found.weights * logits])
        # Of all images on this device's rows, to this device's images on all rows.
        total, logit = jax.lax.psum_scatter(
            jnp.sum(parts, axis=-1), AXIS, scatter_dimension=2, tiled=True
        )
        return Pull(total, logit, *found.of_own_images(queue), found.local.recall)

    approximate = settings.queue.search == "approx" and settings.queue.k
    return jax.shard_map(
        of_device,
        mesh=mesh,
        in_specs=(QUEUE_SPEC, ROWS_OF_VIEWS, ROWS_OF_VIEWS, ROWS, P()),
        out_specs=Pull(
            ROWS_OF_VIEWS,
            ROWS_OF_VIEWS,
            ROWS_OF_VIEWS,
            Neighbors(None, *[ROWS] * 5),
            WHOLE if approximate else None,
        ),
    )(queue, rows, anchor, jax.lax.stop_gradient(target), image_id)
