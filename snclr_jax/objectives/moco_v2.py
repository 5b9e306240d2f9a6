"""MoCo v2: InfoNCE against a queue (Chen, Fan, Girshick and He, 2020).

The loss is equation 1 of MoCo (He, Fan, Wu, Xie and Girshick, 2020).
"""

from __future__ import annotations

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp
from annotated_types import Ge
from jax import Array

from snclr_jax.objectives.remembering import EveryRow, filled_rows, one_direction
from snclr_jax.queue.every_row import log_sum_over_rows
from snclr_jax.queue.ring import NeighborQueue
from snclr_jax.step.objective import Now, Seen


@dataclasses.dataclass(frozen=True)
class MoCoV2(EveryRow):
    """Each image has to find its own target among the rows of the queue.

        L = mean_i [ log( exp(y_i . t_i / tau) + sum_r exp(y_i . c_r / tau) )
                     - y_i . t_i / tau ]

    y of every view but the second, t of the second, c_r the rows of the queue. The
    targets of other images of the batch are no negatives; they are in the next step.
    With an empty queue, in the first step, the loss and its gradient are 0.
    """

    # tau, which divides every similarity.
    temperature: Annotated[float, Ge(1e-6)] = 0.2

    def loss(
        self, params: dict, state: NeighborQueue, seen: Seen, now: Now
    ) -> tuple[Array, tuple]:
        """Returns scale x the mean of L over the views that predict."""
        del params
        y, t = one_direction(seen)
        positive = jnp.sum(y * t, axis=-1) / self.temperature
        negatives = self.log_negatives(state, y, seen.image_id, now)
        # All at once: the positive is never -inf, as the others may be.
        log_sum = jax.nn.logsumexp(jnp.stack([positive, *negatives]), axis=0)
        return self.scale * jnp.mean(log_sum - positive), ()

    def log_negatives(
        self, state: NeighborQueue, y: Array, image_id: Array, now: Now
    ) -> list[Array]:
        """Returns log-sums of negatives, (v, b) each, -inf where there is none.

        Args:
          state: the queue.
          y: (v, b, d) unit rows.
          image_id: (b,).
          now: this step.
        """
        del image_id
        of_rows = log_sum_over_rows(
            y,
            *filled_rows(state),
            temperature=self.temperature,
            block=self.queue.block,
            mesh=now.mesh,
        )
        return [of_rows]
