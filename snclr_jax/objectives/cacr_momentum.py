"""CACR with a target network (Zheng et al., 2021): hard views attract more."""

from __future__ import annotations

import dataclasses
from typing import Annotated, ClassVar, Literal

import jax
import jax.numpy as jnp
from annotated_types import Ge, Gt
from jax import Array

from snclr_jax.queue.every_row import log_sum_over_rows, softmax_over_rows
from snclr_jax.queue.settings import BLOCK
from snclr_jax.step.objective import ANOTHER_LOSS, Now, Objective, Seen, other_views


@dataclasses.dataclass(frozen=True)
class CACRMomentum(Objective):
    """Contrastive attraction and repulsion: views far from a target count more.

        L_u = mean_i sum_v p_vi [ repulsion_vi - attraction_vi ]
        p_vi = softmax_v( |z_vi - t_i|^2 / tau )        over all v but u, no gradient

    z of view v, t of view u. With the cost "rbf" the bracket is that of InfoNCE, so
    that two views make it InfoNCE; with "euclidean", q without gradient:

        (1 - z_vi . t_i) - sum_{j != i} q_vij (1 - z_vi . t_j)
        q_vij = softmax_{j != i}( z_vi . t_j / tau )
    """

    # Of a prediction at a target: "rbf" or "euclidean".
    cost: Literal["rbf", "euclidean"] = "rbf"
    # tau, which divides every similarity, also in p and q.
    temperature: Annotated[float, Ge(1e-6)] = 0.2
    # Loss = scale x mean of L_u over the global views u. The authors multiply "rbf" by
    # 2 tau, and add "euclidean" over the images of a device.
    scale: Annotated[float, Gt(0)] = 1.0

    predictor: ClassVar[bool] = True
    target: ClassVar[bool] = True
    changes: ClassVar[dict[str, str]] = dict.fromkeys(
        ("cost", "temperature", "scale"),
        ANOTHER_LOSS,
    )

    def loss(
        self, params: dict, state: tuple, seen: Seen, now: Now
    ) -> tuple[Array, tuple]:
        """Returns scale x the mean of L_u over all u."""
        del params, state
        costs = {"rbf": self._rbf, "euclidean": self._euclidean}
        targets = []
        for number, target in enumerate(seen.target):
            z = other_views(seen.prediction, number)
            similarity = jnp.sum(z * target, axis=-1)
            far = (2 - 2 * jax.lax.stop_gradient(similarity)) / self.temperature
            cost = costs[self.cost](z, target, similarity, now)
            targets.append(jnp.mean(jnp.sum(jax.nn.softmax(far, axis=0) * cost, 0)))
        return self.scale * jnp.mean(jnp.stack(targets)), ()

    def _rbf(self, z: Array, target: Array, similarity: Array, now: Now) -> Array:
        """Returns (v, b) log sum_j exp(z . t_j / tau) - z . t_i / tau."""
        log_sum = log_sum_over_rows(
            z,
            target,
            jnp.ones(target.shape[0], bool),
            temperature=self.temperature,
            block=BLOCK,
            mesh=now.mesh,
        )
        return log_sum - similarity / self.temperature

    def _euclidean(self, z: Array, target: Array, similarity: Array, now: Now) -> Array:
        """Returns (v, b) z . (sum_j q_j t_j) - z . t_i, as the q_j add up to 1."""
        _, repelled = softmax_over_rows(
            z,
            target,
            jnp.ones(target.shape[0], bool),
            temperature=self.temperature,
            block=BLOCK,
            mesh=now.mesh,
            but_own=True,
        )
        return jnp.sum(z * repelled, axis=-1) - similarity
