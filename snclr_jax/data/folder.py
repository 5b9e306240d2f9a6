"""Image folders: `train/<class>/*` and `test/<class>/*`, or unlabelled images."""

from __future__ import annotations

import functools
import os
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from snclr_jax.data.decode import Encoded, decode_squares, printable
from snclr_jax.data.split import Split
from snclr_jax.run.paths import expanded

SUFFIXES = (".jpeg", ".jpg", ".png", ".webp")


def open_folder(
    path: str, image_size: int, *, max_bad: float
) -> tuple[Split, Split | None, tuple[str, ...] | None]:
    """Opens an image folder; images are decoded when they are asked for.

    With a `train` folder, the folder below it is an image's class, and `test`, or `val`
    where there is no `test`, is the test split. Without one, and where `train` has no
    class folders, every image found is an unlabelled training image. Images are in the
    order of their paths, however deep they lie; hidden files are passed over.

    Args:
      path: root of the folder.
      image_size: side s of the decoded images, in pixels.
      max_bad: share of a split's images that may be bad, see `Split`.

    Returns:
      The training split, the test split and the classes' names in the order of their
      labels; the last two are None for unlabelled images.

    Raises:
      ValueError: for a folder that is missing or without images, and for class folders
        that are missing here and there or differ between training and test.
      OSError: where a folder cannot be listed.
    """
    root = Path(expanded(path))
    if not path or not root.is_dir():
        raise ValueError(
            f"data.path is {path!r}, which is not a folder; give the folder that holds "
            "train/<class>/ or the images"
        )
    split = functools.partial(_split, root, side=image_size, max_bad=max_bad)
    if not (root / "train").is_dir():
        return split("", _find_images(root), None), None, None
    files = _find_images(root / "train")
    classes = _class_names(root / "train", files)
    train = split("train", files, classes)
    test = next((name for name in ("test", "val") if (root / name).is_dir()), None)
    names = classes and tuple(printable(_as_text(name)) for name in classes)
    if classes is None or test is None:
        return train, None, names
    files = _find_images(root / test)
    _check_classes(
        root / "train", classes, root / test, _class_names(root / test, files)
    )
    return train, split(test, files, classes), names


def _find_images(root: Path) -> list[str]:
    """Paths below `root`, relative to it, with "/" between folders, sorted."""
    paths = []
    # Links are followed: subsets are often made of links to the folders of a large set.
    for folder, folders, files in os.walk(root, onerror=_stop, followlinks=True):
        refuse_loops(folder, folders)
        below = Path(folder).relative_to(root)
        paths += [
            (below / file).as_posix()
            for file in files
            if file.lower().endswith(SUFFIXES) and not file.startswith(".")
        ]
    if not paths:
        raise ValueError(
            f"data.path: no images under {root}; looked for files that end in "
            f"{', '.join(SUFFIXES)}"
        )
    return sorted(paths)


def refuse_loops(folder: str, folders: list[str]) -> None:
    """Raises ValueError where one of the folders in `folder` is a link back up.

    What lies in it would be found again and again, as images of other classes.
    """
    for path in (Path(folder, name).absolute() for name in folders):
        if path.is_symlink() and any(path.samefile(above) for above in path.parents):
            raise ValueError(
                f"{path} is a link to a folder that it lies in; remove the link"
            )


def _stop(error: OSError) -> None:
    """Left to itself, os.walk would pass over a folder that it cannot list."""
    raise error


def _class_names(root: Path, files: Sequence[str]) -> tuple[str, ...] | None:
    loose = [file for file in files if "/" not in file]
    if len(loose) == len(files):
        return None
    if loose:
        raise ValueError(
            f"data.path: {root} holds class folders and, beside them, {len(loose)} "
            f"images ({loose[0]}, ...); move them into a class folder, or remove them"
        )
    return tuple(sorted({file.split("/", 1)[0] for file in files}))


def _check_classes(
    train_root: Path,
    train: tuple[str, ...],
    test_root: Path,
    test: tuple[str, ...] | None,
) -> None:
    if test is None:
        raise ValueError(
            f"data.path: {test_root} has no class folders, {train_root} has "
            f"{len(train)}; sort the test images into classes, or rename the folder"
        )
    if train != test:
        only_train = sorted(set(train) - set(test))
        only_test = sorted(set(test) - set(train))
        raise ValueError(
            f"data.path: the classes of {train_root} and {test_root} differ: "
            f"{len(only_train)} only in the first {only_train[:5]}, {len(only_test)} "
            f"only in the second {only_test[:5]}; a class needs images in both"
        )


def _split(
    root: Path,
    below: str,
    files: list[str],
    classes: tuple[str, ...] | None,
    *,
    side: int,
    max_bad: float,
) -> Split:
    labels = None
    if classes is not None:
        number = {name: label for label, name in enumerate(classes)}
        labels = np.array([number[f.split("/", 1)[0]] for f in files], np.int32)
    encoded = functools.partial(_encoded, str(root / below), files)
    return Split(
        functools.partial(decode_squares, encoded, side),
        encoded=encoded,
        size=len(files),
        labels=labels,
        names=functools.partial(_names, below, files),
        stamp=f"names {zlib.crc32(os.fsencode(os.sep.join(files))):08x}",
        max_bad=max_bad,
    )


def _encoded(root: str, files: list[str], indices: np.ndarray) -> list[Encoded]:
    paths = [os.path.join(root, files[index]) for index in indices]
    return [Encoded(path, name=path) for path in paths]


def _names(below: str, files: list[str], indices: np.ndarray) -> list[str]:
    return [_as_text(PurePosixPath(below, files[index])) for index in indices]


def _as_text(name: os.PathLike | str) -> str:
    """A name that is not UTF-8 could be neither printed nor written to a file."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
