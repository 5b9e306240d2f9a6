"""Images that are nearly the same: from which similarity on, which pairs and groups."""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np
from PIL import Image

# scipy has no stubs of its compiled functions.
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from snclr_jax.explore.clusters import by_size
from snclr_jax.step.channels import COLOR

QUALITY, SHRUNK = 75, 0.75  # of a copy: of its JPEG, and of its sides in between
ALIKE = 0.05  # share of copies that may be less similar than the threshold
OF_OTHERS = 0.99  # share of images whose k-th neighbor is less similar than it
# Equal features differ by the rounding of their product.
EQUAL = 1 - 1e-5
_BLOCK = 256  # rows that are compared with all rows at a time


class Duplicates(NamedTuple):
    """What is nearly the same.

    Attributes:
      threshold: cosine from which on two images are.
      pairs: int (p, 2), the lower row first, the most similar pair first.
      similarity: float32 (p,), of the pairs.
      group: int (n,), 0 is the largest group; -1 is an image without duplicates.
    """

    threshold: float
    pairs: np.ndarray
    similarity: np.ndarray
    group: np.ndarray

    @property
    def groups(self) -> list[np.ndarray]:
        """The rows of each group, ascending."""
        order = np.argsort(self.group, kind="stable")
        order = order[np.count_nonzero(self.group < 0) :]
        sizes = np.bincount(self.group[order])
        return np.split(order, np.cumsum(sizes)[:-1]) if len(order) else []


def saved_again(pictures: np.ndarray) -> np.ndarray:
    """Returns what is left of pictures, shrunk to 3/4 and back, as JPEGs of quality 75.

    Of pictures that are not RGB, each channel is a JPEG.

    Args:
      pictures: uint8 (m, s, s, c).
    """
    if pictures.shape[-1] != COLOR:
        channels = np.moveaxis(pictures, -1, 0)
        copies = [[_copy(pixels) for pixels in channel] for channel in channels]
        return np.moveaxis(np.asarray(copies), 0, -1)
    return np.stack([_copy(pixels) for pixels in pictures])


def _copy(pixels: np.ndarray) -> np.ndarray:
    picture, file = Image.fromarray(pixels), io.BytesIO()
    side = max(1, round(SHRUNK * picture.width))
    small = picture.resize((side, side), Image.Resampling.BICUBIC)
    small.save(file, "JPEG", quality=QUALITY)
    with Image.open(file) as copy:
        return np.asarray(copy.resize(picture.size, Image.Resampling.BICUBIC))


def suggest_threshold(similarity: np.ndarray, to_copy: np.ndarray) -> float:
    """Returns the cosine that 95% of copies reach, and 99% of k-th neighbors do not.

    An image seldom has k duplicates, so its k-th neighbor is what an image that is
    another one comes to.

    Args:
      similarity: (n, k), of each image to its nearest others, descending.
      to_copy: (m,), of an image to its copy, see `saved_again`.
    """
    of_others = np.quantile(similarity[:, -1], OF_OTHERS)
    return float(min(max(np.quantile(to_copy, ALIKE), of_others), EQUAL))


def find_duplicates(
    unit: np.ndarray, similarity: np.ndarray, row: np.ndarray, threshold: float
) -> Duplicates:
    """Returns the pairs of a cosine of at least `threshold`, and what they connect.

    Groups are the components of all such pairs; the pairs that are listed are those of
    an image and its k nearest.

    Args:
      unit: float32 (n, f), features of length 1.
      similarity: (n, k), of each image to its nearest others, descending.
      row: (n, k), which these are.
      threshold: 1 is that of equal features.
    """
    count, k = row.shape
    threshold = min(threshold, EQUAL)
    alike = similarity >= threshold
    ends = np.stack([np.nonzero(alike)[0], row[alike]])
    low, high = ends.min(axis=0).astype(np.int64), ends.max(axis=0)
    _, once = np.unique(low * count + high, return_index=True)
    pairs, values = np.stack([low, high], axis=1)[once], similarity[alike][once]
    order = np.argsort(-values, kind="stable")
    edges = coo_array((np.ones(len(pairs), bool), tuple(pairs.T)), (count, count))
    _, label = connected_components(edges, directed=False)
    # Where the last of k is a duplicate too, there may be more of them.
    beyond = np.flatnonzero(alike[:, -1]) if k < count - 1 else np.empty(0, int)
    for start in range(0, len(beyond), _BLOCK):
        rows = beyond[start : start + _BLOCK]
        for each in unit[rows] @ unit.T >= threshold:
            joined = np.unique(label[each])
            if len(joined) > 1:
                label[np.isin(label, joined)] = joined[0]
    group, sizes = by_size(label)
    group[sizes[group] == 1] = -1
    return Duplicates(threshold, pairs[order], values[order], group)
