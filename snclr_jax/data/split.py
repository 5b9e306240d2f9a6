"""One split of an image set: random access to images, labels, groups and names."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

from snclr_jax.data.bad_images import BadImages
from snclr_jax.data.decode import Encoded, UnreadableImage

_CHUNK = 32  # images per task of the thread pool: a small one costs less than a task
SAMPLE = 64  # images that tell a set from another one under the same names

Load = Callable[[np.ndarray], np.ndarray]
Read = Callable[[np.ndarray], Sequence[Encoded | np.ndarray]]
Labels = np.ndarray | Callable[[range], np.ndarray] | None
Names = Callable[[np.ndarray], list[str]] | str


T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class _Opened:
    """A split as it was opened, which every subset of it shares; see `Split`."""

    load: Load
    encoded: Read | None
    read_labels: Labels
    group: np.ndarray | None
    names: Callable[[np.ndarray], list[str]]
    stamp: str
    bad: BadImages

    @functools.cached_property
    def labels(self) -> np.ndarray | Any:
        if not callable(self.read_labels):
            return self.read_labels
        # Worker processes load this file, and not JAX.
        from snclr_jax.devices.shares import read_in_shares

        return np.asarray(read_in_shares(self.read_labels, self.bad.size), np.int32)


class Split:
    """One split of a labelled or unlabelled image set, with random access.

    In place of an image that cannot be read stands the next one of the split that can,
    in the order of the set and from its end on with the first: the same image in every
    run, process and epoch. `read`, `images`, `labels` and `names` agree on it from
    when the image was met.

    Args:
      load: decodes some images, (b,) indices in [0, size) -> uint8 (b, s, s, c); must
        be safe to call from several threads, and picklable for worker processes.
        Raises `UnreadableImage` where one of them is bad.
      encoded: reads some images as they are stored, or their pixels, uint8 (h, w, c):
        (b,) indices -> b of them, in any size; the same threads and processes call it.
        None where there is nothing beyond what `load` returns.
      size: number of images, n.
      labels: int32 (n,), or a function that reads those of some rows when they are
        first asked for, or None for an unlabelled set.
      group: int32 (n,), pictures of one original share a group, so that no original
        is ever divided between two splits; None where every image is its own.
      names: names some images, (b,) indices -> b of them, the same in every run; or
        what stands before their rows: "image" names them image/0, image/1, ...
      stamp: what tells this set from others of the same size, such as a sum over the
        images' names; the same in every run.
      max_bad: share of the images that may be bad; one more is an error.
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
        stamp: str = "",
        max_bad: float = 0.0,
    ) -> None:
        name = functools.partial(_rows, names) if isinstance(names, str) else names
        bad = BadImages(load, name, size=size, share=max_bad)
        self._take(
            _Opened(load, encoded, labels, group, name, stamp, bad),
            np.arange(size, dtype=np.int32),
        )

    def _take(self, opened: _Opened, of: np.ndarray) -> None:
        self._opened = opened
        self._of = of  # a row's index in the set as it was opened
        self._shown: dict[int, int] = {}  # a bad image's row: the one in its place
        self._kept: tuple[range, np.ndarray] | None = None  # rows and their images
        self.size = len(of)
        self.group = None if opened.group is None else opened.group[of]

    def subset(self, indices: np.ndarray) -> Split:
        """The split that holds only `indices`, (m,), in that order.

        Where that is all of them as they are, it is this split: what is kept for it,
        such as its features, serves both.
        """
        if np.array_equal(indices, np.arange(self.size)):
            return self
        part = Split.__new__(Split)
        part._take(self._opened, self._of[indices])
        return part

    @property
    def bad(self) -> BadImages:
        """The bad images of the set as it was opened, also of what was held back."""
        return self._opened.bad

    @property
    def identity(self) -> str:
        """Says which images these are; another text where the set has changed."""
        return ", ".join(filter(None, (f"{self.size} images", self._opened.stamp)))

    @property
    def labelled(self) -> bool:
        """Whether the images have labels; unlike `labels`, never reads them."""
        return self._opened.read_labels is not None

    @property
    def labels_at_hand(self) -> bool:
        """Whether there are labels, and the first access reads nothing."""
        return self.labelled and not callable(self._opened.read_labels)

    # Any, not None: who reads them has asked whether the images are `labelled`.
    @property
    def labels(self) -> np.ndarray | Any:
        """int32 (n,), or None; the first access may read the whole set.

        Where it does, each process reads its share, so all of them ask.
        """
        if not self.labelled:
            return None
        return self._opened.labels[self._of[self.shown(np.arange(self.size))]]

    def names(self, indices: Sequence[int] | np.ndarray) -> list[str]:
        """Returns what some images are called, (b,) indices -> b names."""
        shown = self.shown(np.asarray(indices, np.intp))
        return self._opened.names(self._of[shown])

    def shown(self, indices: np.ndarray) -> np.ndarray:
        """Returns which images stand at some rows, as far as bad ones were met."""
        if not self._shown:
            return indices
        shown = [self._shown.get(row, row) for row in indices.tolist()]
        return np.array(shown, indices.dtype)

    def replaced(self, row: int, other: int) -> None:
        """Takes note that another process found a bad image, and what it showed.

        Raises:
          ValueError: where more images are bad than may be.
        """
        if self._shown.get(row) == other:
            return
        self._shown[row] = other
        while row != other:
            self.bad.add_of_others(int(self._of[row]))
            row = self._next(row)

    def replacements(self, rows: np.ndarray) -> list[tuple[int, int]]:
        """Returns which of some rows show another one, and which: for `replaced`."""
        shown = self._shown.copy()
        return [(row, shown[row]) for row in np.intersect1d(rows, [*shown]).tolist()]

    def read(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Decodes some images with threads: (b,) indices -> uint8 (b, s, s, c).

        Where `keep` has decoded all of them, they are taken from there.
        """
        indices = np.asarray(indices)
        if self._kept is not None:
            rows, images = self._kept
            if rows.start <= indices.min() and indices.max() < rows.stop:
                return images[indices - rows.start]
        chunks = [indices[i : i + _CHUNK] for i in range(0, len(indices), _CHUNK)]
        return np.concatenate(list(_thread_pool().map(self._read_chunk, chunks)))

    def _read_chunk(self, indices: np.ndarray) -> np.ndarray:
        try:
            return self._load(indices)
        except UnreadableImage:  # which may be one of several
            images = (self.first_readable(row, self._load_one)[1] for row in indices)
            return np.concatenate(list(images))

    def _load(self, indices: np.ndarray) -> np.ndarray:
        return self._opened.load(self._of[indices])

    def _load_one(self, row: int) -> np.ndarray:
        return self._load(np.array([row]))

    def first_readable(self, row: int, read: Callable[[int], T]) -> tuple[int, T]:
        """Reads an image or, where it is bad, the one that stands in its place.

        Args:
          row: of the image.
          read: reads a row; raises `UnreadableImage`.

        Returns:
          The row that was read, and what `read` returned.

        Raises:
          ValueError: where more images are bad than may be.
        """
        other = row = int(row)
        for _ in range(len(self._circle[0])):
            try:
                result = read(other)
            except UnreadableImage as error:
                self.bad.add(int(self._of[other]), error)
                other = self._next(other)
                continue
            if other != row:
                self._shown[row] = other
            return other, result
        raise ValueError(
            f"none of {self.size} images can be read, {self.names([row])[0]} among "
            "them; replace them"
        )

    def _next(self, row: int) -> int:
        """The row of the image that comes after another one."""
        first, position = self._circle
        return int(first[(position[row] + 1) % len(first)])

    @functools.cached_property
    def _circle(self) -> tuple[np.ndarray, np.ndarray]:
        """One row of each image, in the set's order; every row's position in it."""
        _, first, position = np.unique(self._of, return_index=True, return_inverse=True)
        return first, position

    def originals(
        self, indices: np.ndarray
    ) -> Sequence[Encoded | np.ndarray] | np.ndarray:
        """Reads some whole images without threads: encoded, or uint8 (h, w, c)."""
        return (self._opened.encoded or self._opened.load)(self._of[indices])

    def sampled_bytes(self) -> int:
        """Returns how many bytes some images have as they are stored."""
        return sum(map(_stored_bytes, self.originals(self.thinned(SAMPLE))))

    def images(self) -> np.ndarray:
        """All images, uint8 (n, s, s, c), decoded once; for sets that fit in memory."""
        return self.keep(range(self.size))

    def keep(self, rows: range) -> np.ndarray:
        """Some images, uint8 (m, s, s, c), decoded once; `read` then has them."""
        if self._kept is None or self._kept[0] != rows:
            self._kept = rows, self.read(rows)
        return self._kept[1]

    def thinned(self, count: int) -> np.ndarray:
        """Returns `count` rows at equal distances, or all where there are no more."""
        return evenly(self.size, count)


def evenly(size: int, count: int) -> np.ndarray:
    """Returns `count` of `size` rows at equal distances, or all: int32, rising."""
    return np.linspace(0, size - 1, min(count, size)).round().astype(np.int32)


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


def _stored_bytes(image: Encoded | np.ndarray) -> int:
    content = image if isinstance(image, np.ndarray) else image.content
    if isinstance(content, np.ndarray):
        return content.nbytes
    if isinstance(content, bytes):
        return len(content)
    with contextlib.suppress(OSError):  # a bad image, see `Split`
        return os.path.getsize(content)
    return 0


def _rows(of: str, indices: np.ndarray) -> list[str]:
    return [f"{of}/{index}" for index in indices]


@functools.cache
def _thread_pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(16, os.cpu_count() or 1))
