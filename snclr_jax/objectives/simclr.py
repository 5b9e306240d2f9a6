"""NT-Xent, the loss of SimCLR (Chen, Kornblith, Norouzi and Hinton, 2020, eq. 1)."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Annotated, ClassVar

import jax.numpy as jnp
import numpy as np
from annotated_types import Ge, Gt
from jax import Array
from jax.sharding import Mesh

from snclr_jax.queue.other_images import log_sum_over_other_images, products_of_views
from snclr_jax.queue.settings import BLOCK
from snclr_jax.step.objective import ANOTHER_LOSS, Now, Objective, Seen


@dataclasses.dataclass(frozen=True)
class SimCLR(Objective):
    """Each view of an image has to find the other one among both views of the batch.

        L_vw = mean_i [ log sum_r exp(y_vi . r / tau) - y_vi . y_wi / tau ]

    r over the rows of views v and w, but y_vi itself. Gradient reaches all of them.
    """

    # tau, which divides every similarity. The authors take 0.5 for CIFAR-10, and 0.1
    # for ImageNet.
    temperature: Annotated[float, Ge(1e-6)] = 0.2
    # Loss = scale x mean of L_vw over all pairs of views; the authors' code adds both
    # directions, which is a scale of 2.
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
        logit = positive / self.temperature
        return self.scale * jnp.mean(jnp.logaddexp(others, logit) - logit), ()


def ordered_pairs(seen: Seen) -> np.ndarray:
    """Returns the pairs (v, w) of different views, (2, n) int.

    Pairs of two local views are left out: they may show nothing in common.
    """
    pairs = itertools.permutations(range(len(seen.projection)), 2)
    return np.array([pair for pair in pairs if min(pair) < len(seen.target)]).T


def pairs_of_views(seen: Seen, temperature: float, mesh: Mesh) -> tuple[Array, Array]:
    """Returns what each view meets, with each other one as its positive.

    Args:
      seen: of the batch, v views of which g are global.
      temperature: tau > 0.
      mesh: of the devices.

    Returns:
      log sum exp(y_vi . r / tau) over the rows r of other images in views v and w, and
      y_vi . y_wi: (n, b) each, for the n pairs of `ordered_pairs`.
    """
    rows, (view, other) = seen.projection, ordered_pairs(seen)
    sums = log_sum_over_other_images(
        rows, rows, temperature=temperature, block=BLOCK, mesh=mesh
    )
    others = jnp.logaddexp(sums[view, view], sums[view, other])
    return others, products_of_views(rows)[view, other]
