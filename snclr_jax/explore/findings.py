"""All that is found out about a set of images, as arrays of rows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from snclr_jax.data.split import Split, evenly
from snclr_jax.explore.clusters import Clusters, find_clusters
from snclr_jax.explore.duplicates import (
    Duplicates,
    find_duplicates,
    saved_again,
    suggest_threshold,
)
from snclr_jax.explore.images import Images, unit
from snclr_jax.explore.nearest import nearest_others
from snclr_jax.explore.subset import spread

NEAREST = 10  # other images of each, which tell duplicates, outliers and coverage
COPIES = 500  # images that are saved again


class Findings(NamedTuple):
    """What is found out about n images.

    Attributes:
      similarity: float32 (n, k), cosine of each image and its nearest others.
      row: (n, k), which these are.
      clusters: of the images.
      duplicates: among them.
      suggested: the threshold of duplicates that the images suggest, or None where one
        was given.
      subset: int (m,), which to label first.
      reach: cosine of the image that is farthest from all of these and its nearest.
    """

    similarity: np.ndarray
    row: np.ndarray
    clusters: Clusters
    duplicates: Duplicates
    suggested: float | None
    subset: np.ndarray
    reach: float

    @property
    def coverage(self) -> np.ndarray:
        """Float32 (n,), the mean cosine of each image and its nearest others."""
        return self.similarity.mean(axis=1)

    @property
    def outliers(self) -> np.ndarray:
        """All rows, the one that is least like its nearest others first."""
        return np.argsort(self.coverage, kind="stable")


def find_out(images: Images, settings: ConfigDict) -> Findings:
    """Looks at the features of images.

    Args:
      images: three or more.
      settings: `configs/evaluate.py`; reads `explore` and `seed`.

    Raises:
      ValueError: for a setting out of its range, or features that are not finite.
    """
    asked, threshold = settings.explore, settings.explore.threshold
    for name, value, most in (
        ("clusters", asked.clusters, len(images.unit)),
        ("subset", asked.subset, None),
    ):
        if value is not None and not 1 <= value <= (most or value):
            upper = f"to {most}, the number of images" if most else "or more"
            raise ValueError(f"explore.{name} is {value}; use 1 {upper}")
    if threshold is not None and not 0 < threshold <= 1:
        raise ValueError(f"explore.threshold is {threshold}; use a cosine up to 1")
    similarity, row = nearest_others(images.unit, NEAREST, mesh=images.mesh)
    suggested = None
    if threshold is None:
        to_copy = _similarity_to_copies(images)
        threshold = suggested = suggest_threshold(similarity, to_copy)
    return Findings(
        similarity,
        row,
        find_clusters(images.unit, asked.clusters, seed=settings.seed),
        find_duplicates(images.unit, similarity, row, threshold),
        suggested,
        *spread(images.unit, asked.subset),
    )


def _similarity_to_copies(images: Images) -> np.ndarray:
    rows = evenly(len(images.unit), COPIES)
    copies = saved_again(images.read(rows))
    of_copies = images.subject.features(Split(copies.__getitem__, size=len(copies)))
    return np.einsum("mf,mf->m", images.unit[rows], unit(of_copies))
