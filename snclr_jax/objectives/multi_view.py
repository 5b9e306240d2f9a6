"""MV-InfoNCE and MV-DHEL, losses of all views at once (Koromilas et al., 2025)."""

from __future__ import annotations

import dataclasses
from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from annotated_types import Ge, Gt
from jax import Array

from snclr_jax.queue.other_images import log_sum_over_other_images, products_of_views
from snclr_jax.queue.settings import BLOCK
from snclr_jax.step.objective import ANOTHER_LOSS, Now, Objective, Seen


@dataclasses.dataclass(frozen=True)
class MVInfoNCE(Objective):
    """All pairs of views of an image against all pairs that it is in.

        L = mean_i [ log sum_{(l, i) != (m, j)} exp(y_li . y_mj / tau)
                     - log sum_{l != m} exp(y_li . y_mi / tau) ]

    l and m over all views, j over all images. With many views it needs many images.
    """

    # tau, which divides every similarity. The authors take 0.5 for CIFAR, and 0.1 for
    # ImageNet.
    temperature: Annotated[float, Ge(1e-6)] = 0.5
    # Loss = scale x L.
    scale: Annotated[float, Gt(0)] = 1.0

    changes: ClassVar[dict[str, str]] = dict.fromkeys(
        ("temperature", "scale"), ANOTHER_LOSS
    )

    def loss(
        self, params: dict, state: tuple, seen: Seen, now: Now
    ) -> tuple[Array, tuple]:
        """Returns scale x L."""
        del params, state
        y, tau = seen.projection, self.temperature
        others = log_sum_over_other_images(
            y, y, temperature=tau, block=BLOCK, mesh=now.mesh
        )
        l, m = np.nonzero(~np.eye(len(y), dtype=bool))  # noqa: E741
        positive = jax.nn.logsumexp(products_of_views(y)[l, m] / tau, axis=0)
        everything = jnp.logaddexp(jax.nn.logsumexp(others, axis=(0, 1)), positive)
        return self.scale * jnp.mean(everything - positive), ()


@dataclasses.dataclass(frozen=True)
class MVDHEL(MVInfoNCE):
    """All pairs of views of an image, and other images of each view on its own.

        L = mean_i [ sum_l log sum_{j != i} exp(y_li . y_lj / tau)
                     - log sum_{l < m} exp(y_li . y_mi / tau) ]

    Uniformity is left to each view, so that it does not work against alignment.
    """

    def loss(
        self, params: dict, state: tuple, seen: Seen, now: Now
    ) -> tuple[Array, tuple]:
        """Returns scale x L."""
        del params, state
        y, tau = seen.projection, self.temperature
        others = jnp.concatenate(
            [
                log_sum_over_other_images(
                    view, view, temperature=tau, block=BLOCK, mesh=now.mesh
                )
                for view in jnp.split(y, len(y))
            ]
        )
        l, m = np.triu_indices(len(y), 1)  # noqa: E741
        positive = jax.nn.logsumexp(products_of_views(y)[l, m] / tau, axis=0)
        return self.scale * jnp.mean(jnp.sum(others, axis=(0, 1)) - positive), ()
