"""The nearest images of each image: exact, or through FAISS where there are many."""

from __future__ import annotations

import importlib.util

import numpy as np
from jax.sharding import Mesh

from snclr_jax.evaluate.frozen.neighbors import nearest

# Up to here the exact search takes minutes on two cores; its time grows as the square.
EXACT_UP_TO = 200_000
_PROBES = 32  # of FAISS's lists that are searched for each image
_LEARN = 64  # images of each list that its center is learned from


def is_exact(count: int) -> bool:
    """Returns whether so many images are compared with all others, each with each."""
    return count <= EXACT_UP_TO or importlib.util.find_spec("faiss") is None


def nearest_others(
    unit: np.ndarray, k: int, *, mesh: Mesh
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the k other rows of the largest cosine; of equals, the lowest rows.

    Of more than 200,000 rows, and where FAISS is installed, they are those that an
    inverted file finds: nearly all of them.

    Args:
      unit: float32 (n, f), rows of length 1, two or more.
      k: number of neighbors; where there are fewer, all of them.
      mesh: the devices.

    Returns:
      Cosine similarity float32 (n, k), descending, and row (n, k).

    Raises:
      ValueError: as `snclr_jax.evaluate.frozen.neighbors.nearest`.
    """
    if is_exact(len(unit)):
        return nearest(unit, unit, k, mesh=mesh, leave_one_out=True)
    return _by_faiss(unit, min(k, len(unit) - 1))


def _by_faiss(unit: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    # Not among the requirements.
    import faiss  # pyrefly: ignore[missing-import]

    count, size = unit.shape
    lists = max(1, round(4 * count**0.5))
    center = faiss.IndexFlatIP(size)
    index = faiss.IndexIVFFlat(center, size, lists, faiss.METRIC_INNER_PRODUCT)
    index.train(unit[:: max(1, count // (lists * _LEARN))])
    index.add(unit)
    index.nprobe = min(_PROBES, lists)
    similarity, row = index.search(unit, k + 1)
    # An image finds itself, but for one with more than k exact duplicates.
    itself = row == np.arange(count)[:, None]
    itself[~itself.any(axis=1), -1] = True
    return similarity[~itself].reshape(count, k), row[~itself].reshape(count, k)
