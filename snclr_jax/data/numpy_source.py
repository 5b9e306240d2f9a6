"""Arrays of images in .npy and .npz files, read through memory maps."""

from __future__ import annotations

import functools
import shutil
import zipfile
from pathlib import Path, PurePosixPath

import numpy as np

from snclr_jax.data.cached import made_once
from snclr_jax.data.decode import Encoded
from snclr_jax.data.form import RGB, Form
from snclr_jax.data.large_files import divide, find_files
from snclr_jax.data.layout import USUAL
from snclr_jax.data.pixels import pixels_of
from snclr_jax.data.rows import class_numbers, open_rows
from snclr_jax.data.split import Split

SUFFIXES = (".npy", ".npz")


def open_numpy(
    path: str,
    image_size: int,
    *,
    max_bad: float,
    splits: tuple[str, str] = USUAL,
    form: Form = RGB,
) -> tuple[Split, Split | None, tuple[str, ...] | None, tuple[str, ...]]:
    """Opens a folder of arrays, or one file; images are read when they are asked for.

    An array of three or four axes holds images, as `open_python` takes them; one of
    integers, of one axis or of (n, 1), holds their labels. Arrays of one split belong
    together: x_train and y_train of an .npz file, or train_images.npy and
    train_labels.npy. What an .npz file holds is copied once, to the user's cache.

    Args:
      path: the folder, or a file.
      image_size: side s of the decoded images, in pixels.
      max_bad: share of a split's images that may be bad, see `Split`.
      splits: see `large_files.divide`, of the arrays' names.
      form: see `Encoded`.

    Returns:
      The training split, the test split, None, since no class has a name, and notes for
      a person.

    Raises:
      ValueError: for a folder without arrays, arrays that are no images or belong to
        none, and for a cache that cannot be written.
      OSError: where a file cannot be read.
    """
    # Words of names are parted within files, so files are not divided by splits.
    files = find_files(path, SUFFIXES, ("", ""))
    stored = {
        name: array
        for file in files.train
        for name, array in _arrays(files.root, file).items()
    }
    train_names, test_names, notes = divide(sorted(stored), splits)
    train = _Images({name: stored[name] for name in train_names}, form)
    test = None
    if test_names:
        test = _Images({name: stored[name] for name in test_names}, form)
    return open_rows(train, test, side=image_size, max_bad=max_bad, notes=notes)


class _Images:
    """The images of one split, and their labels; see `Rows`.

    Args:
      stored: paths of .npy files by the arrays' names.
      form: see `Encoded`.
    """

    class_names = None

    def __init__(self, stored: dict[str, str], form: Form) -> None:
        self._form = form
        _array.cache_clear()  # a file may have been written anew
        shapes = {name: _array(file).shape for name, file in stored.items()}
        listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        images = [name for name, shape in shapes.items() if len(shape) in (3, 4)]
        if len(images) != 1:
            raise ValueError(
                f"data.path has {len(images) or 'no'} arrays of images in one split, "
                f"and one is needed, of shape (n, h, w) or (n, h, w, 3); its arrays "
                f"are {listed}; give each split one array, called by data.train_split "
                "and data.test_split"
            )
        (self._name,) = images
        self._file, self.size = stored[self._name], shapes[self._name][0]
        if not self.size:
            raise ValueError(f"data.path: {self._name} holds no images; give some")
        labels = [
            name
            for name, shape in shapes.items()
            if shape in ((self.size,), (self.size, 1))
            and _array(stored[name]).dtype.kind in "iub"
        ]
        others = [f"{n} {s}" for n, s in shapes.items() if n not in images + labels]
        if others or len(labels) > 1:
            raise ValueError(
                f"data.path: beside {self.size} images in {self._name}, "
                f"{', '.join(others or labels)} cannot be their labels; give one array "
                f"of {self.size} integers, and leave out others"
            )
        self._labels = stored[labels[0]] if labels else None
        # What is wrong with all of them stops before anything is computed.
        first = np.zeros_like(_array(self._file)[0])
        pixels_of(first, f"data.path: {self._name}", form)

    def encoded(self, indices: np.ndarray) -> list[Encoded]:
        images = _array(self._file)
        return [
            Encoded(np.asarray(images[index]), name, self._form)
            for index, name in zip(indices.tolist(), self.names(indices), strict=True)
        ]

    def names(self, indices: np.ndarray) -> list[str]:
        return [f"{self._name}, image {index}" for index in indices.tolist()]

    def labels(self) -> np.ndarray | None:
        if self._labels is None:
            return None
        return class_numbers(_array(self._labels).ravel().tolist(), self._labels)


def _arrays(root: Path, file: str) -> dict[str, str]:
    """The .npy files that hold a file's arrays, by the arrays' names."""
    whole, stem = str(root / file), PurePosixPath(file).with_suffix("").as_posix()
    if file.lower().endswith(".npy"):
        return {stem: whole}
    try:
        with zipfile.ZipFile(whole) as archive:
            members = [n for n in archive.namelist() if n.endswith(".npy")]
    except zipfile.BadZipFile as error:
        raise _damaged(whole, error) from error
    return {
        f"{stem}/{member.removesuffix('.npy')}": made_once(
            whole, f"-{_plain(member)}", functools.partial(_extract, whole, member)
        )
        for member in members
    }


def _extract(file: str, member: str, out: str) -> None:
    try:
        with zipfile.ZipFile(file) as archive, archive.open(member) as stored:
            with open(out, "wb") as opened:
                shutil.copyfileobj(stored, opened)
    except zipfile.BadZipFile as error:
        raise _damaged(file, error) from error


@functools.cache  # of each process: a map costs no memory
def _array(file: str) -> np.ndarray:
    """An array, through a memory map."""
    try:
        return np.lib.format.open_memmap(file, mode="r")
    except ValueError as error:
        raise _damaged(file, error) from error


def _damaged(file: str, error: Exception) -> ValueError:
    return ValueError(
        f"{file} cannot be read as arrays ({error}); save arrays of numbers by "
        "np.save or np.savez, or fetch the file again"
    )


def _plain(member: str) -> str:
    return "".join(c if c.isalnum() or c in "._" else "-" for c in member)
