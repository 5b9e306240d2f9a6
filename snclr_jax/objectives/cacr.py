"""Contrastive attraction and repulsion of a batch (CACR; Zheng et al., 2021)."""

from __future__ import annotations

import dataclasses
from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from annotated_types import Ge, Gt, Le
from jax import Array

from snclr_jax.queue.other_images import over_other_images, products_of_views
from snclr_jax.queue.settings import BLOCK
from snclr_jax.step.objective import ANOTHER_LOSS, Now, Objective, Panel, Seen, Shown

# The distance of unit rows is at most 4, and its exponents stay finite numbers.
_SHARPEST = 1e6


@dataclasses.dataclass(frozen=True)
class CACR(Objective):
    """Far views of an image are pulled most, near rows of others are pushed most.

        attraction = mean_vi sum_{w != v} p_w D(y_vi, y_wi), p = softmax_w(t+ D)
        repulsion = - mean_vwi sum_{j != i} q_j D(y_vi, y_wj), q = softmax_j(-t- D)

    over all views v, all pairs v < w and all images i; D(a, b) = 2 - 2 a . b, the
    squared distance. Gradient passes through p and q, too.
    """

    # t+, how much more far views count; 0 counts all views alike.
    t_positive: Annotated[float, Ge(0), Le(_SHARPEST)] = 1.0
    # t-, how much more near rows count. The authors take 0.9 for CIFAR-10, and 2 for
    # CIFAR-100.
    t_negative: Annotated[float, Ge(0), Le(_SHARPEST)] = 0.9
    # Loss = scale x (attraction + repulsion); it may be below 0.
    scale: Annotated[float, Gt(0)] = 1.0

    changes: ClassVar[dict[str, str]] = dict.fromkeys(
        ("t_positive", "t_negative", "scale"), ANOTHER_LOSS
    )
    shown: ClassVar[tuple[Shown, ...]] = (
        Shown("attraction", "attraction", ".3f"),
        Shown("repulsion", "repulsion", ".3f"),
    )
    panels: ClassVar[tuple[Panel, ...]] = (
        ("squared distances", {"attraction": "views", "repulsion": "- others"}, True),
    )
    explanation: ClassVar[str] = (
        "The loss is the sum of two squared distances: of the views of an image "
        "(attraction), and, with a minus, of different images (repulsion). It falls "
        "below 0 as images spread; attraction alone near 0 is a collapse."
    )

    def loss(
        self, params: dict, state: tuple, seen: Seen, now: Now
    ) -> tuple[Array, dict[str, Array]]:
        """Returns scale x (attraction + repulsion), and both."""
        del params, state
        y = seen.projection

        def near(similarity: Array, other: Array) -> Array:
            distance = 2 - 2 * similarity
            logits = jnp.where(other, -self.t_negative * distance, -jnp.inf)
            return jnp.sum(jax.nn.softmax(logits, axis=-1) * distance, axis=-1)

        repulsion = [
            over_other_images(
                near, y[:view], y[view : view + 1], block=BLOCK, mesh=now.mesh
            )
            for view in range(1, len(y))
        ]
        distance = 2 - 2 * products_of_views(y)
        different = ~np.eye(len(y), dtype=bool)[:, :, None]
        logits = jnp.where(different, self.t_positive * distance, -jnp.inf)
        far = jnp.sum(jax.nn.softmax(logits, axis=1) * distance, axis=1)
        parts = {
            "attraction": jnp.mean(far),
            "repulsion": -jnp.mean(jnp.concatenate(repulsion)),
        }
        return self.scale * (parts["attraction"] + parts["repulsion"]), parts

    def metrics(
        self,
        aux: dict[str, Array],
        seen: Seen,
        labels: Array | None,
        now: Now,
    ) -> dict[str, Array]:
        """Returns both parts of the loss."""
        del seen, labels, now
        return aux
