"""Images that lie in few large files, as the splits of a run."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from snclr_jax.data.decode import Encoded, decode_squares, printable
from snclr_jax.data.layout import notes_on_test, number_classes
from snclr_jax.data.split import SAMPLE, Split, evenly


class Rows(Protocol):
    """Images one after the other; picklable, for worker processes."""

    @property
    def size(self) -> int:
        """Returns how many there are."""
        ...

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Returns what classes are called that have numbers, or None."""
        ...

    def encoded(self, indices: np.ndarray) -> list[Encoded]:
        """Returns some images as they are stored."""
        ...

    def names(self, indices: np.ndarray) -> list[str]:
        """Returns what some images are called, the same in every run."""
        ...

    def labels(self) -> np.ndarray | list[str] | None:
        """Returns the class of every image: numbers, names ("" is none), or None."""
        ...


def open_rows(
    train: Rows,
    test: Rows | None,
    *,
    side: int,
    max_bad: float,
    notes: Sequence[str],
) -> tuple[Split, Split | None, tuple[str, ...] | None, tuple[str, ...]]:
    """Returns what `open_folder` does: both splits, the classes' names, and notes.

    Classes are numbered by the training images, as those of a folder are: test images
    of others have the label -1. Without labels of training images no test is scored.

    Args:
      train: the training images.
      test: the test images, or None.
      side: s of the decoded images, in pixels.
      max_bad: share of a split's images that may be bad, see `Split`.
      notes: on the files.
    """
    split = functools.partial(_split, side=side, max_bad=max_bad)
    of_train = train.labels()
    of_test = test.labels() if test and of_train is not None else None
    notes = list(notes)
    if test and of_test is None:
        which = "training" if of_train is None else "test"
        notes.append(f"the {which} images have no labels, so that nothing is scored")
        test = None
    names, classes = train.class_names, None
    if isinstance(of_train, list):
        names = classes = tuple(sorted(set(of_train) - {""}))
        if test and isinstance(of_test, list):
            called = test.names(np.arange(test.size))
            notes += notes_on_test(called, of_test, classes)
    return (
        split(train, _numbers(of_train, classes)),
        None if test is None else split(test, _numbers(of_test, classes)),
        tuple(map(printable, names)) if names else None,
        tuple(f"data.path: {note}" for note in notes),
    )


def _split(
    rows: Rows, labels: np.ndarray | None, *, side: int, max_bad: float
) -> Split:
    return Split(
        functools.partial(decode_squares, rows.encoded, side),
        encoded=rows.encoded,
        size=rows.size,
        labels=labels,
        names=rows.names,
        stamp=f"content {_digest(rows):08x}",
        max_bad=max_bad,
    )


def _numbers(
    labels: np.ndarray | list[str] | None, classes: Sequence[str] | None
) -> np.ndarray | None:
    if labels is None or (isinstance(labels, np.ndarray) and classes is None):
        return labels
    return np.array(number_classes(map(str, labels), classes or ()), np.int32)


def _digest(rows: Rows) -> int:
    """Returns a number that follows from images all over the set."""
    crc = 0
    for image in rows.encoded(evenly(rows.size, SAMPLE)):
        content = image.content
        if isinstance(content, np.ndarray):
            content = repr(content.shape).encode() + content.tobytes()
        # The folder of a path may move.
        stored = image.name.encode() if isinstance(content, str) else content
        crc = zlib.crc32(stored, crc)
    return crc


def class_numbers(values: Sequence[object], where: str) -> np.ndarray:
    """Returns labels as int32, -1 where there is none.

    Args:
      values: integers, None where there is none.
      where: what to name in an error.

    Raises:
      ValueError: where one is too large to number a class.
    """
    numbers = [-1 if value is None else int(value) for value in values]  # type: ignore
    largest = max(numbers, key=abs)
    if abs(largest) >= 2**31:
        raise ValueError(
            f"{where} has the value {largest}, which is no class; name other labels "
            "by data.label_column"
        )
    return np.array(numbers, np.int32)
