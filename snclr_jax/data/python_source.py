"""Images that are given in Python: arrays, or whatever has a length and items."""

from __future__ import annotations

import functools
import operator
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from snclr_jax.data.form import RGB, Form
from snclr_jax.data.pixels import pixels_of, to_square
from snclr_jax.data.split import SAMPLE, Split, evenly

NAME = "python"  # what data.name is
_IMAGE_KEYS = ("image", "img")


def named_python(config: ConfigDict) -> ConfigDict:
    """Returns a run's config that says that its images are given in Python."""
    config = config.copy_and_resolve_references()
    config.data.update(name=NAME, path="", tfds_name="")
    return config


def open_python(
    given: Any, image_size: int, *, form: Form = RGB
) -> tuple[Split, Split | None, None]:
    """Opens images that are given in Python.

    A set is one of

      images            an array, uint8 or floats from 0 to 1, (n, h, w), (n, h, w, 1),
                        (n, h, w, 3) or (n, h, w, 4), where images are in color; or
                        anything with a length whose items are what `pixels_of` takes
      (images, labels)  labels are n integers; -1 is unlabelled
      items             anything with a length whose items are (image, label), or
                        {"image": ..., "label": ...}, "img" being as good

    A data set of PyTorch or Hugging Face is such a set as it is. Images may differ in
    size. They are read by several threads, and an item has to be the same each time:
    what is random is drawn by `config.augment`. Labels of items are read with the
    images, or in a pass of their own; where that takes long, give (items, labels). None
    may be bad, whatever `config.data.max_bad` says.

    Args:
      given: a set to train on, or {"train": set, "test": set}; the second one is
        evaluated on.
      image_size: side s that images are brought to, as those of a folder are.
      form: see `Encoded`; its levels are of PIL images.

    Returns:
      The training split, the test split or None, and None, since no class has a name.

    Raises:
      ValueError: where it is no such set; names the image and the fix.
    """
    if given is None:
        raise ValueError(
            f"data.name is {NAME!r}: the images came from Python and are not kept; "
            "give them as data= of train(), evaluate() or report() in Python, or name "
            "others with --config.data.name and --config.data.path"
        )
    sets = given if isinstance(given, Mapping) else {"train": given}
    if "train" not in sets or not set(sets) <= {"train", "test"}:
        raise ValueError(
            f"data= has the keys {sorted(map(str, sets))}; give 'train' and, to "
            "evaluate on, 'test'"
        )
    splits = {
        name: _split(name, images, image_size, form) for name, images in sets.items()
    }
    return splits["train"], splits.get("test"), None


def _split(name: str, given: Any, side: int, form: Form) -> Split:
    items = _Items(name, given, form)
    labels = functools.partial(_read_labels, items) if items.labelled else None
    return Split(
        functools.partial(_squares, items, side),
        encoded=functools.partial(_originals, items),
        size=len(items),
        labels=labels,
        names=name,
        stamp=f"content {items.digest():08x}",
    )


class _Items:
    """The images of a set, and their labels, by number.

    Args:
      name: of the set, "train" or "test".
      given: the set.
      form: see `Encoded`.

    Attributes:
      labelled: whether there are labels.
    """

    def __init__(self, name: str, given: Any, form: Form) -> None:
        pair = isinstance(given, tuple) and len(given) == 2
        self._items, self._labels = given if pair else (given, None)
        self._name, self._form = name, form
        self._known: dict[int, int] = {}  # labels that came with images
        lacks = {"__len__", "__getitem__"} - set(dir(self._items))
        if lacks or not len(self._items):
            what = "is empty" if not lacks else f"is a {type(self._items).__name__}"
            raise ValueError(
                f"data= ({name}) {what}; give an array (n, h, w, 3), or images with "
                "len() and [i], such as a list"
            )
        if self._labels is not None and len(self._labels) != len(self):
            raise ValueError(
                f"data= ({name}) has {len(self)} images and {len(self._labels)} "
                "labels; give a label for each image"
            )
        self.labelled = self._labels is not None or self._read(0)[1] is not None

    def __len__(self) -> int:
        return len(self._items)

    def image(self, number: int) -> np.ndarray:
        """Returns an image in its own size, uint8 (h, w, c)."""
        image, label = self._read(number)
        if self.labelled:
            self._known[number] = self._checked(number, label)
        return pixels_of(image, self._call(number), self._form)

    def label(self, number: int) -> int:
        if number not in self._known:
            self._known[number] = self._checked(number, self._read(number)[1])
        return self._known[number]

    def digest(self) -> int:
        """Returns a number that follows from images all over the set, and their labels.

        Raises:
          ValueError: where one of them is no image, or another one when it is read
            again.
        """
        crc = 0
        for number in evenly(len(self), SAMPLE).tolist():
            image = self.image(number)
            if number == 0 and not np.array_equal(image, self.image(number)):
                raise ValueError(
                    f"{self._call(number)} differs each time it is read; leave random "
                    "changes out of the data, config.augment draws them"
                )
            label = self.label(number) if self.labelled else None
            crc = zlib.crc32(repr((image.shape, label)).encode(), crc)
            crc = zlib.crc32(image.tobytes(), crc)
        return crc

    def _read(self, number: int) -> tuple[Any, Any]:
        """Returns what an item holds: an image, and a label or None."""
        item, label = self._items[number], None
        if isinstance(item, Mapping):
            key = next((key for key in _IMAGE_KEYS if key in item), None)
            if key is None:
                raise ValueError(
                    f"{self._call(number)} has the keys {sorted(map(str, item))}; name "
                    "the image 'image' or 'img'"
                )
            item, label = item[key], item.get("label")
        elif isinstance(item, tuple | list) and len(item) == 2:
            item, label = item
        return item, label if self._labels is None else self._labels[number]

    def _checked(self, number: int, label: Any) -> int:
        try:
            return operator.index(label)
        except TypeError as error:
            raise ValueError(
                f"{self._call(number)} has the label {label!r}; labels are integers, "
                "and -1 is unlabelled"
            ) from error

    def _call(self, number: int) -> str:
        return f"data= ({self._name}): image {number}"


def _squares(items: _Items, side: int, indices: np.ndarray) -> np.ndarray:
    return np.stack([to_square(image, side) for image in _originals(items, indices)])


def _originals(items: _Items, indices: np.ndarray) -> list[np.ndarray]:
    return [items.image(number) for number in indices.tolist()]


def _read_labels(items: _Items, rows: range) -> np.ndarray:
    return np.array([items.label(number) for number in rows], np.int32)
