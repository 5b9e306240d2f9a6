"""DCL and DCLW, decoupled contrastive learning (Yeh et al., 2022)."""

from __future__ import annotations

import dataclasses
from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp
from annotated_types import Ge, Gt
from jax import Array

from snclr_jax.objectives.simclr import pairs_of_views
from snclr_jax.step.objective import ANOTHER_LOSS, Now, Objective, Seen


@dataclasses.dataclass(frozen=True)
class DCL(Objective):
    """SimCLR without the positive in its denominator.

        L_vw = mean_i [ log sum_r exp(y_vi . r / tau) - y_vi . y_wi / tau ]

    r over the rows of other images in views v and w. A positive that was found still
    counts in full, and so small batches lose less.
    """

    # tau, which divides every similarity.
    temperature: Annotated[float, Ge(1e-6)] = 0.1
    # Loss = scale x mean of L_vw over all pairs of views.
    scale: Annotated[float, Gt(0)] = 1.0

    changes: ClassVar[dict[str, str]] = dict.fromkeys(
        ("temperature", "scale"), ANOTHER_LOSS
    )

    def loss(
        self, params: dict, state: tuple, seen: Seen, now: Now
    ) -> tuple[Array, tuple]:
        """Returns scale x the mean of L_vw, v and w different, one of them global."""
        del params, state
        others, positive = pairs_of_views(seen, self.temperature, now.mesh)
        pull = self.weights(positive) * positive / self.temperature
        return self.scale * jnp.mean(others - pull), ()

    def weights(self, positive: Array) -> Array:
        """Returns the weight of each positive, of y_vi . y_wi (n, b)."""
        return jnp.ones_like(positive)


@dataclasses.dataclass(frozen=True)
class DCLW(DCL):
    """DCL with a weight for each positive: the less alike, the larger.

        w_i = 2 - b softmax_i(y_vi . y_wi / sigma)

    over the images of the global batch. The mean of w_i is 1.
    """

    # sigma, of the softmax of the weights; the lower, the more they differ.
    weight_temperature: Annotated[float, Ge(1e-6)] = 0.5
    # The weights send gradient into the projection, too.
    weight_gradient: bool = False

    changes: ClassVar[dict[str, str]] = {
        **DCL.changes,
        **dict.fromkeys(("weight_temperature", "weight_gradient"), ANOTHER_LOSS),
    }

    def weights(self, positive: Array) -> Array:
        """Returns w_i, between 2 - b and 2."""
        if not self.weight_gradient:
            positive = jax.lax.stop_gradient(positive)
        share = jax.nn.softmax(positive / self.weight_temperature, axis=-1)
        return 2 - share.shape[-1] * share
