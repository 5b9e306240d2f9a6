"""Barlow Twins and VICReg: the covariances of a batch, and no negatives.

No image is compared with another: what is contrasted are the d dimensions of the
projections, over the global batch. Projections are as the network makes them. Plain
sums over the batch, so that devices exchange d or d x d numbers and no rows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp
from annotated_types import Ge, Gt
from jax import Array

from snclr_jax.step.objective import ANOTHER_LOSS, Now, Objective, Seen


@dataclasses.dataclass(frozen=True)
class BarlowTwins(Objective):
    """The dimensions of two views correlate each with itself alone.

        L_uv = sum_d (C_dd - 1)^2 + off_diagonal sum_(d != e) C_de^2
        C_de = mean_i b(y_u)_id b(y_v)_ie

    b is BatchNorm without parameters over the global batch (Zbontar et al., 2021).
    """

    # Weight of squared correlations between different dimensions, the paper's lambda.
    off_diagonal: Annotated[float, Ge(0)] = 0.0051
    # Loss = scale x mean over all pairs of a global view and another view.
    scale: Annotated[float, Gt(0)] = 1.0

    unit_rows: ClassVar[bool] = False
    changes: ClassVar[dict[str, str]] = dict.fromkeys(
        ("off_diagonal", "scale"), ANOTHER_LOSS
    )

    def loss(
        self, params: dict, state: tuple, seen: Seen, now: Now
    ) -> tuple[Array, tuple]:
        """Returns scale x the mean of L_uv over all u and all v but u."""
        del params, state, now
        centered = _centered(seen.projection)
        variance = jnp.mean(centered**2, axis=1, keepdims=True)
        rows = centered * jax.lax.rsqrt(variance + 1e-5)

        def of_pair(u: int, v: int) -> Array:
            correlation = _product(rows[u], rows[v]) / rows.shape[1]
            own = jnp.diagonal(correlation)
            others = jnp.sum(_off_diagonal(correlation) ** 2)
            return jnp.sum((own - 1.0) ** 2) + self.off_diagonal * others

        return self.scale * _mean_over_pairs(seen, of_pair), ()


@dataclasses.dataclass(frozen=True)
class VICReg(Objective):
    """Two views agree, and the dimensions of each vary, and do not covary.

        L_uv = invariance mean_id (y_u - y_v)^2
               + variance (V(y_u) + V(y_v)) / 2 + covariance (C(y_u) + C(y_v))
        V(y) = mean_d max(0, 1 - sqrt(var_d + 1e-4)),  C(y) = sum_(d != e) cov_de^2 / d

    Variances and covariances over the global batch, divided by b - 1 (Bardes, Ponce and
    LeCun, 2022). The paper adds V of both views; its code halves the sum, as here.
    """

    # Weights of the three terms: the paper's lambda, mu and nu.
    invariance: Annotated[float, Ge(0)] = 25.0
    variance: Annotated[float, Ge(0)] = 25.0
    covariance: Annotated[float, Ge(0)] = 1.0
    # Loss = scale x mean over all pairs of a global view and another view.
    scale: Annotated[float, Gt(0)] = 1.0

    unit_rows: ClassVar[bool] = False
    changes: ClassVar[dict[str, str]] = dict.fromkeys(
        ("invariance", "variance", "covariance", "scale"), ANOTHER_LOSS
    )

    def loss(
        self, params: dict, state: tuple, seen: Seen, now: Now
    ) -> tuple[Array, tuple]:
        """Returns scale x the mean of L_uv over all u and all v but u."""
        del params, state, now
        rows = seen.projection
        views, batch, dim = rows.shape
        centered = _centered(rows)
        deviation = jnp.sqrt(jnp.sum(centered**2, axis=1) / (batch - 1) + 1e-4)
        narrow = jnp.mean(jnp.maximum(1.0 - deviation, 0.0), axis=1)
        covary = []
        for view in range(views):
            covariance = _product(centered[view], centered[view]) / (batch - 1)
            covary.append(jnp.sum(_off_diagonal(covariance) ** 2) / dim)

        def of_pair(u: int, v: int) -> Array:
            apart = jnp.mean((rows[u] - rows[v]) ** 2)
            return (
                self.invariance * apart
                + self.variance * (narrow[u] + narrow[v]) / 2
                + self.covariance * (covary[u] + covary[v])
            )

        return self.scale * _mean_over_pairs(seen, of_pair), ()


def _mean_over_pairs(seen: Seen, of_pair: Callable[[int, int], Array]) -> Array:
    """Returns the mean over global views u and views v but u; L_uv and L_vu are one."""
    global_views, views = len(seen.target), len(seen.projection)
    total, count = jnp.zeros((), seen.projection.dtype), 0
    for u in range(global_views):
        for v in range(u + 1, views):
            weight = 2 if v < global_views else 1
            total += weight * of_pair(u, v)
            count += weight
    return total / count


def _centered(rows: Array) -> Array:
    return rows - jnp.mean(rows, axis=1, keepdims=True)


def _product(left: Array, right: Array) -> Array:
    """Returns the (d, d) sums over the batch of products of dimensions."""
    return jnp.einsum("bd,be->de", left, right, precision=jax.lax.Precision.HIGHEST)


def _off_diagonal(matrix: Array) -> Array:
    return jnp.where(jnp.eye(len(matrix), dtype=bool), 0.0, matrix)
