"""Folders of images with a mask each, which says of every pixel what it shows."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict
from PIL import Image, ImageOps

from snclr_jax.data.decode import (
    Encoded,
    UnreadableImage,
    decode_squares,
    open_image,
    printable,
    stored_values,
    unreadable,
)
from snclr_jax.data.form import Form
from snclr_jax.data.formats import SUFFIXES
from snclr_jax.data.layout import TEST, TRAIN, as_text, named, top_folders, walk
from snclr_jax.data.split import Split
from snclr_jax.data.upright import upright_shape
from snclr_jax.settings.paths import expanded

IGNORED = 255  # the label of pixels that do not count, as in Pascal VOC
SUFFIX = ".png"  # of a mask
IMAGES, MASKS = "images", "masks"  # folders of a split
# Pillow's modes of one label a pixel, and how it unpacks fewer bits of gray: scaled.
_MODES, _SCALED = ("1", "L", "P"), ("L;2", "L;4")


class Masked(NamedTuple):
    """One split.

    Attributes:
      folder: where its masks lie.
      images: the images as an encoder is given them, uint8 (b, s, s, 3).
      masks: the same rows' labels of what an encoder sees, uint8 (b, v, v).
    """

    folder: str
    images: Split
    masks: Split


def open_masks(path: str | os.PathLike, config: ConfigDict) -> tuple[Masked, Masked]:
    """Opens `train` and `test` of a folder: IMAGES/NAME.jpg with MASKS/NAME.png.

    Splits may have the other names of `TRAIN` and `TEST`, images any suffix of an
    image, and lie in folders. Masks without an image are passed over.

    Args:
      path: of the folder.
      config: of a run; reads `data.image_size`, `data.range` and `augment.size`.

    Returns:
      The training and the test split; both are read when they are asked for.

    Raises:
      ValueError: where a split, an image or the mask of one is missing. Reading raises
        it for what cannot be decoded, for a mask that is not of one 8-bit label a pixel
        and for one of another size than its image.
      OSError: where a folder cannot be listed.
    """
    root = Path(expanded(path))
    if not root.is_dir():
        raise ValueError(
            f"--masks={root} is not a folder; give the one that holds {TRAIN[0]}/ and "
            f"{TEST[0]}/, each with {IMAGES}/ and {MASKS}/"
        )
    folders = top_folders(root)
    train, test = (
        _open_split(root / (*named(folders, names), names[0])[0], config)
        for names in (TRAIN, TEST)
    )
    return train, test


def _open_split(folder: Path, config: ConfigDict) -> Masked:
    images, masks = folder / IMAGES, folder / MASKS
    for each in (images, masks):
        if not each.is_dir():
            raise ValueError(
                f"--masks: there is no folder {each}; put images into {images} and "
                f"the mask of each, of the same name and {SUFFIX}, into {masks}"
            )
    names = sorted(name for name, reason in walk(images) if not reason)
    if not names:
        raise ValueError(
            f"--masks: {images} holds no images; put files there that end in "
            f"{', '.join(SUFFIXES)}"
        )
    form = Form.of(config.data)
    encoded = [Encoded(str(images / n), str(images / n), form) for n in names]
    paths = [str(masks / PurePosixPath(n).with_suffix(SUFFIX)) for n in names]
    pairs = list(zip(encoded, paths, strict=True))
    lacking = [pair for pair in pairs if not os.path.isfile(pair[1])]
    if lacking:
        image, mask = printable(lacking[0][0].name), printable(lacking[0][1])
        raise ValueError(
            f"--masks: {len(lacking)} of {len(pairs)} images in {images} have no mask, "
            f"{image} among them; add {mask}, or remove the image"
        )
    side, size = config.data.image_size, config.augment.size

    @_refusing
    def read_images(rows: np.ndarray) -> np.ndarray:
        return decode_squares(lambda rows: [encoded[row] for row in rows], side, rows)

    @_refusing
    def read_masks(rows: np.ndarray) -> np.ndarray:
        return np.stack([_read_mask(pairs[row], side, size) for row in rows])

    def called(rows: np.ndarray) -> list[str]:
        return [as_text(names[row]) for row in rows]

    return Masked(
        str(masks),
        Split(read_images, size=len(names), names=called),
        Split(read_masks, size=len(names), names=called),
    )


def _refusing(read: Callable) -> Callable:
    """Returns `read` that ends at an image for which a split would show another."""

    def refuse(rows: np.ndarray) -> np.ndarray:
        try:
            return read(rows)
        except UnreadableImage as error:
            raise ValueError(str(error)) from error

    return refuse


def _read_mask(pair: tuple[Encoded, str], side: int, size: int) -> np.ndarray:
    """Returns the labels of what an encoder sees of an image, uint8 (v, v).

    Each pixel's is that of the mask at its middle: labels have no mean.
    """
    image, mask = pair
    with unreadable(image.name):
        if image.form.in_color:
            with open_image(image.name) as opened:
                height, width = upright_shape(opened)
        else:
            height, width = stored_values(image).shape[:2]
    with unreadable(mask), open_image(mask) as opened:
        tile = getattr(opened, "tile", None)
        kind = str(tile[0].args) if tile else opened.mode
        opened.load()
    if opened.mode not in _MODES or kind in _SCALED:
        raise ValueError(
            f"{printable(mask)} is a picture of mode {opened.mode} ({kind}), not of "
            "one label a pixel; save labels of 8 bits, gray or with a palette: "
            "Image.fromarray(labels.astype('uint8')).save(FILE)"
        )
    if opened.size != (width, height):
        raise ValueError(
            f"{printable(mask)} is {opened.width} x {opened.height} pixels, its image "
            f"{printable(image.name)} {width} x {height}; save it in the image's size"
        )
    fitted = ImageOps.fit(opened, (side, side), Image.Resampling.NEAREST)
    first = (side - size) // 2
    middle = slice(first, first + size)
    return np.asarray(fitted, np.uint8)[middle, middle]
