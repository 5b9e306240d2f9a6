"""One split of an image set: random access to images, labels, groups and names."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from snclr_jax.data.decode import Encoded

_CHUNK = 32  # images per task of the thread pool: a small one costs less than a task

Load = Callable[[np.ndarray], np.ndarray]
Read = Callable[[np.ndarray], Sequence[Encoded]]
Labels = np.ndarray | Callable[[], np.ndarray] | None
Names = Callable[[np.ndarray], list[str]] | str


class Split:
    """One split of a labelled or unlabelled image set, with random access.

    Args:
      load: decodes some images, (b,) indices in [0, size) -> uint8 (b, s, s, 3); must
        be safe to call from several threads, and picklable for worker processes.
      encoded: reads some images as they are stored, (b,) indices -> b of them, in any
        size; the same threads and processes call it. None where there is nothing
        beyond what `load` returns.
      size: number of images, n.
      labels: int32 (n,), or a function that reads them when first asked for, or
        None for an unlabelled set.
      group: int32 (n,), pictures of one original share a group, so that no original
        is ever divided between two splits; None where every image is its own.
      names: names some images, (b,) indices -> b of them, the same in every run; or
        what stands before their rows: "image" names them image/0, image/1, ...
    """

    def __init__(
        self,
        load: Load,
        *,
        encoded: Read | None = None,
        size: int,
        labels: Labels = None,
        group: np.ndarray | None = None,
        names: Names = "image",
    ) -> None:
        self._load = load
        self._encoded = encoded
        self.size = size
        self.group = group
        self._labels = labels
        by_row = functools.partial(_rows, names)
        self._names = by_row if isinstance(names, str) else names

    @property
    def labelled(self) -> bool:
        """Whether the images have labels; unlike `labels`, never reads them."""
        return self._labels is not None

    @functools.cached_property
    def labels(self) -> np.ndarray | None:
        """int32 (n,), or None; the first access may read the whole set."""
        return self._labels() if callable(self._labels) else self._labels

    def read(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Decodes some images with threads: (b,) indices -> uint8 (b, s, s, 3)."""
        indices = np.asarray(indices)
        chunks = [indices[i : i + _CHUNK] for i in range(0, len(indices), _CHUNK)]
        return np.concatenate(list(_thread_pool().map(self._load, chunks)))

    def originals(
        self, indices: np.ndarray
    ) -> Sequence[Encoded] | Sequence[np.ndarray]:
        """Reads some whole images without threads: encoded, or uint8 (h, w, 3)."""
        return (self._encoded or self._load)(indices)

    def names(self, indices: Sequence[int] | np.ndarray) -> list[str]:
        """Returns what some images are called, (b,) indices -> b names."""
        return self._names(np.asarray(indices, np.intp))

    def images(self) -> np.ndarray:
        """All images, uint8 (n, s, s, 3), decoded once; for sets that fit in memory."""
        return self._images

    @functools.cached_property
    def _images(self) -> np.ndarray:
        return self.read(np.arange(self.size))

    def thinned(self, count: int) -> np.ndarray:
        """Returns `count` rows at equal distances, or all where there are no more."""
        count = min(count, self.size)
        return np.linspace(0, self.size - 1, count).round().astype(np.int32)

    def subset(self, indices: np.ndarray) -> Split:
        """The split that holds only `indices`, (m,), in that order."""
        return Split(
            functools.partial(_call_at, self._load, indices),
            encoded=self._encoded
            and functools.partial(_call_at, self._encoded, indices),
            size=len(indices),
            labels=functools.partial(_labels_at, self, indices)
            if self.labelled
            else None,
            group=None if self.group is None else self.group[indices],
            names=functools.partial(_call_at, self._names, indices),
        )


def hold_back(split: Split, count: int) -> tuple[Split, Split]:
    """Divides a training split into what is trained on and what is held back.

    Whole groups are drawn in a fixed pseudo-random order until at least `count`
    images are held back; the choice depends on the groups and `count` alone.

    Args:
      split: the training split.
      count: images to hold back, 1 to n - 1.

    Returns:
      The remaining split and the held-back one, each in the original order.

    Raises:
      ValueError: where `count` leaves no image on one of the two sides.
    """
    group = np.arange(split.size) if split.group is None else split.group
    names, group, pictures = np.unique(group, return_inverse=True, return_counts=True)
    # RandomState's stream is frozen (NEP 19); Generator's may change with numpy.
    order = np.random.RandomState(0).permutation(len(names))
    groups = 1 + np.searchsorted(np.cumsum(pictures[order]), count)
    if count < 1 or groups >= len(names):
        raise ValueError(
            f"data.holdback is {count}, but the training split has {split.size} images "
            f"in {len(names)} groups; use 0 (none) or hold back fewer images"
        )
    held = np.isin(group, order[:groups])
    return split.subset(np.flatnonzero(~held)), split.subset(np.flatnonzero(held))


def _call_at(function: Callable, at: np.ndarray, indices: np.ndarray):
    return function(at[indices])


def _rows(of: str, indices: np.ndarray) -> list[str]:
    return [f"{of}/{index}" for index in indices]


def _labels_at(split: Split, at: np.ndarray) -> np.ndarray:
    return split.labels[at]


@functools.cache
def _thread_pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(16, os.cpu_count() or 1))
