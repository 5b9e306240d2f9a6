"""GroCo: learning by sorting, with group ordering (Shvetsova et al., ICCV 2023)."""

from __future__ import annotations

import dataclasses
from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp
from annotated_types import Ge, Gt, Le
from jax import Array
from ml_collections import ConfigDict

from snclr_jax.queue.batch import nearest_others
from snclr_jax.queue.settings import BLOCK
from snclr_jax.step.objective import ANOTHER_LOSS, Now, Objective, Seen, other_views


@dataclasses.dataclass(frozen=True)
class GroCo(Objective):
    """Sorted by similarity, the other views of an image come after all other images.

        x_i = (y_i . y_j of the negatives; y_i . t_iw of the positives), both ascending
        L_v = - mean_i mean_m log( share of x_im that is sorted into its own group )

    Negatives are the rows j of the same view nearest to y_i, positives the other global
    views w; `log_shares` sorts. Gradient reaches y_i alone.
    """

    # How many of the nearest other images are negatives.
    negatives: Annotated[int, Ge(1)] = 10
    # Of a comparison: the larger, the closer the network comes to a hard sort.
    steepness: Annotated[float, Gt(0), Le(100)] = 1.0
    # Loss = scale x mean over all views.
    scale: Annotated[float, Gt(0)] = 1.0

    changes: ClassVar[dict[str, str]] = dict.fromkeys(
        ("negatives", "steepness", "scale"),
        ANOTHER_LOSS,
    )

    def loss(
        self, params: dict, state: tuple, seen: Seen, now: Now
    ) -> tuple[Array, tuple]:
        """Returns scale x the mean of L_v over all views, local ones among them."""
        del params, state
        rows = nearest_others(
            seen.projection, self.negatives, block=BLOCK, mesh=now.mesh
        )
        negatives = _products(seen.projection, rows)[..., ::-1]
        global_views = len(seen.target)
        values = []
        for number, y in enumerate(seen.projection):
            targets = seen.target
            if number < global_views:
                targets = other_views(targets, number)
            positives = jnp.sort(_products(y, targets.swapaxes(0, 1)))
            values.append(jnp.concatenate([negatives[number], positives], axis=-1))
        per_view = []
        # A global view has a positive less than a local one.
        for alike in (values[:global_views], values[global_views:]):
            if alike:
                shares = log_shares(jnp.stack(alike), self.negatives, self.steepness)
                per_view.append(-jnp.mean(shares, axis=(1, 2)))
        return self.scale * jnp.mean(jnp.concatenate(per_view)), ()

    def check(self, config: ConfigDict, devices: int) -> None:
        """Refuses more negatives than a batch has."""
        del devices
        most = config.batch_size - 1
        if self.negatives > most:
            raise ValueError(
                f"objective.negatives {self.negatives} are more than the {most} other "
                f"images of a batch_size {config.batch_size}; use at most {most}, or a "
                "larger batch_size"
            )


@jax.named_scope("log_shares")
def log_shares(x: Array, lower: int, steepness: float) -> Array:
    """Returns the logarithm of the share of each value that is sorted into its group.

    An odd-even network of n layers compares neighbors x_a, x_c; the share
    p = 1/2 + arctan(steepness (x_c - x_a)) / pi of each stays in its place, and 1 - p
    changes it (Petersen et al., 2021 and 2022). The product of the layers' matrices is
    doubly stochastic, and a value's share of a group is the sum over the group's places
    of its column. The layers are symmetric, so their product is pulled back from the
    places of both groups: n numbers for each layer and value, and no n x n matrix.

    Args:
      x: (..., n) values, in the order in which they should end.
      lower: how many of them, the first ones, are one group; the rest is the other.
      steepness: of a comparison, > 0.

    Returns:
      (..., n), at least the logarithm of the smallest normal number.
    """
    count = x.shape[-1]
    layers = []
    for number in range(count):
        weights = _comparisons(x, number % 2, steepness)
        layers.append(weights)
        x = _mixed(x, number % 2, *weights)
    lies_first = jnp.arange(count) < lower
    shares = jnp.stack([lies_first, ~lies_first]).astype(x.dtype)
    shares = shares.reshape(2, *[1] * (x.ndim - 1), count)
    shares = jnp.broadcast_to(shares, (2, *x.shape))
    for number in reversed(range(count)):
        shares = _mixed(shares, number % 2, *layers[number])
    own = jnp.where(lies_first, shares[0], shares[1])
    return jnp.log(jnp.maximum(own, jnp.finfo(x.dtype).tiny))


def _comparisons(x: Array, first: int, steepness: float) -> tuple[Array, Array]:
    """Returns p and 1 - p of the pairs (first, first + 1), (first + 2, ...), ..."""
    left, right = _pairs(x, first)[..., 0], _pairs(x, first)[..., 1]
    apart = steepness * (right - left)
    # 1/2 + arctan(x) / pi, without its cancellation where it is small.
    p, other = (jnp.arctan2(1.0, sign * apart) / jnp.pi for sign in (-1, 1))
    return p, other


def _mixed(x: Array, first: int, stay: Array, change: Array) -> Array:
    """Returns the values after the comparisons of these pairs."""
    pairs = _pairs(x, first)
    pairs = stay[..., None] * pairs + change[..., None] * pairs[..., ::-1]
    end = first + 2 * pairs.shape[-2]
    middle = pairs.reshape(*x.shape[:-1], end - first)
    return jnp.concatenate([x[..., :first], middle, x[..., end:]], axis=-1)


def _pairs(x: Array, first: int) -> Array:
    count = (x.shape[-1] - first) // 2
    return x[..., first : first + 2 * count].reshape(*x.shape[:-1], count, 2)


def _products(rows: Array, others: Array) -> Array:
    """Returns the products of (..., d) rows with (..., n, d) of their own."""
    return jnp.einsum(
        "...d,...nd->...n", rows, others, precision=jax.lax.Precision.HIGHEST
    )
