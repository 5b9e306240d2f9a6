"""Where the images that `snclr prepare` writes come from: folders and tars.

Nothing is unpacked: an encoded image is a run of bytes in a file, its own or a tar. No
link inside a tar is followed, and no name in it becomes a path of this computer.
"""

from __future__ import annotations

import os
import re
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from snclr_jax.data.formats import SUFFIXES
from snclr_jax.data.layout import (
    TRAIN,
    class_of,
    notes_on_test,
    number_classes,
    read_layout,
    top_folders,
    walk,
    why_not,
)
from snclr_jax.data.layout import passed_over as count_passed_over
from snclr_jax.data.tar import leads_out, members
from snclr_jax.run.files import read_lines
from snclr_jax.settings.paths import expanded

_IMAGENET_TEST = re.compile(r"ILSVRC2012_val_(000[0-4]\d{4}|00050000)\.JPEG")


class EncodedImage(NamedTuple):
    """An image of a split, and where its bytes lie."""

    name: str  # path below the folder of its split, "/" between folders
    file: str  # its own, or a tar
    offset: int  # of its first byte in `file`; 0 in its own file alone
    size: int  # bytes; 0 where it is no file: nothing is read then
    label: int = -1  # -1 where it has no class

    @property
    def location(self) -> str:
        """Where a person finds it."""
        return self.file if self.offset == 0 else f"{self.file}: {self.name}"


class Source(NamedTuple):
    """What `snclr prepare` will write."""

    splits: dict[str, list[EncodedImage]]  # "train", and "test" where there is one
    classes: tuple[str, ...] | None  # in the order of the labels
    passed_over: list[tuple[str, str]]  # (location, reason) of files that are not read
    notes: list[str]  # what a person may not have meant, a sentence each


def open_source(source: str, source_test: str = "", test_labels: str = "") -> Source:
    """Finds the images of a source, in the order of their names; reads none of them.

    `source` alone is laid out as `data/layout.py` says. With `source_test`, `source` is
    what `train` would be, and `source_test` what `test` would be. A tar stands for the
    folder that was packed, with or without that folder's own name; a tar inside a tar
    for a folder.

    Args:
      source: a folder, or a tar that is not compressed.
      source_test: the same, or "".
      test_labels: file with the class of each test image, one a line, in the order of
        the images' names; "" takes it from the folder of the image or, for the names
        of ImageNet's validation images, from the list that TFDS brings.

    Returns:
      The splits; labels number the classes in the order of their names.

    Raises:
      ValueError: for a source that is missing, damaged or without images, and for a
        `source_test` of which no image can be scored.
      OSError: where a file cannot be read.
    """
    passed_over: list[tuple[str, str]] = []
    if source_test:
        train = _find_images("source", source, passed_over)
        test = _find_images("source_test", source_test, passed_over)
        classes = tuple(sorted(set(_classes_of(train)) - {""})) or None
        notes: list[str] = []
    else:
        train, test, classes, notes = _divide(source, passed_over)
    if classes is None and (source_test or test_labels):
        raise ValueError(
            f"--source={source} has no class folders, so that test images cannot be "
            "scored; leave out --source_test and --test_labels"
        )
    if test is None and test_labels:
        raise ValueError(
            f"--test_labels={test_labels}, but --source={source} has no test images; "
            "name them by --source_test"
        )
    if others := count_passed_over(reason for _, reason in passed_over):
        notes.append(f"passed over {others}")
    if classes is None:
        return Source({"train": train}, None, passed_over, notes)
    names = _checked_names(classes)
    splits = {"train": _number(train, _classes_of(train), names)}
    if test is not None:
        test_classes = _test_classes(test, test_labels)
        if source_test:
            _check_test(names, test, test_classes)
        notes += notes_on_test([i.name for i in test], test_classes, names)
        splits["test"] = _number(test, test_classes, names)
    return Source(splits, names, passed_over, notes)


def _divide(
    source: str, passed_over: list[tuple[str, str]]
) -> tuple[
    list[EncodedImage], list[EncodedImage] | None, tuple[str, ...] | None, list[str]
]:
    """Returns training and test images, classes and notes of a whole set."""
    images = _find_images("source", source, passed_over, keep=TRAIN)
    names, root = [image.name for image in images], expanded(source)
    if os.path.isdir(root):
        folders = top_folders(Path(root))
    else:
        folders = {name.split("/", 1)[0] for name in names if "/" in name}
    layout = read_layout(names, folders, naming="--source and --source_test")
    train = _below(images, layout.train)
    if not train:
        raise ValueError(
            f"--source={source} holds no images in {layout.train}; looked for names "
            f"that end in {', '.join(SUFFIXES)}"
        )
    test = None if layout.test is None else _below(images, layout.test)
    used = [folder for folder in (layout.train, layout.test) if folder]
    if used:
        passed_over += [
            (image.location, f"outside {' and '.join(used)}")
            for image in images
            if not image.name.startswith(tuple(f"{folder}/" for folder in used))
        ]
    return train, test, layout.classes, layout.notes


