"""A few images that stand for all: which to label first."""

from __future__ import annotations

import numpy as np


def spread(unit: np.ndarray, count: int) -> tuple[np.ndarray, float]:
    """Chooses images by k-center greedy (Sener & Savarese, 2018, algorithm 1).

    The first image is the one nearest to the mean of all; each of the others is the one
    farthest from those that are chosen, of equals the lowest row.

    Args:
      unit: float32 (n, f), features of length 1.
      count: of images, >= 1; where there are fewer, all of them.

    Returns:
      Their rows, (count,), in the order they were chosen, and the cosine of the image
      that is farthest from them and the nearest of them; 1.0 where all are chosen.
    """
    count = min(count, len(unit))
    chosen = [int(np.argmax(unit @ unit.mean(axis=0)))]
    # Of each image, with the nearest one that is chosen.
    similarity = unit @ unit[chosen[0]]
    similarity[chosen[0]] = np.inf
    while len(chosen) < count:
        chosen.append(int(np.argmin(similarity)))
        np.maximum(similarity, unit @ unit[chosen[-1]], out=similarity)
        similarity[chosen[-1]] = np.inf
    return np.array(chosen), float(min(similarity.min(), 1.0))
