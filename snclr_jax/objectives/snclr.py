"""SNCLR: soft neighbors as positive supporters (ICLR 2023).

Each target's K nearest rows of the queue are its neighbors, with the positiveness of
`soft_neighbors.py`. `snclr_plain.py` is the definition, `snclr_fused.py` computes the
same on a sharded queue.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

import jax.numpy as jnp
from jax import Array

from snclr_jax.objectives.snclr_fused import Direction, search_and_loss
from snclr_jax.objectives.soft_neighbors import Attending
from snclr_jax.queue.ring import NeighborQueue
from snclr_jax.step.objective import ANOTHER_LOSS, Found, Now, Seen, other_views


@dataclasses.dataclass(frozen=True)
class SNCLR(Attending):
    """InfoNCE with soft neighbors as further positives, and a queue to find them in."""

    # "paper" (log of the weighted sum) or "soft_cross_entropy" (the authors' code).
    form: Literal["paper", "soft_cross_entropy"] = "paper"
    # Leave an image's own candidates out of its denominator.
    decoupled: bool = False

    predictor: ClassVar[bool] = True
    target: ClassVar[bool] = True
    changes: ClassVar[dict[str, str]] = {
        **Attending.changes,
        **dict.fromkeys(("form", "decoupled"), ANOTHER_LOSS),
    }

    def loss(
        self, params: dict[str, Array], state: NeighborQueue, seen: Seen, now: Now
    ) -> tuple[Array, tuple[Direction, ...]]:
        """Returns scale x the mean of L_vu, prediction of view v, target of view u.

        With two views that is scale (L_12 + L_21) / 2. With more than two global views,
        each view predicts the targets of all the others; local views have no target
        (SwAV, section 3.3).
        """
        directions = tuple(
            search_and_loss(
                state,
                prediction=other_views(seen.prediction, number),
                anchor=self.anchor(params, other_views(seen.projection, number)),
                target=target,
                image_id=seen.image_id,
                settings=self,
                mesh=now.mesh,
                neighbor_weight=self.weight_now(now),
            )
            for number, target in enumerate(seen.target)
        )
        values = [direction.value for direction in directions]
        loss = jnp.asarray(sum(values)) / len(values)
        return self.scale * loss, directions

    def neighbors(
        self, params: dict[str, Array], state: NeighborQueue, seen: Seen, now: Now
    ) -> Found:
        """Returns the neighbors of the first target, and their positiveness."""
        direction = search_and_loss(
            state,
            prediction=seen.prediction[0],
            anchor=self.anchor(params, seen.projection[0]),
            target=seen.target[0],
            image_id=seen.image_id,
            settings=self,
            mesh=now.mesh,
        )
        # All of them but the keys, which were left out.
        return Found(*direction.neighbors[1:], direction.weights)
