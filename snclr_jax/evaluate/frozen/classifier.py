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
    return jnp.matmul(features, weights.kernel.T, precision=exact) + weights.bias


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
) -> tuple[np.ndarray, np.ndarray]:
    """Returns top-1 and top-5 accuracies of g classifiers, "g" each, in percent.

    Of equal logits the lower class comes first. An accuracy is NaN where a logit is not
    finite. Blocks of rows go to the devices one after another.

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
    hits, finite = np.zeros((2, g), int), np.ones(g, bool)
    for first in range(0, len(rows), block):
        some = rows[first : first + block]
        padded = np.pad(some, (0, block - len(some)), mode="edge")
        placed = (
            place_rows(array, padded, over_batch(mesh)) for array in (features, labels)
        )
        block_hits, block_finite = _count_hits(
            weights, scaling, *placed, len(some), mesh=mesh
        )
        hits += np.asarray(block_hits)
        finite &= np.asarray(block_finite)
    top1, top5 = np.where(finite, 100.0 * hits / len(rows), np.nan)
    return top1, top5


@partial(jax.jit, static_argnames="mesh")
def _count_hits(
    weights: Weights,
    scaling: Scaling,
    features: Array,
    labels: Array,
    count: int,
    *,
    mesh: Mesh,
) -> tuple[Array, Array]:
    """Counts hits in the first `count` rows, "2 g", and tells if all is finite, "g"."""
    values = jax.vmap(logits, in_axes=(0, None))(weights, scaling(features))
    own = jnp.take_along_axis(values, labels[None, :, None], axis=2)
    lower = jnp.arange(values.shape[2]) < labels[:, None]
    rank = jnp.sum((values > own) | ((values == own) & lower), axis=2)
    counted = jnp.arange(len(labels)) < count
    hits = jnp.stack([jnp.sum((rank < k) & counted, axis=1) for k in (1, 5)])
    finite = jnp.isfinite(values).all(axis=(1, 2))
    return jax.lax.with_sharding_constraint((hits, finite), replicated(mesh))
