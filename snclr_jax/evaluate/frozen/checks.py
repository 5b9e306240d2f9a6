"""What every evaluation asks of its features and labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jax.typing import ArrayLike


def check_both_splits(
    train_features: ArrayLike,
    train_labels: ArrayLike,
    test_features: ArrayLike | None,
    test_labels: ArrayLike | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns the four arrays as `check_split` does; no test split is the train split.

    Raises:
      ValueError: naming the split, or the half of the test split that is missing.
    """
    train_features, train_labels = check_split("train", train_features, train_labels)
    if (test_features is None) != (test_labels is None):
        raise ValueError(
            "only one of test_features and test_labels is None; pass both, or neither "
            "to compare each train row with the others"
        )
    if test_features is None or test_labels is None:
        return train_features, train_labels, train_features, train_labels
    test = check_split("test", test_features, test_labels, train_features.shape[1])
    return train_features, train_labels, *test


def check_split(
    split: str, features: ArrayLike, labels: ArrayLike, width: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (features "n f", labels "n") as float32 and int32, f = `width` if given.

    Raises:
      ValueError: naming `split`.
    """
    features, labels = check_features(split, features, width), np.asarray(labels)
    if labels.shape != features.shape[:1]:
        raise ValueError(
            f"{split} labels have shape {labels.shape} for {len(features)} features; "
            f"use one label per row, shape ({len(features)},)"
        )
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"{split} labels are {labels.dtype}; use integer classes")
    low, high = labels.min(), labels.max()
    if low < 0:
        raise ValueError(
            f"{split} labels lie in [{low}, {high}]; leave out rows without a label, "
            "which are below 0"
        )
    return features, labels.astype(np.int32)


def check_features(
    split: str, features: ArrayLike, width: int | None = None
) -> np.ndarray:
    """Returns finite float32 features "n f", f = `width` if given.

    Raises:
      ValueError: naming `split`.
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
    # A float64 sum of finite float32 is finite, and makes no mask of n f.
    total = np.einsum("nf->n", features, dtype=np.float64)
    bad = np.flatnonzero(~np.isfinite(total))
    if bad.size:
        raise ValueError(
            f"{split} features have {bad.size} rows that are not finite, the first is "
            f"row {bad[0]}; the network that computed them has diverged"
        )
    return features


def check_positive(name: str, values: Sequence[float]) -> None:
    """Asks for one or more values above 0.

    Raises:
      ValueError: naming `name` and the first value that is not.
    """
    if not values:
        raise ValueError(f"{name} is empty; use one or more values")
    for value in values:
        if not value > 0:
            raise ValueError(f"{name} is {value}; use a value above 0")
