"""Clusters of images, the largest first, and how typical of its own each image is."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np

MOST = 50  # clusters that are made unasked


class Clusters(NamedTuple):
    """Clusters of n images.

    Attributes:
      label: int (n,), of each image; 0 is the largest cluster.
      typicality: float32 (n,), cosine of an image and the mean of its cluster.
    """

    label: np.ndarray
    typicality: np.ndarray

    @property
    def members(self) -> list[np.ndarray]:
        """The rows of each cluster, the most typical first."""
        order = np.lexsort((-self.typicality, self.label))
        return np.split(order, np.cumsum(np.bincount(self.label))[:-1])


def find_clusters(unit: np.ndarray, count: int | None, *, seed: int) -> Clusters:
    """Divides images by k-means of their features of length 1.

    Args:
      unit: float32 (n, f), features of length 1.
      count: of clusters, 1 to n; None is half the square root of n, at most 50.
        Where there are fewer different features, there are as many clusters.
      seed: of the first means, by k-means++ (Arthur & Vassilvitskii, 2007).
    """
    # Takes longer to load than JAX.
    from sklearn.cluster import KMeans

    if count is None:
        count = min(MOST, max(1, round(len(unit) ** 0.5 / 2)))
    with warnings.catch_warnings():
        # Fewer different features than clusters: what is empty is left out below.
        warnings.filterwarnings("ignore", message="Number of distinct clusters")
        label, sizes = by_size(KMeans(count, random_state=seed).fit_predict(unit))
    means = np.stack([unit[label == each].mean(axis=0) for each in range(len(sizes))])
    length = np.linalg.norm(means, axis=1, keepdims=True)
    means /= np.where(length > 0, length, 1)
    return Clusters(label, np.einsum("nf,nf->n", unit, means[label]))


def by_size(label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns labels from 0 on, the largest group's first, and the sizes of groups.

    Of equally large ones that of the lowest row comes first.
    """
    _, first, label, sizes = np.unique(
        label, return_index=True, return_inverse=True, return_counts=True
    )
    order = np.lexsort((first, -sizes))
    return np.argsort(order)[label], sizes[order]
