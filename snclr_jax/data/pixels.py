"""An image that is given in Python, as an array, a tensor or by Pillow, in color."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from snclr_jax.data.upright import square, upright
from snclr_jax.settings.levels import FULL, Levels

CHANNELS = (1, 3, 4)  # grey, RGB, RGBA


def pixels_of(image: Any, name: str, levels: Levels = FULL) -> np.ndarray:
    """Returns an image in color and in its own size, as `decode_image` treats modes.

    Args:
      image: uint8, or floats from 0 to 1, of the shape (h, w), (h, w, 1), (h, w, 3) or
        (h, w, 4), which is RGBA and is laid on white; a PIL image; or a tensor, which
        may have its channels first.
      name: what to call the image in an error.
      levels: what becomes black and white in a PIL image of more than 8 bits, see
        `parse_levels`.

    Returns:
      uint8 (h, w, 3).

    Raises:
      ValueError: where it is none of these; names the fix.
    """
    if isinstance(image, Image.Image):
        try:
            return np.asarray(upright(image, levels))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    if hasattr(image, "numpy"):  # a tensor; PyTorch's have their channels first
        image = image.numpy()
        first = image.ndim == 3 and image.shape[0] in CHANNELS
        if first and image.shape[2] not in (1, 3):
            image = np.moveaxis(image, 0, -1)
    image = np.asarray(image)
    pixels = image[..., None] if image.ndim == 2 else image
    # Two axes, one of them of channels: what was given is one image, not several.
    row = image.ndim == 2 and image.shape[1] <= 4
    if pixels.ndim != 3 or pixels.shape[2] not in CHANNELS or not pixels.size or row:
        first = pixels.ndim == 3 and pixels.shape[0] in CHANNELS
        fix = "; move the channels to the end: np.moveaxis(images, -3, -1)"
        raise ValueError(
            f"{name} has shape {image.shape}, and (h, w), (h, w, 1), (h, w, 3) or "
            f"(h, w, 4) is needed{fix if first else ''}"
        )
    if np.issubdtype(pixels.dtype, np.floating):
        if not (pixels.min() >= 0 and pixels.max() <= 1):
            raise ValueError(
                f"{name} has values from {pixels.min():g} to {pixels.max():g}, and "
                "floats have to lie between 0 and 1; scale them, or give uint8"
            )
        pixels = np.rint(255 * pixels).astype(np.uint8)
    if pixels.dtype != np.uint8:
        raise ValueError(
            f"{name} has values of type {pixels.dtype}; give uint8, or floats between "
            "0 and 1"
        )
    if pixels.shape[2] == 4:
        return np.asarray(upright(Image.fromarray(np.ascontiguousarray(pixels))))
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))


def to_square(pixels: np.ndarray, side: int) -> np.ndarray:
    """Returns uint8 (s, s, 3) of uint8 (h, w, 3): the central square, resized."""
    if pixels.shape[:2] == (side, side):
        return pixels
    return square(Image.fromarray(pixels), side)
