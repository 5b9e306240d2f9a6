"""Classification with a few labelled images of each class."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh
from jax.typing import ArrayLike

from snclr_jax.devices.mesh import over_batch, replicated
from snclr_jax.evaluate.frozen.accuracy import Accuracy
from snclr_jax.evaluate.frozen.checks import check_positive, check_split
from snclr_jax.evaluate.frozen.classifier import (
    Scaling,
    Weights,
    measure_scaling,
    place_rows,
    score,
)
from snclr_jax.evaluate.frozen.logistic import fit_logistic
from snclr_jax.evaluate.frozen.subsets import class_balanced
from snclr_jax.evaluate.intervals import mean_and_interval
from snclr_jax.run.metrics import progress_bar

_MAX_STEPS = 500
_COPIES = 30  # of its weights that a fit holds: L-BFGS's history, the line search
_FIT_BYTES = 2**30  # of fits that run side by side on a device


class FewShotResult(NamedTuple):
    """What one number of images per class leads to."""

    shots: int
    accuracy: Accuracy  # of the test split, mean over draws
    interval: float  # half the width of the mean's 95% confidence interval, in percent
    draws: list[float]  # every draw's accuracy


def few_shot(
    train_features: ArrayLike,
    train_labels: ArrayLike,
    test_features: ArrayLike,
    test_labels: ArrayLike,
    *,
    mesh: Mesh,
    shots: Sequence[int],
    draws: int,
    l2: float,
    seed: int,
) -> list[FewShotResult]:
    """Classifies the test split from a few train images of each class, many times.

        minimize  mean_i CE(softmax(W x_i + b), y_i) + l2 / 2 ||W||^2

    by L-BFGS over features standardized with the train split's mean and deviation: its
    labels are few, its images are not. (On the digits recipe ten images a class reach
    69.8% so, whatever the l2 between 1e-4 and 0.1, and 57.2% on features of unit
    length, which all lie close together.) A draw of fewer shots is a part of the same
    draw of more.

    Draws are fitted side by side, as many at once as leave a device with 1 GiB of them.

    Args:
      train_features: "n f".
      train_labels: int "n".
      test_features: "m f".
      test_labels: int "m"; every draw is scored on all m.
      mesh: the devices, which share the draws.
      shots: numbers of images per class, each >= 1.
      draws: how often they are drawn, >= 2.
      l2: strength of the penalty, > 0.
      seed: of the draws.

    Returns:
      For each number of shots the mean accuracy, its confidence interval by Student's t
      over the draws, and every draw's accuracy. The interval tells what other training
      images could have led to; not what another test split, or encoder, would.

    Raises:
      ValueError: for an empty split, features that are not finite or not "n f", labels
        that do not match them, a class with fewer images than shots, or a setting out
        of range.

    Tian et al. 2020, "Rethinking Few-Shot Image Classification: a Good Embedding Is All
    You Need?", section 3, also fit a logistic regression to the features of few images.
    """
    train_features, train_labels = check_split("train", train_features, train_labels)
    test_features, test_labels = check_split(
        "test", test_features, test_labels, train_features.shape[1]
    )
    _check_settings(shots, draws, l2, train_labels, test_labels)
    num_classes = 1 + int(train_labels.max())
    scaling = measure_scaling(train_features)
    results = []
    for count in progress_bar(shots, desc="few-shot"):
        rows = np.stack(
            [
                class_balanced(train_labels, per_class=count, seed=(seed, draw))
                for draw in range(draws)
            ]
        )
        # A few rows: gathering and scaling the drawn ones alone spares memory.
        features, labels = scaling(train_features[rows]), train_labels[rows]
        accuracies, balanced = _accuracies(
            features, labels, test_features, test_labels, scaling, l2, num_classes, mesh
        )
        mean, interval = mean_and_interval(accuracies)
        results.append(
            FewShotResult(
                shots=count,
                accuracy=Accuracy(mean, float(np.mean(balanced))),
                interval=interval,
                draws=accuracies.tolist(),
            )
        )
    return results


def _accuracies(
    features: np.ndarray,
    labels: np.ndarray,
    test_features: np.ndarray,
    test_labels: np.ndarray,
    scaling: Scaling,
    l2: float,
    num_classes: int,
    mesh: Mesh,
) -> np.ndarray:
    """Returns top-1 and balanced accuracies, "2 d", of draws "d n f" with labels."""
    draws, count, width = features.shape
    bytes_of_fit = 4 * width * (_COPIES * num_classes + count)
    at_once = mesh.size * max(1, _FIT_BYTES // bytes_of_fit)
    at_once = min(at_once, -(-draws // mesh.size) * mesh.size)
    accuracies = []
    for first in range(0, draws, at_once):
        # Draws fill up the last ones, so that all share one compiled program.
        some = np.arange(first, first + at_once) % draws
        placed = (
            place_rows(array, some, over_batch(mesh)) for array in (features, labels)
        )
        weights = _fit_draws(*placed, l2, num_classes=num_classes, mesh=mesh)
        everything = np.arange(len(test_labels))
        scores = score(weights, test_features, test_labels, everything, scaling, mesh)
        accuracies.append([scores.top1, scores.balanced])
    return np.concatenate(accuracies, axis=1)[:, :draws]


@partial(jax.jit, static_argnames=("num_classes", "mesh"))
def _fit_draws(
    features: Array, labels: Array, l2: float, *, num_classes: int, mesh: Mesh
) -> Weights:
    """Returns the classifiers of draws "d n f", labelled "d n", on all devices."""
    _, count, width = features.shape
    zeros = Weights(jnp.zeros((num_classes, width)), jnp.zeros(num_classes))
    counted = jnp.ones(count, bool)

    def fit(features: Array, labels: Array) -> Weights:
        weights, _ = fit_logistic(
            zeros, features, labels, counted, l2, max_steps=_MAX_STEPS
        )
        return weights

    weights = jax.vmap(fit)(features, labels)
    return jax.lax.with_sharding_constraint(weights, replicated(mesh))


def _check_settings(
    shots: Sequence[int],
    draws: int,
    l2: float,
    train_labels: np.ndarray,
    test_labels: np.ndarray,
) -> None:
    if not shots or min(shots) < 1:
        raise ValueError(f"shots is {shots}; use one or more values of at least 1")
    if draws < 2:
        raise ValueError(f"draws is {draws}; an interval takes 2 or more")
    check_positive("l2", [l2])
    classes = np.union1d(train_labels, test_labels)
    counts = np.bincount(train_labels, minlength=classes[-1] + 1)[classes]
    rarest = counts.argmin()
    if counts[rarest] < max(shots):
        raise ValueError(
            f"class {classes[rarest]} has {counts[rarest]} train images, fewer than "
            f"shots {max(shots)}; use fewer shots, or leave the class out of the splits"
        )
