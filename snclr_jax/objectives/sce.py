"""SCE: the positive and the relations of a target, in one cross-entropy.

Denize, Rabarisoa, Orcesi, Herault and Canu: Similarity Contrastive Estimation for
Self-Supervised Soft Contrastive Learning (2023), section 3.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp
from annotated_types import Ge, Le
from jax import Array
from ml_collections import ConfigDict

from snclr_jax.objectives.remembering import EveryRow, Remembering, filled_rows
from snclr_jax.objectives.ressl import EXPLANATION, PANELS, SHOWN, TARGET_CHANGES
from snclr_jax.queue.every_row import (
    log_sum_over_rows,
    merged,
    softmax_entropy,
    softmax_over_rows,
)
from snclr_jax.queue.ring import NeighborQueue
from snclr_jax.step.objective import Now, Panel, Seen, Shown, other_views


@dataclasses.dataclass(frozen=True)
class SCE(EveryRow):
    """InfoNCE whose aim is the positive in part, and in part what the target is like.

        w_i = lambda on t_i + (1 - lambda) softmax_r(t_i . c_r / tau_t)
        L   = mean_i - sum w_i log softmax over {t_i, c_r} of (z_i . / tau)

    z a prediction, t the target of another view, c_r the rows of the queue, and with
    `in_batch` the targets of other images. Where there are none, as in the first step
    with a queue alone, all weight is on t_i, and the loss and its gradient are 0.
    """

    # tau, which divides the similarities of the views that predict.
    temperature: Annotated[float, Ge(1e-6)] = 0.1
    # tau_t, which divides those of the target; lower, so that the target is sharper.
    target_temperature: Annotated[float, Ge(1e-6)] = 0.07
    # lambda, the weight of the positive: 1 is InfoNCE.
    coefficient: Annotated[float, Ge(0), Le(1)] = 0.5
    # False: the second view is the target, a weak one as a rule. True: every global
    # view is one of all others, and the loss is the mean over all pairs.
    symmetric: bool = False
    # True: targets of the other images of the batch are candidates, too; the queue may
    # then have 0 rows.
    in_batch: bool = False
    # False: the positive is left out of the softmax of w, as in the paper. True: it is
    # a candidate whose logit is 0, as in the published code.
    positive_in_softmax: bool = False

    predictor: ClassVar[bool] = True
    shown: ClassVar[tuple[Shown, ...]] = SHOWN
    panels: ClassVar[tuple[Panel, ...]] = PANELS
    explanation: ClassVar[str] = EXPLANATION
    changes: ClassVar[dict[str, str]] = {
        **EveryRow.changes,
        **TARGET_CHANGES,
        **dict.fromkeys(
            ("coefficient", "symmetric", "in_batch", "positive_in_softmax"),
            EveryRow.changes["temperature"],
        ),
    }

    def loss(
        self, params: dict, state: NeighborQueue, seen: Seen, now: Now
    ) -> tuple[Array, Array]:
        """Returns scale x the mean of L, and the entropy of the target's softmax."""
        del params
        numbers = range(len(seen.target)) if self.symmetric else (1,)
        directions = [
            self._direction(
                state, other_views(seen.prediction, number), seen.target[number], now
            )
            for number in numbers
        ]
        losses, entropies = (jnp.stack(x) for x in zip(*directions, strict=True))
        return self.scale * jnp.mean(losses), entropies

    def _direction(
        self, state: NeighborQueue, z: Array, t: Array, now: Now
    ) -> tuple[Array, Array]:
        """Returns L (v, b) of predictions z (v, b, d), and the entropy (b,) of t."""
        within = functools.partial(
            log_sum_over_rows,
            temperature=self.temperature,
            block=self.queue.block,
            mesh=now.mesh,
        )
        target = functools.partial(
            softmax_over_rows,
            temperature=self.target_temperature,
            block=self.queue.block,
            mesh=now.mesh,
        )
        queue = filled_rows(state)
        log_sums, targets = [within(z, *queue)], [target(t[None], *queue)]
        if self.in_batch:
            batch = t, jnp.ones(t.shape[0], bool)
            log_sums.append(within(z, *batch, but_own=True))
            targets.append(target(t[None], *batch, but_own=True))
        log_sum, mean = merged(*(jnp.stack(x) for x in zip(*targets, strict=True)))
        entropy = softmax_entropy(
            t[None], log_sum, mean, temperature=self.target_temperature
        )
        # The share of candidates in their softmax: with the positive in it, exp(0) is
        # added to their sum; without, it is theirs, if there are any.
        share = (
            jax.nn.sigmoid(log_sum)
            if self.positive_in_softmax
            else (log_sum > -jnp.inf).astype(t.dtype)
        )
        aim = t + (1 - self.coefficient) * share[..., None] * (mean - t)
        positive = jnp.sum(z * t, axis=-1) / self.temperature
        loss = jax.nn.logsumexp(jnp.stack([positive, *log_sums]), axis=0)
        return loss - jnp.sum(z * aim, axis=-1) / self.temperature, entropy[0]

    def metrics(
        self, aux: Array, seen: Seen, labels: Array | None, now: Now
    ) -> dict[str, Array]:
        """Returns the mean entropy of the softmax of targets, without the positive."""
        del seen, labels, now
        return {"target_entropy": jnp.mean(aux)}

    def check(self, config: ConfigDict, devices: int) -> None:
        """Refuses a queue without rows, unless the batch has candidates."""
        if self.in_batch:
            Remembering.check(self, config, devices)
        else:
            super().check(config, devices)
