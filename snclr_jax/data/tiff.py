"""TIFFs that Pillow cannot read, and how many pages a TIFF has."""

from __future__ import annotations

import contextlib
import logging
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from snclr_jax.data.upright import check_channels

# Of TIFF 6.0 and of BigTIFF, in either order of the bytes.
_HEADS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
COLOR_CHANNELS = (1, 3, 4)  # gray, RGB, RGBA
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


def read_tiff(
    file: str | BinaryIO,
    page: int | None,
    *,
    channels: tuple[int, ...],
    most_pixels: int,
) -> np.ndarray:
    """Reads what Pillow cannot: floats of 64 and 16 bits, JPEG 2000, many channels.

    Args:
      file: path or open file.
      page: of the file, from 0; None is the first, or where one number of channels is
        wanted and there are as many pages of one channel, all of them.
      channels: which numbers of them are wanted, see `check_channels`.
      most_pixels: that are decoded.

    Returns:
      The values as they are stored, (h, w, c).

    Raises:
      ValueError: where tifffile is missing, or for other channels.
      Exception: of many kinds, by tifffile.
    """
    tifffile = _tifffile()
    if not isinstance(file, str):
        file.seek(0)
    with tifffile.TiffFile(file) as opened:
        stored = opened.pages[page or 0]
        if not stored.imagelength * stored.imagewidth:
            raise ValueError("no pixels")
        if stored.imagelength * stored.imagewidth > most_pixels:
            raise ValueError(
                f"{stored.imagewidth} x {stored.imagelength} pixels, more than the "
                f"{most_pixels:,} that are decoded"
            )
        count = stored.samplesperpixel
        if page is None and count == 1 and (len(opened.pages),) == channels:
            return np.stack([each.asarray() for each in opened.pages], axis=-1)
        check_channels(count, channels)
        pixels = np.asarray(stored.asarray())
        if stored.axes.startswith("S"):  # channels first
            pixels = np.moveaxis(pixels, 0, -1)
    return pixels.reshape(*pixels.shape[:2], count)


def as_picture(pixels: np.ndarray) -> Image.Image:
    """Returns what `read_tiff` read, where it is gray or color, as Pillow has it.

    Returns:
      Floats and integers of more than 8 bits in gray as mode "F"; of those in color
      the upper 8 bits.

    Raises:
      ValueError: for values of other types.
    """
    if pixels.shape[2] == 1:
        gray = pixels[..., 0]
        return Image.fromarray(
            gray if gray.dtype == np.uint8 else gray.astype(np.float32)
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
