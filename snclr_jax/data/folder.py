"""Image folders: `train/<class>/*` and `test/<class>/*`, or unlabelled images."""

from __future__ import annotations

import functools
import os
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from snclr_jax.data.decode import Encoded, decode_squares, printable
from snclr_jax.data.form import RGB, Form
from snclr_jax.data.formats import FORMATS, SUFFIXES
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
from snclr_jax.data.tiff import count_pages
from snclr_jax.settings.paths import expanded


class Stored(NamedTuple):
    """Where an image lies: a file below the folder of its split, and `Encoded.page`."""

    file: str
    page: int | None = None

    @property
    def name(self) -> str:
        return self.file if self.page is None else f"{self.file}, page {self.page + 1}"


def open_folder(
    path: str,
    image_size: int,
    *,
    max_bad: float,
    splits: tuple[str, str] = USUAL,
    form: Form = RGB,
    pages: str | None,
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
      form: see `Encoded`.
      pages: "all" reads every page of a TIFF as an image; None its first one.

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

    def split(folder: str, files: list[str]) -> Split:
        images = _every_page(root / folder, files) if pages else [*map(Stored, files)]
        of_images = (class_of(image.file) for image in images)
        labels = None if classes is None else number_classes(of_images, classes)
        return split_of_files(
            *(root, folder, images),
            labels=labels,
            side=image_size,
            max_bad=max_bad,
            form=form,
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


def _every_page(folder: Path, files: Sequence[str]) -> list[Stored]:
    images = []
    for file in files:
        tiff = file.lower().endswith(FORMATS["TIFF"])
        count = count_pages(str(folder / file)) if tiff else 1
        images += [Stored(file, page if count > 1 else None) for page in range(count)]
    return images


def split_of_files(
    root: Path,
    folder: str,
    images: list[Stored],
    *,
    labels: Sequence[int] | None,
    side: int,
    max_bad: float,
    form: Form,
) -> Split:
    """Returns the split of images that lie below `root / folder`; see `Split`.

    Args:
      root: of the image set.
      folder: of the split, "" for the root.
      images: in their order.
      labels: one for each, or None.
      side: s of the decoded images, in pixels.
      max_bad: share of the images that may be bad.
      form: see `Encoded`.
    """
    encoded = functools.partial(_encoded, str(root / folder), images, form)
    names = [image.name for image in images]
    return Split(
        functools.partial(decode_squares, encoded, side),
        encoded=encoded,
        size=len(images),
        labels=None if labels is None else np.array(labels, np.int32),
        names=functools.partial(_names, folder, images),
        stamp=f"names {zlib.crc32(os.fsencode(os.sep.join(names))):08x}",
        max_bad=max_bad,
    )


def _encoded(
    root: str, images: list[Stored], form: Form, indices: np.ndarray
) -> list[Encoded]:
    return [
        Encoded(
            os.path.join(root, image.file),
            os.path.join(root, image.name),
            form,
            image.page,
        )
        for image in (images[index] for index in indices)
    ]


def _names(folder: str, images: list[Stored], indices: np.ndarray) -> list[str]:
    return [as_text(PurePosixPath(folder, images[index].name)) for index in indices]
