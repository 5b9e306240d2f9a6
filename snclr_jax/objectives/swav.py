"""SwAV: swapped assignments to prototypes (Caron et al., 2020, section 3)."""

from __future__ import annotations

import dataclasses
from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp
from annotated_types import Ge, Gt
from jax import Array
from jax.nn import log_softmax, logsumexp
from ml_collections import ConfigDict

from snclr_jax.objectives.remembering import Remembering
from snclr_jax.queue.ring import UNFILLED, NeighborQueue
from snclr_jax.queue.settings import RingSettings
from snclr_jax.queue.sharded import push_targets
from snclr_jax.step.objective import ANOTHER_LOSS, Now, Seen, Shown, unit

# The views whose rows are remembered, each in a queue of its own.
REMEMBERED = 2


@dataclasses.dataclass(frozen=True)
class SwAV(Remembering):
    """Each view predicts to which prototypes the other views of its image belong.

        L_wv = - mean_i sum_k Q_vik log softmax_k(y_wi . p_k / tau)

    y_w of view w, Q_v the codes of global view v, see `sinkhorn_codes`, p_k the unit
    prototypes, which are trained. A queue lets earlier rows take part in the codes of a
    small batch.
    """

    # Number of prototypes k.
    prototypes: Annotated[int, Ge(2)] = 3000
    # tau, which divides every score in the loss.
    temperature: Annotated[float, Ge(1e-6)] = 0.1
    # Divides the scores in the codes: the smaller, the more each image's code is one
    # prototype alone.
    epsilon: Annotated[float, Ge(1e-3)] = 0.05
    # Turns of Sinkhorn's algorithm.
    iterations: Annotated[int, Ge(1)] = 3
    # Loss = scale x mean over all pairs of a code and another view.
    scale: Annotated[float, Gt(0)] = 1.0
    # Epochs in which the prototypes stay as they are: 1 of 200. The variant of a recipe
    # has the same share of its epochs.
    freeze_epochs: Annotated[float, Ge(0)] = 1.0
    # Epochs before the queues, which are filled from the first step, take part in the
    # codes, once they are full: 15 of 200, the same share of a recipe's.
    queue_from_epoch: Annotated[float, Ge(0)] = 15.0
    # Earlier rows: q for each of two global views. A size of 0 is no queue, as the
    # authors have it at batches of 4096; at 256 they have 3840 rows.
    queue: RingSettings = RingSettings()  # pyrefly: ignore[bad-override]

    shown: ClassVar[tuple[Shown, ...]] = (
        Shown("code entropy", "code_entropy", ".2f", watched=True),
    )
    explanation: ClassVar[str] = (
        "The entropy of codes is 0 where each image belongs to one prototype, and the "
        "logarithm of their number where all images look alike."
    )
    fixed: ClassVar[tuple[str, ...]] = ("prototypes",)
    changes: ClassVar[dict[str, str]] = {
        **Remembering.changes,
        "queue_from_epoch": "the codes take earlier rows in from another epoch",
        "freeze_epochs": "the prototypes move from another epoch",
        **dict.fromkeys(
            ("temperature", "epsilon", "iterations", "scale"),
            ANOTHER_LOSS,
        ),
    }

    def init(
        self, key: Array, dim: int
    ) -> tuple[dict[str, Array], tuple[NeighborQueue, ...]]:
        """Returns random unit prototypes (k, d), and two empty queues."""
        params, queue = super().init(key, dim)
        rows = jax.random.normal(key, (self.prototypes, dim))
        return params | {"prototypes": unit(rows)}, (queue,) * REMEMBERED

    def loss(
        self,
        params: dict[str, Array],
        state: tuple[NeighborQueue, ...],
        seen: Seen,
        now: Now,
    ) -> tuple[Array, Array]:
        """Returns scale x the mean of L_wv over all v and all w but v, and the codes.

        Prototypes are normalized here, where the authors normalize them between steps.
        """
        prototypes = unit(params["prototypes"])
        frozen = now.step < self.freeze_epochs * now.steps_per_epoch
        prototypes = jnp.where(frozen, jax.lax.stop_gradient(prototypes), prototypes)
        codes = self._codes(jax.lax.stop_gradient(prototypes), state, seen.target, now)
        scores = _scores(seen.projection, prototypes) / self.temperature
        agreement = jnp.einsum(
            "gbk,vbk->gv",
            codes,
            log_softmax(scores),
            precision=jax.lax.Precision.HIGHEST,
        )
        global_views, batch, _ = codes.shape
        views = len(seen.projection)
        # A view does not predict its own code.
        pairs = ~jnp.eye(global_views, views, dtype=bool)
        total = -jnp.sum(jnp.where(pairs, agreement, 0.0))
        return self.scale * total / (batch * global_views * (views - 1)), codes

    def _codes(
        self,
        prototypes: Array,
        state: tuple[NeighborQueue, ...],
        target: Array,
        now: Now,
    ) -> Array:
        """Returns Q (g, b, k) of all global views."""
        due = now.step >= self.queue_from_epoch * now.steps_per_epoch
        codes = []
        for number, rows in enumerate(target):
            scores = _scores(rows, prototypes) / self.epsilon
            others = None
            if self.queue.size:
                queue = state[number]
                takes_part = due & jnp.all(queue.pushed_at != UNFILLED)
                earlier = _scores(queue.keys.astype(rows.dtype), prototypes)
                others = jnp.where(takes_part, earlier / self.epsilon, -jnp.inf)
            codes.append(sinkhorn_codes(scores, others, self.iterations))
        return jnp.stack(codes)

    def update(
        self, state: tuple[NeighborQueue, ...], seen: Seen, now: Now
    ) -> tuple[NeighborQueue, ...]:
        """Pushes the rows of both views, after their codes were made."""
        return tuple(
            push_targets(queue, rows, seen.image_id, now.step, banks=1, mesh=now.mesh)
            for queue, rows in zip(state, seen.target, strict=False)
        )

    def metrics(
        self, aux: Array, seen: Seen, labels: Array | None, now: Now
    ) -> dict[str, Array]:
        """Returns the mean entropy of the codes, in nats."""
        del seen, labels, now
        entropy = -jnp.sum(jax.scipy.special.xlogy(aux, aux), axis=-1)
        return {"code_entropy": jnp.mean(entropy)}

    def check(self, config: ConfigDict, devices: int) -> None:
        """Refuses a queue that the devices or the views do not fit."""
        super().check(config, devices)
        views = config.augment.global_views
        if self.queue.size and views != REMEMBERED:
            raise ValueError(
                f"augment.global_views {views} does not fit the {REMEMBERED} queues of "
                f"swav; use {REMEMBERED}, with augment.local_views for further views, "
                "or objective.queue.size=0"
            )

    @property
    def waits(self) -> dict[str, str]:
        """The training of the prototypes, and the use of the queue."""
        waits = {"freeze_epochs": "the prototypes are never trained"}
        if self.queue.size:
            waits["queue_from_epoch"] = "the codes never use the queue"
        return waits


