"""BYOL: no other image enters (Grill et al., 2020, section 3.1)."""

from __future__ import annotations

import dataclasses
from typing import Annotated, ClassVar

import jax.numpy as jnp
from annotated_types import Gt
from jax import Array

from snclr_jax.step.objective import ANOTHER_LOSS, Now, Objective, Seen, other_views


@dataclasses.dataclass(frozen=True)
class BYOL(Objective):
    """Each prediction is drawn to the target of another view of its image.

        L_vu = mean_i [ 2 - 2 z_i . t_i ]

    z of view v, t of view u: the squared distance of rows of length 1. Predictor and
    moving average alone keep all images from getting the same row.
    """

    # Loss = scale x sum over all pairs of a view and another one's target.
    scale: Annotated[float, Gt(0)] = 1.0

    predictor: ClassVar[bool] = True
    target: ClassVar[bool] = True
    changes: ClassVar[dict[str, str]] = {"scale": ANOTHER_LOSS}

    def loss(
        self, params: dict, state: tuple, seen: Seen, now: Now
    ) -> tuple[Array, tuple]:
        """Returns scale x the sum of L_vu over all u and all v but u."""
        del params, state, now
        loss = jnp.zeros(())
        for number, target in enumerate(seen.target):
            z = other_views(seen.prediction, number)
            similarity = jnp.mean(jnp.sum(z * target, axis=-1), axis=1)
            loss += jnp.sum(2 - 2 * similarity)
        return self.scale * loss, ()
