"""From an image of any mode to color, upright, and to a square."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageOps

from snclr_jax.settings.levels import FULL, Levels


def square(image: Image.Image, side: int) -> np.ndarray:
    """Returns the central square, resized to `side`: uint8 (s, s, 3)."""
    fitted = ImageOps.fit(image, (side, side), Image.Resampling.BICUBIC)
    return np.asarray(fitted)


def is_deep(image: Image.Image) -> bool:
    """Whether an image has more than 8 bits that Pillow keeps: gray ones alone."""
    return image.mode[0] in "IF"  # "I;16" and its kin, and floats


def upright(image: Image.Image, levels: Levels = FULL) -> Image.Image:
    """Returns a whole image in colour, see `decode_image`."""
    image = ImageOps.exif_transpose(image)
    if is_deep(image):  # convert() would clip at 255
        if image.mode == "F" and levels == FULL:
            raise ValueError(
                "floats have no full range; set data.range to the levels that become "
                "black and white, such as '0,1'"
            )
        low, high = levels
        grays = (np.asarray(image, np.float32) - low) * (256 / (high - low))
        grays = np.clip(np.nan_to_num(grays), 0, 255).astype(np.uint8)
        image = Image.fromarray(grays)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")
