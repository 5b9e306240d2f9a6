"""From an encoded image of any size and mode to s x s colour pixels."""

from __future__ import annotations

from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps


def decode_image(file: str | BinaryIO, side: int, *, name: str) -> np.ndarray:
    """Decodes one image: upright, in colour, its central square resized to `side`.

    Resizing is antialiased and bicubic. Transparency is laid on white, as a page shows
    it; 16-bit grey keeps its upper 8 bits; EXIF rotation is applied.

    Args:
      file: path or open file, in any format that Pillow reads.
      side: s, in pixels.
      name: what to call the image in an error.

    Returns:
      uint8 (s, s, 3).

    Raises:
      ValueError: where the image cannot be decoded.
    """
    try:
        with Image.open(file) as image:
            # A JPEG can be decoded at 1/2, 1/4 or 1/8 of its size; staying at twice
            # the wanted size leaves the final quality to the antialiased resize.
            image.draft(None, (2 * side, 2 * side))
            image = _to_rgb(ImageOps.exif_transpose(image))
            image = ImageOps.fit(image, (side, side), Image.Resampling.BICUBIC)
            return np.asarray(image)
    # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error and more.
    except Exception as error:
        raise ValueError(
            f"{name} cannot be decoded as an image ({type(error).__name__}: {error}); "
            "replace or remove it"
        ) from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # "I;16" and its kin; convert() would clip at 255
        levels = np.clip(np.asarray(image), 0, 65535) >> 8
        image = Image.fromarray(levels.astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")