@jax.named_scope("sinkhorn_codes")
def sinkhorn_codes(scores: Array, others: Array | None, iterations: int) -> Array:
    """Returns codes of rows such that all prototypes are used alike (section 3.1).

        Q_ik = softmax_k(s_ik + f_k)

    f makes the columns of Q, over all rows that take part, equally heavy. Sinkhorn's
    algorithm, in the log domain, finds it in turns: f_k = - log sum_i exp(s_ik + g_i),
    then g_i = - log sum_k exp(s_ik + f_k), from g = 0. Its last half turn is the
    softmax. How heavy rows and columns are in all cancels out.

    On a mesh each turn sums over the devices: k maxima and k sums.

    Args:
      scores: (b, k) products with the prototypes / epsilon, sharded over b.
      others: (q, k) of rows that take part without a code, sharded over q; a row of
        -inf does not. None: there are none.
      iterations: turns, at least 1.

    Returns:
      (b, k), each row of sum 1.
    """
    groups = [scores] if others is None else [scores, others]

    def columns(groups: list[Array]) -> Array:
        return -logsumexp(jnp.stack([logsumexp(x, axis=0) for x in groups]), axis=0)

    def turn(_, f: Array) -> Array:
        sums = [logsumexp(x + f, axis=1, keepdims=True) for x in groups]
        # A row that takes no part stays without weight: -inf + inf is no number.
        sums = [jnp.where(s > -jnp.inf, s, 0.0) for s in sums]
        return columns([x - s for x, s in zip(groups, sums, strict=True)])

    f = jax.lax.fori_loop(1, iterations, turn, columns(groups))
    return jax.nn.softmax(scores + f)


def _scores(rows: Array, prototypes: Array) -> Array:
    return jnp.einsum(
        "...d,kd->...k", rows, prototypes, precision=jax.lax.Precision.HIGHEST
    )
