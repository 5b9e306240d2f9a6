"""WebDataset: tars whose files of one name, up to its first dot, are a sample."""

from __future__ import annotations

import functools
import json
import posixpath
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from snclr_jax.data.cached import made_once
from snclr_jax.data.decode import Encoded
from snclr_jax.data.form import RGB, Form
from snclr_jax.data.formats import SUFFIXES
from snclr_jax.data.large_files import find_files
from snclr_jax.data.layout import USUAL, class_of, read_layout, why_not
from snclr_jax.data.rows import class_numbers, open_rows
from snclr_jax.data.split import Split
from snclr_jax.data.tar import leads_out, members

_LABEL = "cls"  # file with the class of a sample, a number or a name
_LONGEST_LABEL = 1024  # bytes of it that are read


class _Sample(NamedTuple):
    """An image, the bytes of a tar that it is, and its class, "" without one."""

    name: str
    offset: int
    size: int
    label: str


def open_webdataset(
    path: str,
    image_size: int,
    *,
    max_bad: float,
    splits: tuple[str, str] = USUAL,
    form: Form = RGB,
) -> tuple[Split, Split | None, tuple[str, ...] | None, tuple[str, ...]]:
    """Opens a folder of tars, or one tar; images are read when they are asked for.

    Where the images lie in a tar is found out once, and kept in the user's cache; no
    tar is unpacked. The class of an image is what its sample's .cls says or, where no
    sample has one, its folder, by the rules of a folder of images without `train`.

    Args:
      path: the folder, or a tar.
      image_size: side s of the decoded images, in pixels.
      max_bad: share of a split's images that may be bad, see `Split`.
      splits: see `large_files.divide`.
      form: see `Encoded`.

    Returns:
      The training split, the test split, the classes' names and notes for a person, as
      `open_folder`.

    Raises:
      ValueError: for a folder without tars or images, a tar that cannot be read or has
        names that lead out of it, and for a cache that cannot be written.
      OSError: where a file cannot be read.
    """
    files = find_files(path, (".tar",), splits)
    train = _Tars(files.root, files.train, form)
    test = _Tars(files.root, files.test, form) if files.test else None
    return open_rows(train, test, side=image_size, max_bad=max_bad, notes=files.notes)


class _Tars:
    """The images of some tars, in their order; see `Rows`."""

    class_names = None  # of numbers

    def __init__(self, root: Path, files: Sequence[str], form: Form) -> None:
        self._root, self._form = str(root), form
        self._files = list(files)
        samples = [_samples(str(root / file)) for file in files]
        self._tar = np.repeat(np.arange(len(files)), list(map(len, samples)))
        self._samples = [sample for of_tar in samples for sample in of_tar]
        self.size = len(self._samples)
        if not self.size:
            raise ValueError(
                f"data.path: no images in {', '.join(files)} of {root}; looked for "
                f"names that end in {', '.join(SUFFIXES)}"
            )

    def encoded(self, indices: np.ndarray) -> list[Encoded]:
        return [
            Encoded(self._read(index), f"{self._root}/{name}", self._form)
            for index, name in zip(indices.tolist(), self.names(indices), strict=True)
        ]

    def names(self, indices: np.ndarray) -> list[str]:
        return [
            f"{self._files[self._tar[index]]}, {self._samples[index].name}"
            for index in indices.tolist()
        ]

    def labels(self) -> np.ndarray | list[str] | None:
        labels = [sample.label for sample in self._samples]
        if not any(labels):
            names = [sample.name for sample in self._samples]
            layout = read_layout(names, (), splits=("", ""), naming="")
            return list(map(class_of, names)) if layout.classes else None
        try:
            numbers = [int(label) if label else None for label in labels]
        except ValueError:
            return labels
        return class_numbers(numbers, f"{self._root}: a .{_LABEL} file")

    def _read(self, index: int) -> bytes:
        sample = self._samples[index]
        with open(posixpath.join(self._root, self._files[self._tar[index]]), "rb") as f:
            f.seek(sample.offset)
            return f.read(sample.size)


def _samples(tar: str) -> list[_Sample]:
    """The images in a tar, from the index that is made once of it."""
    index = Path(made_once(tar, ".json", functools.partial(_write_index, tar)))
    return [_Sample(*each) for each in json.loads(index.read_text(encoding="utf-8"))]


def _write_index(tar: str, out: str) -> None:
    images: dict[str, tuple[str, int, int]] = {}
    labels: dict[str, str] = {}
    try:
        with open(tar, "rb") as file:
            for name, offset, size in members(tar):
                if leads_out(name):
                    raise ValueError(
                        f"{tar}: the name {name!r} leads out of the tar; pack it anew, "
                        "with names below one folder: tar -C FOLDER -cf NAME.tar ."
                    )
                folder, base = posixpath.split(name)
                key, _, kind = base.partition(".")
                key = posixpath.join(folder, key)
                if kind == _LABEL:
                    file.seek(offset)
                    text = file.read(min(size, _LONGEST_LABEL))
                    labels[key] = text.decode("utf-8", "backslashreplace").strip()
                elif not why_not(name) and (
                    key not in images or f".{kind}".lower() in SUFFIXES
                ):
                    images[key] = name, offset, size
    except (tarfile.TarError, RecursionError) as error:
        raise ValueError(
            f"{tar} cannot be read as a tar ({error}); unpack what is compressed "
            "(gunzip), fetch again what is incomplete"
        ) from error
    samples = [(*image, labels.get(key, "")) for key, image in images.items()]
    Path(out).write_text(json.dumps(samples), encoding="utf-8")
