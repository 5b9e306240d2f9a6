"""Linear classification of frozen features, with its regularization chosen honestly."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.typing import ArrayLike

from snclr_jax.evaluate.knn import check_features, check_split

_GRADIENT_TOLERANCE = 1e-5  # of the mean loss; float32 reaches it, 1e-6 not always


class LinearResult(NamedTuple):
    """What a linear probe found."""

    accuracy: float  # percent of the test split
    l2: float  # the chosen strength
    holdback_accuracy: dict[float, float]  # percent of the held-back rows, by strength
    steps: int  # of the last fit; max_steps means that it had not converged


def linear_probe(
    train_features: ArrayLike,
    train_labels: ArrayLike,
    test_features: ArrayLike,
    test_labels: ArrayLike,
    *,
    l2_grid: Sequence[float] = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6),
    holdback: float = 0.1,
    max_steps: int = 500,
    seed: int = 0,
) -> LinearResult:
    """Fits a linear classifier on frozen features and scores it once on the test split.

        minimize  mean_i CE(softmax(W^T x_i + b), y_i) + l2 / 2 ||W||^2

    over features standardized with the train split's mean and deviation, by L-BFGS.
    Each l2 is fitted without the held-back rows and judged on them; the best one
    (the strongest of equals) is fitted again on the whole train split.

    Args:
      train_features: "n f".
      train_labels: int "n".
      test_features: "m f".
      test_labels: int "m".
      l2_grid: strengths to choose from, each > 0.
      holdback: share of every class's train rows that chooses l2, in (0, 1). A class
        always keeps one row to be fitted on.
      max_steps: L-BFGS steps per fit, >= 1.
      seed: of the choice of the held-back rows.

    Returns:
      The accuracy and how it was reached.

    Raises:
      ValueError: for an empty split, features that are not finite or not "n f", labels
        that do not match them, a strength that is not positive, or a holdback that
        leaves no row to choose with.

    The protocol of Kornblith et al. 2019, "Do Better ImageNet Models Transfer Better?":
    logistic regression by L-BFGS on frozen features, l2 chosen on a part of the train
    split. Papers' linear accuracies mostly come of SGD with random crops instead.
    """
    train_features, train_labels = check_split("train", train_features, train_labels)
    width = train_features.shape[1]
    check_features("test", test_features, width)
    test_features, test_labels = check_split("test", test_features, test_labels)
    if not l2_grid or min(l2_grid) <= 0:
        raise ValueError(f"l2_grid is {l2_grid}; use one or more values above 0")
    num_classes = 1 + int(max(train_labels.max(), test_labels.max()))
    train, test = _standardize(train_features, test_features)
    held = _held_back(train_labels, holdback, seed)
    kernel, bias = jnp.zeros((width, num_classes)), jnp.zeros(num_classes)
    zeros = weights = {"kernel": kernel, "bias": bias}

    holdback_accuracy = {}
    # Each fit starts where the next stronger one ended, which is near.
    for l2 in sorted(l2_grid, reverse=True):
        weights, _ = _fit(weights, train, train_labels, ~held, l2, max_steps=max_steps)
        holdback_accuracy[l2] = _accuracy(weights, train, train_labels, held)
    best = max(holdback_accuracy, key=holdback_accuracy.__getitem__)
    everything = np.ones_like(held)
    weights, steps = _fit(
        zeros, train, train_labels, everything, best, max_steps=max_steps
    )
    return LinearResult(
        accuracy=_accuracy(weights, test, test_labels),
        l2=best,
        holdback_accuracy=holdback_accuracy,
        steps=int(steps),
    )


def _standardize(train: np.ndarray, test: np.ndarray) -> tuple[Array, Array]:
    mean = train.mean(axis=0, dtype=np.float64).astype(np.float32)
    train, test = train - mean, test - mean
    deviation = train.std(axis=0)
    # A feature that never moves in training says nothing, whatever it does in the test.
    constant = deviation <= 1e-6 * np.abs(mean)
    scale = ~constant / np.where(constant, 1.0, deviation)
    return jnp.asarray(train * scale), jnp.asarray(test * scale)


def _held_back(labels: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Marks about `share` of every class's rows, never all of a class."""
    generator = np.random.default_rng(seed)
    held = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        rows = generator.permutation(np.flatnonzero(labels == label))
        held[rows[: min(round(share * len(rows)), len(rows) - 1)]] = True
    if not 0 < share < 1 or not held.any():
        raise ValueError(
            f"holdback {share} leaves none of {len(labels)} train rows to choose l2 "
            "with; use a value in (0, 1) that is at least one row of some class"
        )
    return held


def _logits(weights: dict[str, Array], features: Array) -> Array:
    exact = jax.lax.Precision.HIGHEST
    return jnp.matmul(features, weights["kernel"], precision=exact) + weights["bias"]


@partial(jax.jit, static_argnames="max_steps")
def _fit(
    weights: dict[str, Array],
    features: Array,
    labels: Array,
    counted: Array,
    l2: float,
    *,
    max_steps: int,
) -> tuple[dict[str, Array], Array]:
    """Fits to the `counted` rows, from `weights` on; returns the weights and steps.

    A mask, rather than a part of the rows, spares a copy of the features and lets all
    fits share one compiled program.
    """

    def objective(weights: dict[str, Array]) -> Array:
        losses = optax.softmax_cross_entropy_with_integer_labels(
            _logits(weights, features), labels
        )
        penalty = 0.5 * l2 * jnp.sum(weights["kernel"] ** 2)
        return losses.mean(where=counted) + penalty

    optimizer = optax.lbfgs()
    # The line search has computed the next value and gradient already.
    value_and_gradient = optax.value_and_grad_from_state(objective)

    def unfinished(carry: tuple) -> Array:
        _, _, step, gradient_norm = carry
        return (step < max_steps) & (gradient_norm > _GRADIENT_TOLERANCE)

    def descend(carry: tuple) -> tuple:
        weights, state, step, _ = carry
        value, gradient = value_and_gradient(weights, state=state)
        updates, state = optimizer.update(
            gradient, state, weights, value=value, grad=gradient, value_fn=objective
        )
        weights = optax.apply_updates(weights, updates)
        return weights, state, step + 1, optax.tree.norm(gradient)

    start = (weights, optimizer.init(weights), 0, jnp.inf)
    weights, _, steps, _ = jax.lax.while_loop(unfinished, descend, start)
    return weights, steps


def _accuracy(
    weights: dict[str, Array],
    features: Array,
    labels: np.ndarray,
    counted: np.ndarray | None = None,
) -> float:
    predicted = jnp.argmax(_logits(weights, features), axis=1)
    return 100.0 * float(jnp.mean(predicted == labels, where=counted))
