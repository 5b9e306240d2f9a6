"""Where the images that `snclr prepare` writes come from: folders and tars.

Nothing is unpacked: an encoded image is a run of bytes in a file, its own or a tar. No
link inside a tar is followed, and no name in it becomes a path of this computer.
"""

from __future__ import annotations

import os
import posixpath
import re
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from snclr_jax.data.folder import SUFFIXES, refuse_loops
from snclr_jax.run.files import read_lines
from snclr_jax.run.paths import expanded

_IMAGENET_TEST = re.compile(r"ILSVRC2012_val_(000[0-4]\d{4}|00050000)\.JPEG")


class EncodedImage(NamedTuple):
    """An image of a split, and where its bytes lie."""

    name: str  # path below the folder of its split, "/" between folders
    file: str  # its own, or a tar
    offset: int  # of its first byte in `file`; 0 in its own file alone
    size: int  # bytes; 0 where it is no file: nothing is read then
    label: int = -1  # -1 in an unlabelled set

    @property
    def location(self) -> str:
        """Where a person finds it."""
        return self.file if self.offset == 0 else f"{self.file}: {self.name}"


class Source(NamedTuple):
    """What `snclr prepare` will write."""

    splits: dict[str, list[EncodedImage]]  # "train", and "test" where there is one
    classes: tuple[str, ...] | None  # in the order of the labels
    passed_over: list[tuple[str, str]]  # (location, reason) of files that are not read


def open_source(source: str, source_test: str = "", test_labels: str = "") -> Source:
    """Finds the images of a source, in the order of their names; reads none of them.

    `source` alone is laid out as `data/folder.py` says: `train/<class>/*` with `test`
    or `val`, else unlabelled images. With `source_test`, `source` is what `train` would
    be, and `source_test` what `test` would be. A tar stands for the folder that was
    packed, with or without that folder's own name; a tar inside a tar for a folder.

    Args:
      source: a folder, or a tar that is not compressed.
      source_test: the same, or "".
      test_labels: file with the class of each test image, one a line, in the order of
        the images' names; "" takes it from the folder of the image or, for the names
        of ImageNet's validation images, from the list that TFDS brings.

    Returns:
      The splits; labels number the classes in the order of their names.

    Raises:
      ValueError: for a source that is missing, damaged or without images, and for
        classes that are missing here and there or differ between the splits.
      OSError: where a file cannot be read.
    """
    passed_over: list[tuple[str, str]] = []
    test = None
    if source_test:
        train = _find_images("source", source, passed_over)
        test = _find_images("source_test", source_test, passed_over)
        classes = _class_folders(train)
    else:
        train = _find_images("source", source, passed_over, keep="train")
        if any(image.name.startswith("train/") for image in train):
            train, test = _divide(train, passed_over)
            classes = _class_folders(train)
        else:  # as in an image folder, a folder is a class below `train` alone
            classes = _class_folders(train) if _holds_tars(source) else None
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
    if classes is None:
        passed_over += [
            (image.location, "no classes to train on") for image in test or ()
        ]
        return Source({"train": train}, None, passed_over)
    names = _class_names(classes)
    splits = {"train": _number(train, classes, names)}
    if test is not None:
        test_classes = _test_classes(test, test_labels)
        _check_same(names, test_classes)
        splits["test"] = _number(test, test_classes, names)
    return Source(splits, names, passed_over)


def _find_images(
    flag: str, path: str, passed_over: list[tuple[str, str]], keep: str = ""
) -> list[EncodedImage]:
    root = expanded(path)
    is_tar = os.path.isfile(root)
    if is_tar:
        members = _members(root, 0, os.path.getsize(root))
    elif os.path.isdir(root):
        members = _files(root)
    else:
        raise ValueError(
            f"--{flag}={path} does not exist; give a folder of images or a tar"
        )
    images = []
    try:
        for image in members:
            base = posixpath.basename(image.name)
            if is_tar and {"", ".."} & set(image.name.split("/")):
                # Nothing here would follow it; who unpacks the set by it might.
                passed_over.append((image.location, "its name leads out of the tar"))
                continue
            if base.startswith("."):
                continue
            if base.lower().endswith(SUFFIXES):
                images.append(image)
            else:
                passed_over.append((image.location, "not the suffix of an image"))
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


def _files(root: str) -> Iterator[EncodedImage]:
    def stop(error: OSError) -> None:  # os.walk would pass over the folder
        raise error

    for folder, folders, files in os.walk(root, onerror=stop, followlinks=True):
        refuse_loops(folder, folders)
        below = os.path.relpath(folder, root).replace(os.sep, "/")
        for file in files:
            name = file if below == "." else f"{below}/{file}"
            path = os.path.join(folder, file)
            try:
                status = os.stat(path)
                size = status.st_size if stat.S_ISREG(status.st_mode) else 0
            except FileNotFoundError:  # a link to nothing, unreadable as an empty file
                size = 0
            yield EncodedImage(name, path, 0, size)


