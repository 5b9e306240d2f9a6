"""NNCLR: nearest neighbors as anchors (Dwibedi et al., 2021)."""

from __future__ import annotations

import dataclasses
from typing import Annotated, ClassVar

import jax.numpy as jnp
from annotated_types import Ge, Gt
from jax import Array
from ml_collections import ConfigDict

from snclr_jax.objectives.searching import Searching
from snclr_jax.queue.anchors import Anchored, neighbors_as_anchors
from snclr_jax.queue.ring import NeighborQueue
from snclr_jax.queue.settings import QueueSettings
from snclr_jax.step.objective import ANOTHER_LOSS, Found, Now, Seen, other_views


@dataclasses.dataclass(frozen=True)
class NNCLR(Searching):
    """The rows nearest to an image have to find the prediction of its other view.

        L_vu = mean_ik [ log sum_j exp(n_ik . z_j / tau) - n_ik . z_i / tau ]

    z of view v; n_ik the K rows of the queue nearest to the projection of view u,
    without gradient. The mean is over the neighbors that were found. The paper has
    K = 1; with more, each neighbor is an anchor.
    """

    # tau, which divides every similarity in the loss.
    temperature: Annotated[float, Ge(1e-6)] = 0.1
    # Loss = scale x mean over all pairs of a view and another one's neighbors.
    scale: Annotated[float, Gt(0)] = 1.0
    # Leave the image that a neighbor belongs to out of the neighbor's denominator.
    decoupled: bool = False
    queue: QueueSettings = QueueSettings(k=1, push="first")  # pyrefly: ignore[bad-override]

    predictor: ClassVar[bool] = True
    changes: ClassVar[dict[str, str]] = {
        **Searching.changes,
        "queue.k": "every image has that many neighbors as anchors",
        **dict.fromkeys(
            ("temperature", "scale", "decoupled"),
            ANOTHER_LOSS,
        ),
    }

    def loss(
        self, params: dict, state: NeighborQueue, seen: Seen, now: Now
    ) -> tuple[Array, tuple[Anchored, ...]]:
        """Returns scale x the mean of L_vu over all u and all v but u."""
        del params
        directions = tuple(
            self._direction(state, other_views(seen.prediction, u), u, seen, now)
            for u in range(len(seen.target))
        )
        values = [direction.value for direction in directions]
        return self.scale * jnp.mean(jnp.stack(values)), directions

    def neighbors(
        self, params: dict, state: NeighborQueue, seen: Seen, now: Now
    ) -> Found:
        """Returns the neighbors of the first view, which count alike."""
        del params
        found = self._direction(state, seen.prediction[:1], 0, seen, now).neighbors
        count = jnp.sum(found.valid, axis=1, keepdims=True)
        # All of them but the keys, which were left out.
        return Found(*found[1:], found.valid / jnp.maximum(count, 1))

    def check(self, config: ConfigDict, devices: int) -> None:
        """Refuses what leaves no anchor."""
        super().check(config, devices)
        if self.queue.k == 0:
            raise ValueError(
                "objective.queue.k 0 leaves no neighbor as an anchor; use 1 or more"
            )

    def _direction(
        self, state: NeighborQueue, prediction: Array, u: int, seen: Seen, now: Now
    ) -> Anchored:
        return neighbors_as_anchors(
            state,
            prediction,
            seen.target[u],
            seen.image_id,
            settings=self.queue,
            temperature=self.temperature,
            decoupled=self.decoupled,
            mesh=now.mesh,
        )
