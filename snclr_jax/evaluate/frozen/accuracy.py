"""Accuracy, and what tells of one where classes differ in size: balanced, majority."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

BALANCED = "_balanced"  # what the name of a balanced accuracy ends in


class Accuracy(NamedTuple):
    """Shares of images that are put in their class, in percent.

    Attributes:
      top1: of all images.
      balanced: of each class that has images, in the mean over these classes; 100 / C
        is chance for C of them, whatever their sizes.
    """

    top1: float
    balanced: float

    def named(self, name: str) -> dict[str, float]:
        """Returns both as metrics: NAME and NAME_balanced."""
        return {name: self.top1, name + BALANCED: self.balanced}


def accuracy(labels: np.ndarray, predicted: np.ndarray) -> Accuracy:
    """Returns how many of the predicted classes are right.

    Args:
      labels: int "n", >= 0, n >= 1.
      predicted: int "n".

    Example:
      >>> accuracy(np.array([0, 0, 0, 1]), np.array([0, 0, 0, 0]))
      Accuracy(top1=75.0, balanced=50.0)
    """
    right = np.bincount(labels, weights=labels == predicted)
    counts = np.bincount(labels)
    return Accuracy(100 * float(right.sum() / counts.sum()), balanced(right, counts))


def balanced(right: np.ndarray, counts: np.ndarray) -> float:
    """Returns the balanced accuracy in percent.

    Args:
      right: "c", images of each class that are put in it.
      counts: int "c", images of each class.
    """
    found = counts > 0
    return 100 * float(np.mean(right[found] / counts[found]))


def majority(train_labels: np.ndarray, labels: np.ndarray) -> Accuracy:
    """Returns what always answering the class of most training images reaches.

    Args:
      train_labels: int "n", >= 0.
      labels: int "m", >= 0, of the images that are scored.
    """
    most = np.bincount(train_labels).argmax()
    return accuracy(labels, np.full(len(labels), most))


def in_words(metrics: Mapping[str, float], name: str) -> str:
    """Returns an accuracy as it is printed, the balanced one beside it if there is one.

    Example:
      >>> in_words({"knn": 91.25, "knn_balanced": 60.0}, "knn")
      '91.25% (balanced 60.00%)'
    """
    text = f"{metrics[name]:.2f}%"
    if name + BALANCED in metrics:
        text += f" (balanced {metrics[name + BALANCED]:.2f}%)"
    return text
