"""Image folders: `train/<class>/*` and `test/<class>/*`, or unlabelled images."""

from __future__ import annotations

import functools
import os
import zlib
from pathlib import Path, PurePosixPath

import numpy as np

from snclr_jax.data.decode import SUFFIXES, Encoded, decode_squares, printable
from snclr_jax.data.layout import (
    USUAL,
    as_text,
    below,
    class_of,
    notes_on_test,
    number_classes,
    passed_over,
    read_layout,
    top_folders,
    walk,
)
from snclr_jax.data.split import Split
from snclr_jax.settings.levels import FULL, Levels
from snclr_jax.settings.paths import expanded


def open_folder(
    path: str,
    image_size: int,
    *,
    max_bad: float,
    splits: tuple[str, str] = USUAL,
    levels: Levels = FULL,
) -> tuple[Split, Split | None, tuple[str, ...] | None, tuple[str, ...]]:
    """Opens an image folder; images are decoded when they are asked for.

    `read_layout` says which images are which. An image that lies in no folder of a
    class has the label -1. Images are in the order of their paths, however deep they
    lie.

    Args:
      path: root of the folder.
      image_size: side s of the decoded images, in pixels.
      max_bad: share of a split's images that may be bad, see `Split`.
      splits: see `read_layout`.
      levels: see `Encoded`.

    Returns:
      The training split, the test split, the classes' names in the order of their
      labels, and notes for a person. Test split and names are None for unlabelled
      training images.

    Raises:
      ValueError: for a folder that is missing or without images.
      OSError: where a folder cannot be listed.
    """
    root = Path(expanded(path))
    if not path or not root.is_dir():
        raise ValueError(
            f"data.path is {path!r}, which is not a folder; give the folder that holds "
            "train/<class>/ or the images"
        )
    found = list(walk(root))
    names = sorted(name for name, reason in found if not reason)
    layout = read_layout(
        names,
        top_folders(root),
        splits=splits,
        naming="data.train_split ('' is the whole folder) and data.test_split",
    )
    others = passed_over(reason for _, reason in found)
    files, classes = below(names, layout.train), layout.classes
    if not files:
        raise ValueError(
            f"data.path: no images under {root / layout.train}; looked for files that "
            f"end in {', '.join(SUFFIXES)}, and found {others or 'none at all'}"
        )
    split = functools.partial(
        _split, root, classes=classes, side=image_size, max_bad=max_bad, levels=levels
    )
    test, notes = None, layout.notes
    if layout.test is not None and classes is not None:
        of_test = below(names, layout.test)
        test = split(layout.test, of_test)
        notes += notes_on_test(of_test, list(map(class_of, of_test)), classes)
    if others:
        notes.append(f"passed over {others}")
    return (
        split(layout.train, files),
        test,
        classes and tuple(printable(as_text(name)) for name in classes),
        tuple(f"data.path: {note}" for note in notes),
    )


def _split(
    root: Path,
    folder: str,
    files: list[str],
    *,
    classes: tuple[str, ...] | None,
    side: int,
    max_bad: float,
    levels: Levels,
) -> Split:
    labels = None
    if classes is not None:
        labels = np.array(number_classes(map(class_of, files), classes), np.int32)
    encoded = functools.partial(_encoded, str(root / folder), files, levels)
    return Split(
        functools.partial(decode_squares, encoded, side),
        encoded=encoded,
        size=len(files),
        labels=labels,
        names=functools.partial(_names, folder, files),
        stamp=f"names {zlib.crc32(os.fsencode(os.sep.join(files))):08x}",
        max_bad=max_bad,
    )


def _encoded(
    root: str, files: list[str], levels: Levels, indices: np.ndarray
) -> list[Encoded]:
    paths = [os.path.join(root, files[index]) for index in indices]
    return [Encoded(path, path, levels) for path in paths]


def _names(folder: str, files: list[str], indices: np.ndarray) -> list[str]:
    return [as_text(PurePosixPath(folder, files[index])) for index in indices]
