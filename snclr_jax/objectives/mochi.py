"""MoCHi: MoCo v2 with negatives mixed of hard ones (Kalantidis et al., 2020).

Hard Negative Mixing for Contrastive Learning, section 4.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp
from annotated_types import Ge, Le
from jax import Array

from snclr_jax.objectives.moco_v2 import MoCoV2
from snclr_jax.queue.mixing import (
    Hardest,
    Mixtures,
    hardest_rows,
    log_sum_over_mixtures,
)
from snclr_jax.queue.ring import NeighborQueue
from snclr_jax.step.objective import Now
from snclr_jax.step.views import image_keys

# What image_keys are numbered from for the draws of a view: apart from views and
# dropped paths.
MIXING = 2000


@dataclasses.dataclass(frozen=True)
class MoCHi(MoCoV2):
    """MoCo v2 with s + s' synthetic negatives for each image.

        h = u( alpha c_a + (1 - alpha) c_b )    s times,  alpha uniform in (0, 1)
        h = u( beta y_i + (1 - beta) c_a )      s' times, beta uniform in (0, 0.5)

    a and b are drawn, with replacement, from the N rows of the queue with the largest
    y_i . c_r, wherever they lie (see `queue/mixing.py`). An earlier view of the same
    image is a negative as any row, but nothing is mixed of it. No gradient reaches h.
    With an empty queue, in the first step, the loss and its gradient are 0.

    What is drawn follows from the run's seed, the step, the view and the image's place
    in the batch, on any devices.
    """

    # N, the hardest rows of an image; all of them where the queue has fewer.
    hard: Annotated[int, Ge(1), Le(2**14)] = 1024
    # s, mixtures of two of them.
    pairs: Annotated[int, Ge(0), Le(2**14)] = 1024
    # s', mixtures of the image's own row with one of them.
    with_query: Annotated[int, Ge(0), Le(2**14)] = 128

    changes: ClassVar[dict[str, str]] = {
        **MoCoV2.changes,
        **dict.fromkeys(
            ("hard", "pairs", "with_query"),
            "images have other negatives, and the loss is not to be compared with that "
            "before",
        ),
    }

    def log_negatives(
        self, state: NeighborQueue, y: Array, image_id: Array, now: Now
    ) -> list[Array]:
        """Adds what is mixed to the rows of the queue."""
        rows = super().log_negatives(state, y, image_id, now)
        if self.pairs + self.with_query == 0:
            return rows
        hardest = hardest_rows(
            state,
            y,
            image_id,
            count=min(self.hard, self.queue.size),
            block=self.queue.block,
            mesh=now.mesh,
        )
        mixed = log_sum_over_mixtures(
            y,
            state.keys,
            self.draw(hardest, now, y.dtype),
            temperature=self.temperature,
            block=self.queue.block,
            mesh=now.mesh,
        )
        return [*rows, mixed]

    def draw(self, hardest: Hardest, now: Now, dtype: jnp.dtype) -> Mixtures:
        """Draws what is mixed for each image of each view.

        Args:
          hardest: of v views of b images.
          now: this step.
          dtype: of the weights.
        """

        def of_image(key: Array, row: Array, count: Array) -> Mixtures:
            keys, most = jax.random.split(key, 4), jnp.maximum(count, 1)
            pair = row[jax.random.randint(keys[0], (self.pairs, 2), 0, most)]
            alpha = jax.random.uniform(keys[1], (self.pairs,), dtype)
            one = row[jax.random.randint(keys[2], (self.with_query,), 0, most)]
            beta = jax.random.uniform(keys[3], (self.with_query,), dtype, maxval=0.5)
            total = self.pairs + self.with_query
            return Mixtures(
                jnp.concatenate([pair, jnp.stack([one, one], axis=1)]),
                jnp.concatenate(
                    [
                        jnp.stack([alpha, 1 - alpha], axis=1),
                        jnp.stack([1 - beta, jnp.zeros_like(beta)], axis=1),
                    ]
                ),
                jnp.concatenate([jnp.zeros_like(alpha), beta]),
                jnp.broadcast_to(count > 0, (total,)),
            )

        views, batch = hardest.count.shape
        keys = [
            image_keys(now.seed, now.step, MIXING + view, batch)
            for view in range(views)
        ]
        return jax.vmap(jax.vmap(of_image))(jnp.stack(keys), *hardest)
