"""Linear classifiers of frozen features: what they read, minimize and score."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.typing import ArrayLike

from snclr_jax.devices.mesh import over_batch, place_everywhere, replicated
from snclr_jax.evaluate.frozen.accuracy import balanced

_BLOCK_ROWS = 8192  # of float64 temporaries while moments are measured
_BLOCK_NUMBERS = 2**26  # features and logits that scoring holds at a time, 256 MiB


class Weights(NamedTuple):
    """A linear classifier, or with one more leading axis g, g of them side by side.

    With classes first, the kernel's gradient is a product that XLA's CPU code computes
    without transposing the features: 4 times as fast.
    """

    kernel: Array  # "c f"
    bias: Array  # "c"


class Scaling(NamedTuple):
    """Makes features of mean 0 and deviation 1; by default, leaves them alone."""

    mean: ArrayLike = 0.0  # "f"
    scale: ArrayLike = 1.0  # "f"

    def __call__(self, features: Any) -> Any:
        return (features - self.mean) * self.scale


class TrainSet(NamedTuple):
    """What classifiers are fitted to: features of several layers, and their labels."""

    features: dict[str, np.ndarray]  # layer -> "n f", with an f of its own
    scaling: dict[str, Scaling]  # layer -> how to standardize its features
    labels: np.ndarray  # int32 "n"
    num_classes: int


class Scores(NamedTuple):
    """Accuracies of g classifiers, "g" each, in percent; NaN: a logit is not finite."""

    top1: np.ndarray
    balanced: np.ndarray  # means over the classes, see `Accuracy`
    top5: np.ndarray


def zero_weights(shape: tuple[int, ...], mesh: Mesh) -> Weights:
    """Returns zeros on all devices; `shape` is that of the kernel."""
    kernel = np.zeros(shape, np.float32)
    bias = kernel[..., 0]
    return Weights(place_everywhere(kernel, mesh), place_everywhere(bias, mesh))


def measure_scaling(features: np.ndarray) -> Scaling:
    """Returns the scaling that standardizes `features`, "n f"."""
    mean = features.mean(axis=0, dtype=np.float64)
    # Centered features of a large set, all at once, would take its memory thrice more.
    squares = sum(
        np.square(features[i : i + _BLOCK_ROWS] - mean).sum(axis=0)
        for i in range(0, len(features), _BLOCK_ROWS)
    )
    deviation = np.sqrt(squares / len(features))
    # A feature that never moves in training says nothing, whatever it does in the test.
    constant = deviation <= 1e-6 * np.abs(mean)
    scale = ~constant / np.where(constant, 1.0, deviation)
    return Scaling(mean.astype(np.float32), scale.astype(np.float32))


def place_rows(array: np.ndarray, rows: np.ndarray, sharding: NamedSharding) -> Array:
    """Returns array[rows] on the devices, of which each process gathers its share."""

    # Any: JAX's annotation has a None that is never passed.
    def gather(at: Any) -> np.ndarray:
        return array[rows[at[: rows.ndim]]]

    return jax.make_array_from_callback(rows.shape + array.shape[1:], sharding, gather)


def logits(weights: Weights, features: Array) -> Array:
    """Returns W x + b for every row, "b c"."""
    exact = jax.lax.Precision.HIGHEST
    # The other way round, XLA's CPU code transposes all g kernels in every step of SGD.
    return jnp.matmul(weights.kernel, features.T, precision=exact).T + weights.bias


def objective(
    weights: Weights, features: Array, labels: Array, counted: Array, l2: ArrayLike
) -> Array:
    """Returns the regularized loss of a linear classifier.

        mean_i CE(softmax(W x_i + b), y_i) + l2 / 2 ||W||^2

    Args:
      weights: W "c f" and b "c".
      features: "b f".
      labels: int "b".
      counted: bool "b", the rows that the mean is over.
      l2: strength of the penalty.
    """
    losses = optax.softmax_cross_entropy_with_integer_labels(
        logits(weights, features), labels
    )
    return losses.mean(where=counted) + 0.5 * l2 * jnp.sum(weights.kernel**2)


def score(
    weights: Weights,
    features: np.ndarray,
    labels: np.ndarray,
    rows: np.ndarray,
    scaling: Scaling,
    mesh: Mesh,
) -> Scores:
    """Returns the accuracies of g classifiers.

    Of equal logits the lower class comes first. Blocks of rows go to the devices one
    after another.

    Args:
      weights: kernel "g c f" and bias "g c".
      features: "n f".
      labels: int "n".
      rows: int "m", those that are scored.
      scaling: of the features.
      mesh: the devices, which share each block's rows.
    """
    g, c, f = weights.kernel.shape
    block = max(1, min(len(rows), _BLOCK_NUMBERS // (f + g * c)))
    block = -(-block // mesh.size) * mesh.size
    right, top5 = np.zeros((g, c), int), np.zeros(g, int)
    finite = np.ones(g, bool)
    for first in range(0, len(rows), block):
        some = rows[first : first + block]
        padded = np.pad(some, (0, block - len(some)), mode="edge")
        placed = (
            place_rows(array, padded, over_batch(mesh)) for array in (features, labels)
        )
        found = _count_hits(weights, scaling, *placed, len(some), mesh=mesh)
        block_right, block_top5, block_finite = map(np.asarray, found)
        right += block_right
        top5 += block_top5
        finite &= block_finite
    counts = np.bincount(labels[rows], minlength=c)
    of_classes = [balanced(each, counts) for each in right]
    percent = 100.0 / len(rows) * np.stack([right.sum(axis=1), top5])
    top1, top5 = np.where(finite, percent, np.nan)
    return Scores(top1, np.where(finite, of_classes, np.nan), top5)


@partial(jax.jit, static_argnames="mesh")
def _count_hits(
    weights: Weights,
    scaling: Scaling,
    features: Array,
    labels: Array,
    count: int,
    *,
    mesh: Mesh,
) -> tuple[Array, Array, Array]:
    """Counts hits in the first `count` rows, and tells if all logits are finite.

    Returns:
      Rows whose own class comes first, by class "g c"; those where it is among the
      first five, "g"; and bool "g".
    """
    values = jax.vmap(logits, in_axes=(0, None))(weights, scaling(features))
    own = jnp.take_along_axis(values, labels[None, :, None], axis=2)
    lower = jnp.arange(values.shape[2]) < labels[:, None]
    rank = jnp.sum((values > own) | ((values == own) & lower), axis=2)
    counted = jnp.arange(len(labels)) < count
    first = ((rank == 0) & counted).astype(jnp.int32)
    right = jax.ops.segment_sum(first.T, labels, num_segments=values.shape[2]).T
    top5 = jnp.sum((rank < 5) & counted, axis=1)
    finite = jnp.isfinite(values).all(axis=(1, 2))
    return jax.lax.with_sharding_constraint((right, top5, finite), replicated(mesh))
