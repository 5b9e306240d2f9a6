"""Classification of frozen features by votes of their nearest neighbors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jax.sharding import Mesh
from jax.typing import ArrayLike

from snclr_jax.evaluate.frozen.accuracy import Accuracy, accuracy
from snclr_jax.evaluate.frozen.checks import check_both_splits, check_positive
from snclr_jax.evaluate.frozen.neighbors import nearest

# Test rows whose votes are counted at a time.
VOTE_ROWS = 2**12

Setting = tuple[int, float | None]


def named(setting: Setting) -> str:
    """Returns what the votes of a setting are called.

    Example:
      >>> named((20, 0.07)), named((20, None))
      ('k20_T0.07', 'k20')
    """
    k, temperature = setting
    return f"k{k}" if temperature is None else f"k{k}_T{temperature:g}"


def knn_accuracies(
    train_features: ArrayLike,
    train_labels: ArrayLike,
    test_features: ArrayLike | None = None,
    test_labels: ArrayLike | None = None,
    *,
    k: Sequence[int],
    temperature: Sequence[float],
    mesh: Mesh,
) -> dict[Setting, Accuracy]:
    """Returns the share of test rows that each setting of `vote` puts in their class.

    All settings share one search.

    Args:
      train_features: "n f", of any length: rows are normalized.
      train_labels: int "n", >= 0.
      test_features: "m f", of any length; None classifies each train row by the others.
      test_labels: int "m", >= 0; None where test_features is.
      k: numbers of neighbors, each >= 1.
      temperature: of the votes, each > 0.
      mesh: the devices.

    Returns:
      Accuracies by (k, temperature), and those of unweighted votes by (k, None).

    Raises:
      ValueError: as `nearest`; for labels that are negative, not integers or not one
        per row, or for a k or temperature that is not positive.

    Example:
      >>> from snclr_jax.devices.mesh import make_mesh
      >>> train = np.array([[1.0, 0.0], [0.0, 1.0]])
      >>> test = np.array([[2.0, 1.0], [3.0, 1.0]])
      >>> settings = dict(k=(1,), temperature=(0.07,), mesh=make_mesh())
      >>> knn_accuracies(train, [0, 1], test, [0, 0], **settings)[1, 0.07]
      Accuracy(top1=100.0, balanced=100.0)
    """
    check_positive("k", k)
    check_positive("temperature", temperature)
    train_features, train_labels, tests, test_labels = check_both_splits(
        train_features, train_labels, test_features, test_labels
    )
    similarity, row = nearest(
        train_features,
        tests,
        max(k),
        mesh=mesh,
        leave_one_out=test_features is None,
    )
    predicted = vote(similarity, row, train_labels, k=k, temperature=temperature)
    return {
        setting: accuracy(test_labels, classes)
        for setting, classes in predicted.items()
    }


def vote(
    similarity: np.ndarray,
    row: np.ndarray,
    train_labels: np.ndarray,
    *,
    k: Sequence[int],
    temperature: Sequence[float],
) -> dict[Setting, np.ndarray]:
    """Classifies test rows by weighted votes of their nearest train rows.

        class(x) = argmax_c sum_{i in N_k(x), y_i = c} exp(cos(x_i, x) / T)

    and the same without weights. Of equal votes the lowest class wins.

    Args:
      similarity: "m l" of `nearest`.
      row: "m l" of `nearest`.
      train_labels: int "n", >= 0.
      k: numbers of neighbors; more than l count all l.
      temperature: values of T.

    Returns:
      int32 "m" classes by (k, T), and those of unweighted votes by (k, None).

    Wu et al. 2018, "Unsupervised Feature Learning via Non-Parametric Instance
    Discrimination", section 3.4, which also sets k = 200 and T = 0.07.
    """
    settings = [(neighbors, of) for neighbors in k for of in (None, *temperature)]
    predicted = {setting: np.empty(len(row), np.int32) for setting in settings}
    for start in range(0, len(row), VOTE_ROWS):
        part = slice(start, start + VOTE_ROWS)
        classes, candidate = _candidates(train_labels[row[part]])
        # A common factor moves no vote, and without it small temperatures overflow.
        behind = similarity[part].astype(np.float64) - similarity[part, :1]
        weights: dict[float | None, np.ndarray] = {
            of: np.exp(behind / of) for of in temperature
        }
        weights[None] = np.ones_like(behind)
        for (neighbors, of), result in predicted.items():
            votes = np.bincount(
                candidate[:, :neighbors].ravel(),
                weights[of][:, :neighbors].ravel(),
                minlength=classes.size,
            )
            winner = votes.reshape(classes.shape).argmax(axis=1)
            result[part] = np.take_along_axis(classes, winner[:, None], axis=1)[:, 0]
    return predicted


def _candidates(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the classes in each row, ascending, and each label's column among all.

    A table of votes then has as many columns as neighbors, whatever classes there are.
    """
    order = np.argsort(labels, axis=1, kind="stable")
    ascending = np.take_along_axis(labels, order, axis=1)
    new = np.diff(ascending, axis=1, prepend=ascending[:, :1]) > 0
    rank = np.cumsum(new, axis=1, dtype=np.intp)
    classes = np.zeros_like(labels)
    np.put_along_axis(classes, rank, ascending, axis=1)
    column = np.empty_like(rank)
    np.put_along_axis(column, order, rank, axis=1)
    return classes, column + np.arange(len(labels))[:, None] * labels.shape[1]
