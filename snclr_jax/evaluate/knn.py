"""Weighted nearest-neighbor classification of frozen features."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike


def knn_accuracy(
    train_features: ArrayLike,
    train_labels: ArrayLike,
    test_features: ArrayLike,
    test_labels: ArrayLike,
    *,
    k: int = 200,
    temperature: float = 0.07,
    num_classes: int | None = None,
    block: int = 1024,
) -> float:
    """Returns the share of test rows that `knn_predict` puts into their class.

    Args:
      train_features: "n f".
      train_labels: int "n", in [0, num_classes).
      test_features: "m f".
      test_labels: int "m", in [0, num_classes).
      k: number of neighbors.
      temperature: of the votes.
      num_classes: None takes one more than the largest label.
      block: test rows that are searched together.

    Returns:
      Accuracy in percent.

    Raises:
      ValueError: as `knn_predict`, for either split.

    Example:
      >>> train = np.array([[1.0, 0.0], [0.0, 1.0]])
      >>> knn_accuracy(train, [0, 1], [[2.0, 1.0], [3.0, 1.0]], [0, 1], k=1)
      50.0
    """
    test_features, test_labels = check_split(
        "test", test_features, test_labels, num_classes
    )
    if num_classes is None:
        num_classes = 1 + max(int(np.max(train_labels, initial=0)), test_labels.max())
    predicted = knn_predict(
        train_features,
        train_labels,
        test_features,
        k=k,
        temperature=temperature,
        num_classes=num_classes,
        block=block,
    )
    return 100.0 * float(np.mean(predicted == test_labels))


def knn_predict(
    train_features: ArrayLike,
    train_labels: ArrayLike,
    test_features: ArrayLike,
    *,
    k: int = 200,
    temperature: float = 0.07,
    num_classes: int | None = None,
    block: int = 1024,
) -> np.ndarray:
    """Classifies every test row by a weighted vote of its k nearest train rows.

        class(x) = argmax_c sum_{i in N_k(x), y_i = c} exp(cos(x_i, x) / T)

    Of equally near rows the first in the train split counts, of equal votes the lowest
    class. At most `block` x n similarities exist at a time.

    Args:
      train_features: "n f", of any length: rows are normalized here.
      train_labels: int "n", in [0, num_classes).
      test_features: "m f", of any length.
      k: number of neighbors, >= 1; all n train rows where k > n.
      temperature: T, > 0.
      num_classes: None takes one more than the largest train label.
      block: test rows that are searched together, >= 1.

    Returns:
      int "m", the predicted classes.

    Raises:
      ValueError: for an empty split, features that are not finite or not "n f", labels
        that are out of range or do not match the features, or a k, temperature or block
        that is not positive.

    Wu et al. 2018, "Unsupervised Feature Learning via Non-Parametric Instance
    Discrimination", section 3.4, which also sets k = 200 and T = 0.07.
    """
    train_features, train_labels = check_split(
        "train", train_features, train_labels, num_classes
    )
    test_features = check_features("test", test_features, train_features.shape[1])
    for name, value in (("k", k), ("temperature", temperature), ("block", block)):
        if not value > 0:
            raise ValueError(f"{name} is {value}; use a value above 0")
    vote = partial(
        _vote,
        _unit_rows(jnp.asarray(train_features)),
        jnp.asarray(train_labels),
        temperature=temperature,
        k=min(k, len(train_labels)),
        num_classes=num_classes or int(train_labels.max()) + 1,
    )
    count = len(test_features)
    block = min(block, count)
    # Zero rows fill up the last block, so that all blocks share one compiled program.
    padded = np.pad(test_features, ((0, -count % block), (0, 0)))
    starts = range(0, count, block)
    return np.concatenate([vote(padded[i : i + block]) for i in starts])[:count]


@partial(jax.jit, static_argnames=("k", "num_classes"))
def _vote(
    train_rows: Array,
    train_labels: Array,
    test_features: Array,
    *,
    temperature: float,
    k: int,
    num_classes: int,
) -> Array:
    similarity = jnp.matmul(
        _unit_rows(test_features), train_rows.T, precision=jax.lax.Precision.HIGHEST
    )
    nearest, row = jax.lax.top_k(similarity, k)
    # A common factor moves no vote, and without it small temperatures overflow. Taking
    # column 0 for the maximum would make XLA sort whole rows: 10 times slower on a CPU.
    weight = jnp.exp((nearest - nearest.max(axis=1, keepdims=True)) / temperature)

    def tally(labels: Array, weights: Array) -> Array:
        return jnp.zeros(num_classes).at[labels].add(weights)

    return jnp.argmax(jax.vmap(tally)(train_labels[row], weight), axis=1)


def _unit_rows(features: Array) -> Array:
    norm = jnp.linalg.norm(features, axis=1, keepdims=True)
    return features / jnp.where(norm > 0, norm, 1.0)


def check_split(
    split: str, features: ArrayLike, labels: ArrayLike, num_classes: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (features "n f", labels "n") as float32 and int32, or says what is wrong.

    Raises:
      ValueError: naming `split`, see `knn_predict`.
    """
    features, labels = check_features(split, features), np.asarray(labels)
    if labels.shape != features.shape[:1]:
        raise ValueError(
            f"{split} labels have shape {labels.shape} for {len(features)} features; "
            f"use one label per row, shape ({len(features)},)"
        )
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"{split} labels are {labels.dtype}; use integer classes")
    low, high = labels.min(), labels.max()
    if low < 0 or (num_classes is not None and high >= num_classes):
        raise ValueError(
            f"{split} labels lie in [{low}, {high}], outside [0, num_classes) with "
            f"num_classes {num_classes}; leave out rows without a label"
        )
    return features, labels.astype(np.int32)


def check_features(
    split: str, features: ArrayLike, width: int | None = None
) -> np.ndarray:
    """Returns finite float32 features "n f", f = `width` if given.

    Raises:
      ValueError: naming `split`, see `knn_predict`.
    """
    features = np.asarray(features, np.float32)
    if features.ndim != 2 or features.size == 0:
        raise ValueError(
            f"{split} features have shape {features.shape}; use (rows, features), "
            "with at least one of each"
        )
    if width is not None and features.shape[1] != width:
        raise ValueError(
            f"{split} features are {features.shape[1]} wide, train features {width}; "
            "extract both with the same network"
        )
    bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if bad.size:
        raise ValueError(
            f"{split} features have {bad.size} rows that are not finite, the first is "
            f"row {bad[0]}; the network that computed them has diverged"
        )
    return features
