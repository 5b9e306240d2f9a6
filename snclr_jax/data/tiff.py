"""TIFFs that Pillow cannot read, and how many pages a TIFF has."""

from __future__ import annotations

import contextlib
import logging
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

# Of TIFF 6.0 and of BigTIFF, in either order of the bytes.
_HEADS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_CHANNELS = (1, 3, 4)  # gray, RGB, RGBA
# What they would log, of every image, is the reason that is given.
for _name in ("PIL.TiffImagePlugin", "tifffile"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)


def is_tiff(file: str | BinaryIO) -> bool:
    """Whether a file begins as a TIFF does."""
    if isinstance(file, str):
        with open(file, "rb") as opened:
            return opened.read(4) in _HEADS
    file.seek(0)
    return file.read(4) in _HEADS


def count_pages(path: str) -> int:
    """Returns how many pages a TIFF has; 1 where it cannot be read."""
    with contextlib.suppress(Exception):  # Pillow raises many kinds
        with Image.open(path, formats=("TIFF",)) as image:
            return getattr(image, "n_frames", 1)
    with contextlib.suppress(Exception), _tifffile().TiffFile(path) as opened:
        return len(opened.pages)
    return 1


def read_tiff(file: str | BinaryIO, page: int, *, most_pixels: int) -> Image.Image:
    """Reads what Pillow cannot: floats of 64 and 16 bits, JPEG 2000 and others.

    Args:
      file: path or open file.
      page: of the file, from 0.
      most_pixels: that are decoded.

    Returns:
      Floats and integers of more than 8 bits in gray as mode "F"; of those in color
      the upper 8 bits.

    Raises:
      ValueError: where tifffile is missing, or for other channels or values.
      Exception: of many kinds, by tifffile.
    """
    tifffile = _tifffile()
    if not isinstance(file, str):
        file.seek(0)
    with tifffile.TiffFile(file) as opened:
        stored = opened.pages[page]
        if not stored.imagelength * stored.imagewidth:
            raise ValueError("no pixels")
        if stored.imagelength * stored.imagewidth > most_pixels:
            raise ValueError(
                f"{stored.imagewidth} x {stored.imagelength} pixels, more than the "
                f"{most_pixels:,} that are decoded"
            )
        channels = stored.samplesperpixel
        if channels not in _CHANNELS:
            raise ValueError(
                f"{channels} channels, and 1, 3 or 4 are read; save those to train on "
                "as gray or RGB images"
            )
        pixels = np.asarray(stored.asarray())
        if stored.axes.startswith("S"):  # channels first
            pixels = np.moveaxis(pixels, 0, -1)
    if channels == 1:
        pixels = pixels.reshape(pixels.shape[:2])
        return Image.fromarray(
            pixels if pixels.dtype == np.uint8 else pixels.astype(np.float32)
        )
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    if pixels.dtype != np.uint8:
        raise ValueError(
            f"color of type {pixels.dtype}, and integers of 8 or 16 bits are read"
        )
    return Image.fromarray(np.ascontiguousarray(pixels))


def _tifffile() -> Any:
    try:
        import tifffile
    except ImportError as error:
        raise ValueError(
            "a TIFF that Pillow cannot read; pip install 'snclr_jax[tiff]' may"
        ) from error
    return tifffile