def _find_images(
    flag: str,
    path: str,
    passed_over: list[tuple[str, str]],
    keep: tuple[str, ...] = (),
) -> list[EncodedImage]:
    root = expanded(path)
    is_tar = os.path.isfile(root)
    if is_tar:
        found = (EncodedImage(m.name, root, m.offset, m.size) for m in members(root))
    elif os.path.isdir(root):
        found = _files(root, passed_over)
    else:
        raise ValueError(
            f"--{flag}={path} does not exist; give a folder of images or a tar"
        )
    images = []
    try:
        for image in found:
            if is_tar and leads_out(image.name):
                # Nothing here would follow it; who unpacks the set by it might.
                passed_over.append((image.location, "its name leads out of the tar"))
            elif reason := why_not(image.name):
                passed_over.append((image.location, reason))
            else:
                images.append(image)
    except (tarfile.TarError, RecursionError) as error:
        raise ValueError(
            f"--{flag}={path} cannot be read as a tar ({error}); unpack it first "
            "where it is compressed, fetch it again where it is incomplete"
        ) from error
    if not images:
        raise ValueError(
            f"--{flag}={path} holds no images; looked for names that end in "
            f"{', '.join(SUFFIXES)}"
        )
    return sorted(_without_top(images, keep) if is_tar else images)


def _files(root: str, passed_over: list[tuple[str, str]]) -> Iterator[EncodedImage]:
    for name, reason in walk(Path(root)):
        path = os.path.join(root, name)
        if reason:
            passed_over.append((path, reason))
            continue
        try:
            status = os.stat(path)
            size = status.st_size if stat.S_ISREG(status.st_mode) else 0
        except FileNotFoundError:  # a link to nothing, unreadable as an empty file
            size = 0
        yield EncodedImage(name, path, 0, size)


def _without_top(
    images: list[EncodedImage], keep: tuple[str, ...]
) -> list[EncodedImage]:
    """Takes away the packed folder's own name; one that holds images itself stays."""
    top = images[0].name.split("/", 1)[0]
    if top.lower() in keep or not all(
        image.name.startswith(f"{top}/") and image.name.count("/") > 1
        for image in images
    ):
        return images
    return _below(images, top)


def _below(images: list[EncodedImage], folder: str) -> list[EncodedImage]:
    prefix = f"{folder}/" if folder else ""
    return [
        image._replace(name=image.name.removeprefix(prefix))
        for image in images
        if image.name.startswith(prefix)
    ]


def _checked_names(classes: tuple[str, ...]) -> tuple[str, ...]:
    for name in classes:
        if not name.isprintable() or name != name.strip():
            # TFDS keeps the names one a line, stripped.
            raise ValueError(f"class folder {name!r}: rename it, to plain characters")
    return classes


def _number(
    images: list[EncodedImage], classes: list[str], names: tuple[str, ...]
) -> list[EncodedImage]:
    labels = number_classes(classes, names)
    return [
        image._replace(label=label) for image, label in zip(images, labels, strict=True)
    ]


def _classes_of(images: list[EncodedImage]) -> list[str]:
    return [class_of(image.name) for image in images]


def _test_classes(test: list[EncodedImage], test_labels: str) -> list[str]:
    if test_labels:
        lines = read_lines(Path(expanded(test_labels)))
        if len(lines) != len(test):
            raise ValueError(
                f"--test_labels={test_labels} has {len(lines)} lines for {len(test)} "
                "test images; give the class of each, in the order of their names"
            )
        return [line.strip() for line in lines]
    if all(_IMAGENET_TEST.fullmatch(image.name) for image in test):
        import tensorflow_datasets as tfds  # takes seconds

        path = tfds.core.tfds_path("datasets/imagenet2012/validation_labels.txt")
        lines = path.read_text(encoding="utf-8").split()
        matches = map(_IMAGENET_TEST.fullmatch, (i.name for i in test))
        return [lines[int(match[1]) - 1] for match in matches if match]
    return _classes_of(test)


def _check_test(
    names: tuple[str, ...], test: list[EncodedImage], classes: list[str]
) -> None:
    """Raises ValueError where no test image that was asked for can be scored."""
    if not any(classes):
        raise ValueError(
            f"the test images have no class folders ({test[0].location}, ...), the "
            "training images have; sort them into classes, or list the class of each "
            "in a file for --test_labels"
        )
    if not set(names) & set(classes):
        raise ValueError(
            f"no class of the test images {sorted(set(classes))[:5]} is one of the "
            f"training images {list(names[:5])}; give both the same names"
        )
