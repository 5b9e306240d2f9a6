"""ReSSL: relations of a weak view, found again from a strong one (Zheng et al., 2021).

Relational Self-Supervised Learning with Weak Augmentation, equations 3 to 5.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, ClassVar

import jax.numpy as jnp
from annotated_types import Ge
from jax import Array

from snclr_jax.objectives.remembering import EveryRow, filled_rows, one_direction
from snclr_jax.queue.every_row import (
    log_sum_over_rows,
    softmax_entropy,
    softmax_over_rows,
)
from snclr_jax.queue.ring import NeighborQueue
from snclr_jax.step.objective import Now, Panel, Seen, Shown

SHOWN = (Shown("target entropy", "target_entropy", ".2f"),)
PANELS: tuple[Panel, ...] = (
    ("entropy of the target's softmax (nats)", {"target_entropy": ""}, False),
)
EXPLANATION = (
    "How many rows of the queue a target is like: an entropy of log n is that of a "
    "softmax spread over n rows. Near 0 one row has it all, near log q none stands out."
)
TARGET_CHANGES = {"target_temperature": "targets are sharper or softer from then on"}


@dataclasses.dataclass(frozen=True)
class ReSSL(EveryRow):
    """The similarities of a target to the queue are what other views have to show.

        p_ir = softmax_r(t_i . c_r / tau_t)
        L    = mean_i - sum_r p_ir log softmax_r(y_i . c_r / tau)

    y of every view but the second, t of the second, c_r the rows of the queue. The
    image's own target is no candidate. With an empty queue, in the first step, the loss
    and its gradient are 0.
    """

    # tau, which divides the similarities of the views that predict.
    temperature: Annotated[float, Ge(1e-6)] = 0.1
    # tau_t, which divides those of the target; lower, so that the target is sharper.
    target_temperature: Annotated[float, Ge(1e-6)] = 0.04

    shown: ClassVar[tuple[Shown, ...]] = SHOWN
    panels: ClassVar[tuple[Panel, ...]] = PANELS
    explanation: ClassVar[str] = EXPLANATION
    changes: ClassVar[dict[str, str]] = {**EveryRow.changes, **TARGET_CHANGES}

    def loss(
        self, params: dict, state: NeighborQueue, seen: Seen, now: Now
    ) -> tuple[Array, Array]:
        """Returns scale x the mean of L, and the entropy of p (b,)."""
        del params
        y, t = one_direction(seen)
        keys, counted = filled_rows(state)
        log_sum = log_sum_over_rows(
            y,
            keys,
            counted,
            temperature=self.temperature,
            block=self.queue.block,
            mesh=now.mesh,
        )
        tau = self.target_temperature
        of_target, mean = softmax_over_rows(
            t[None],
            keys,
            counted,
            temperature=tau,
            block=self.queue.block,
            mesh=now.mesh,
        )
        loss = log_sum - jnp.sum(y * mean, axis=-1) / self.temperature
        loss = jnp.mean(jnp.where(jnp.any(counted), loss, 0.0))
        entropy = softmax_entropy(t[None], of_target, mean, temperature=tau)
        return self.scale * loss, entropy[0]

    def metrics(
        self, aux: Array, seen: Seen, labels: Array | None, now: Now
    ) -> dict[str, Array]:
        """Returns the mean entropy of targets."""
        del seen, labels, now
        return {"target_entropy": jnp.mean(aux)}
