"""InfoNCE with a target network, as in MoCo v3 (Chen, Xie and He, 2021, section 3)."""

from __future__ import annotations

import dataclasses
from typing import Annotated, ClassVar

import jax.numpy as jnp
from annotated_types import Ge, Gt
from jax import Array

from snclr_jax.queue.every_row import log_sum_over_rows
from snclr_jax.queue.settings import BLOCK
from snclr_jax.step.objective import (
    ANOTHER_LOSS,
    Now,
    Objective,
    Seen,
    other_views,
)


@dataclasses.dataclass(frozen=True)
class InfoNCE(Objective):
    """Each prediction has to find the target of its image in the global batch.

        L_vu = mean_i [ log sum_j exp(z_i . t_j / tau) - z_i . t_i / tau ]

    z of view v, t of view u. It is SNCLR without neighbors; there is no queue.
    """

    # tau, which divides every similarity.
    temperature: Annotated[float, Ge(1e-6)] = 0.2
    # Loss = scale x mean over all pairs of a view and another one's target. The authors
    # add both directions, each times 2 tau: 4 tau.
    scale: Annotated[float, Gt(0)] = 1.0

    predictor: ClassVar[bool] = True
    target: ClassVar[bool] = True
    changes: ClassVar[dict[str, str]] = dict.fromkeys(
        ("temperature", "scale"), ANOTHER_LOSS
    )

    def loss(
        self, params: dict, state: tuple, seen: Seen, now: Now
    ) -> tuple[Array, tuple]:
        """Returns scale x the mean of L_vu over all u and all v but u."""
        del params, state
        everyone = jnp.ones(seen.target.shape[1], bool)
        directions = []
        for number, target in enumerate(seen.target):
            z = other_views(seen.prediction, number)
            log_sum = log_sum_over_rows(
                z,
                target,
                everyone,
                temperature=self.temperature,
                block=BLOCK,
                mesh=now.mesh,
            )
            positive = jnp.sum(z * target, axis=-1) / self.temperature
            directions.append(jnp.mean(log_sum - positive))
        return self.scale * jnp.mean(jnp.stack(directions)), ()
