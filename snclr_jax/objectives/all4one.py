"""All4One (Estepa et al., 2023): neighbors and features, without its attention."""

from __future__ import annotations

import dataclasses
from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp
from annotated_types import Ge
from jax import Array

from snclr_jax.objectives.nnclr import NNCLR
from snclr_jax.queue.anchors import Anchored
from snclr_jax.queue.ring import NeighborQueue
from snclr_jax.step.objective import Now, Seen, other_views


@dataclasses.dataclass(frozen=True)
class All4One(NNCLR):
    """NNCLR whose targets search and are remembered, and features that correspond.

        L = NNCLR + feature_weight x feature_loss

    The paper's third part, attention over an image's neighbors, is left out; with K
    above 1 the neighbors count alike in its place.
    """

    # tau, which divides every similarity in the neighbors' part.
    temperature: Annotated[float, Ge(1e-6)] = 0.2
    # Of the features' part, beside 1 of the neighbors'. The authors halve both parts:
    # a scale of 0.5.
    feature_weight: Annotated[float, Ge(0)] = 10.0

    target: ClassVar[bool] = True
    changes: ClassVar[dict[str, str]] = {
        **NNCLR.changes,
        "feature_weight": NNCLR.changes["scale"],
    }

    def loss(
        self, params: dict, state: NeighborQueue, seen: Seen, now: Now
    ) -> tuple[Array, tuple[Anchored, ...]]:
        """Returns scale x both parts."""
        loss, directions = super().loss(params, state, seen, now)
        feature = feature_loss(seen.target, seen.projection)
        return loss + self.scale * self.feature_weight * feature, directions


def feature_loss(target: Array, projection: Array) -> Array:
    """Returns how far features of a view are from those of another's target.

        C = columns(t_u)^T columns(y_v)
        L = [ sqrt(mean (C_dd - 1)^2) + sqrt(mean of squares beside the diagonal) ] / 2

    Columns, one for each feature, are scaled to length 1 over the batch; the means are
    over all u, all v but u, and features. Rows are taken as they are: the authors
    normalize those of t alone, and here all of them have length 1.

    Args:
      target: (g, b, d) of the first g views; no gradient.
      projection: (v, b, d) of all views.

    Returns:
      ().
    """
    t, y = _columns(jax.lax.stop_gradient(target)), _columns(projection)
    same = jnp.eye(t.shape[-1])
    on, off = [], []
    for number, each in enumerate(t):
        others = other_views(y, number)
        highest = jax.lax.Precision.HIGHEST
        products = jnp.einsum("bi,vbj->vij", each, others, precision=highest)
        on.append(jnp.sum(same * (products - 1) ** 2, axis=(1, 2)))
        off.append(jnp.sum((1 - same) * products**2, axis=(1, 2)))
    features = t.shape[-1]
    on = jnp.mean(jnp.stack(on)) / features
    off = jnp.mean(jnp.stack(off)) / max(features * (features - 1), 1)
    return (_root(on) + _root(off)) / 2


def _columns(rows: Array) -> Array:
    """Scales columns to length 1; one of zeros stays, without gradient."""
    squares = jnp.sum(rows**2, axis=1, keepdims=True)
    return jnp.where(squares > 0, rows, 0.0) / _root(squares)


def _root(squares: Array) -> Array:
    """The square root, whose gradient at 0 is 0."""
    return jnp.sqrt(jnp.maximum(squares, jnp.finfo(squares.dtype).tiny))
