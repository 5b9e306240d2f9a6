"""An image that is given in Python, as an array, a tensor or by Pillow."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from snclr_jax.data.form import RGB, Form
from snclr_jax.data.upright import eight_bits, own_channels, square, upright
from snclr_jax.step.channels import MOST

_OF_COLOR = (1, 3, 4)  # grey, RGB, RGBA


def channels_given(form: Form) -> tuple[int, ...]:
    """Returns how many channels an array may have that is given for an image."""
    return _OF_COLOR if form.in_color else (form.channels,)


def pixels_of(image: Any, name: str, form: Form = RGB) -> np.ndarray:
    """Returns an image in its own size, as `decode_image` treats modes.

    Args:
      image: uint8, or floats from 0 to 1. In color of the shape (h, w), (h, w, 1),
        (h, w, 3) or (h, w, 4), which is RGBA and is laid on white; else (h, w, c), or
        (h, w) of one channel. Or a PIL image; or a tensor, which may have its channels
        first.
      name: what to call the image in an error.
      form: see `Encoded`; its levels are of PIL images.

    Returns:
      uint8 (h, w, c).

    Raises:
      ValueError: where it is none of these; names the fix.
    """
    if isinstance(image, Image.Image):
        try:
            if not form.in_color:
                return eight_bits(own_channels(image, form.channels), form.levels)
            return np.asarray(upright(image, form.levels))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    counts = channels_given(form)
    if hasattr(image, "numpy"):  # a tensor; PyTorch's have their channels first
        image = image.numpy()
        first = image.ndim == 3 and image.shape[0] in counts
        if first and image.shape[2] not in (1, 3, form.channels):
            image = np.moveaxis(image, 0, -1)
    image = np.asarray(image)
    pixels = image[..., None] if image.ndim == 2 else image
    # Two axes, one of them of channels: what was given is one image, not several.
    row = image.ndim == 2 and image.shape[1] <= 4
    if pixels.ndim != 3 or pixels.shape[2] not in counts or not pixels.size or row:
        raise ValueError(f"{name} has shape {image.shape}, and {_needed(pixels, form)}")
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
    pixels = np.ascontiguousarray(pixels)
    if not form.in_color:
        return pixels
    if pixels.shape[2] == 4:
        return np.asarray(upright(Image.fromarray(pixels)))
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))


def to_square(pixels: np.ndarray, side: int) -> np.ndarray:
    """Returns uint8 (s, s, c) of uint8 (h, w, c): the central square, resized."""
    if pixels.shape[:2] == (side, side):
        return pixels
    if pixels.shape[2] == 3:
        return square(Image.fromarray(pixels), side)
    each = [square(Image.fromarray(of), side) for of in np.moveaxis(pixels, -1, 0)]
    return np.stack(each, axis=-1)


def _needed(pixels: np.ndarray, form: Form) -> str:
    """Returns which shape is needed instead, and what to do about it."""
    shapes = "(h, w), (h, w, 1), (h, w, 3) or (h, w, 4) is needed"
    if not form.in_color:
        shapes = f"(h, w, {form.channels}) is needed, as data.channels says"
    if pixels.ndim != 3:
        return shapes
    if pixels.shape[0] in channels_given(form):
        return f"{shapes}; move the channels to the end: np.moveaxis(images, -3, -1)"
    if pixels.shape[2] <= MOST < min(pixels.shape[:2]):
        return f"{shapes}; set data.channels={pixels.shape[2]} for such images"
    return shapes