def _members(
    file: str, start: int, end: int, below: str = ""
) -> Iterator[EncodedImage]:
    """The files in the tar that is bytes [start, end) of `file`."""
    with open(file, "rb") as stream:
        stream.seek(start)
        with tarfile.open(fileobj=stream, mode="r:") as tar:
            for member in tar:
                if member.offset >= end:  # an inner tar may lack its last blocks
                    return
                # A link has no bytes, and those of a sparse file have gaps.
                plain = member.isreg() and not member.issparse()
                size = member.size if plain else 0
                first, last = member.offset_data, member.offset_data + size
                if last > end:
                    raise tarfile.ReadError(f"{below}{member.name} is cut off")
                name = below + posixpath.normpath(member.name)
                if plain and name.endswith(".tar"):
                    inner = name.removesuffix(".tar") + "/"
                    yield from _members(file, first, last, inner)
                elif not member.isdir():
                    yield EncodedImage(name, file, first, size)


def _holds_tars(path: str) -> bool:
    path = expanded(path)
    if os.path.isdir(path):
        return False
    with tarfile.open(path, mode="r:") as tar:
        return next((m.name.endswith(".tar") for m in tar if m.isreg()), False)


def _without_top(images: list[EncodedImage], keep: str) -> list[EncodedImage]:
    """Takes away the packed folder's own name; one that holds images itself stays."""
    top = images[0].name.split("/", 1)[0]
    if top == keep or not all(
        image.name.startswith(f"{top}/") and image.name.count("/") > 1
        for image in images
    ):
        return images
    return _below(images, top)


def _below(images: list[EncodedImage], folder: str) -> list[EncodedImage]:
    prefix = f"{folder}/"
    return [
        image._replace(name=image.name.removeprefix(prefix))
        for image in images
        if image.name.startswith(prefix)
    ]


def _divide(
    images: list[EncodedImage], passed_over: list[tuple[str, str]]
) -> tuple[list[EncodedImage], list[EncodedImage] | None]:
    tops = {image.name.split("/", 1)[0] for image in images if "/" in image.name}
    used = ["train", *[name for name in ("test", "val") if name in tops][:1]]
    for image in images:
        if not image.name.startswith(tuple(f"{name}/" for name in used)):
            passed_over.append((image.location, f"outside {' and '.join(used)}"))
    train, *test = (_below(images, name) for name in used)
    return train, test[0] if test else None


def _class_names(classes: list[str]) -> tuple[str, ...]:
    names = sorted(set(classes))
    for name in names:
        if not name.isprintable() or name != name.strip():
            # TFDS keeps the names one a line, stripped.
            raise ValueError(f"class folder {name!r}: rename it, to plain characters")
    return tuple(names)


def _number(
    images: list[EncodedImage], classes: list[str], names: tuple[str, ...]
) -> list[EncodedImage]:
    label = {name: number for number, name in enumerate(names)}
    return [
        image._replace(label=label[name])
        for image, name in zip(images, classes, strict=True)
    ]


def _class_folders(images: list[EncodedImage]) -> list[str] | None:
    loose = [image for image in images if "/" not in image.name]
    if len(loose) == len(images):
        return None
    if loose:
        raise ValueError(
            f"{len(loose)} images lie beside class folders ({loose[0].location}, ...); "
            "move them into a class folder, or remove them"
        )
    return [image.name.split("/", 1)[0] for image in images]


def _test_classes(test: list[EncodedImage], test_labels: str) -> list[str]:
    if test_labels:
        lines = read_lines(Path(expanded(test_labels)))
        if len(lines) != len(test):
            raise ValueError(
                f"--test_labels={test_labels} has {len(lines)} lines for {len(test)} "
                "test images; give the class of each, in the order of their names"
            )
        return [line.strip() for line in lines]
    classes = _class_folders(test)
    if classes is None and all(_IMAGENET_TEST.fullmatch(i.name) for i in test):
        import tensorflow_datasets as tfds  # takes seconds

        path = tfds.core.tfds_path("datasets/imagenet2012/validation_labels.txt")
        lines = path.read_text(encoding="utf-8").split()
        matches = map(_IMAGENET_TEST.fullmatch, (i.name for i in test))
        return [lines[int(match[1]) - 1] for match in matches if match]
    if classes is None:
        raise ValueError(
            f"the test images have no class folders ({test[0].location}, ...), the "
            "training images have; sort them into classes, or list the class of each "
            "in a file for --test_labels"
        )
    return classes


def _check_same(names: tuple[str, ...], test: list[str]) -> None:
    only_train = sorted(set(names) - set(test))
    only_test = sorted(set(test) - set(names))
    if only_train or only_test:
        raise ValueError(
            f"the classes of training and test images differ: {len(only_train)} only "
            f"in training {only_train[:5]}, {len(only_test)} only in the test "
            f"{only_test[:5]}; a class needs images in both"
        )
