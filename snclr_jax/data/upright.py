"""From an image of any mode to color or its own channels, upright, and to a square."""

from __future__ import annotations

import numpy as np
from PIL import ExifTags, Image, ImageOps

from snclr_jax.settings.levels import FULL, Levels
from snclr_jax.step.channels import MOST

_TRANSPOSED = (5, 6, 7, 8)  # EXIF 2.3, tag 274: rows and columns are exchanged


def square(image: Image.Image, side: int) -> np.ndarray:
    """Returns the central square, resized to `side`: uint8 (s, s) or (s, s, 3)."""
    fitted = ImageOps.fit(image, (side, side), Image.Resampling.BICUBIC)
    return np.asarray(fitted)


def is_deep(image: Image.Image) -> bool:
    """Whether an image has more than 8 bits that Pillow keeps: gray ones alone."""
    return image.mode[0] in "IF"  # "I;16" and its kin, and floats


def upright(image: Image.Image, levels: Levels = FULL) -> Image.Image:
    """Returns a whole image in colour, see `decode_image`."""
    image = ImageOps.exif_transpose(image)
    if is_deep(image):  # convert() would clip at 255
        image = Image.fromarray(eight_bits(np.asarray(image), levels))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def upright_shape(image: Image.Image) -> tuple[int, int]:
    """Returns height and width of an image as its EXIF data turn it."""
    rotation = image.getexif().get(ExifTags.Base.Orientation, 1)
    # Of a TIFF, Pillow gives the size of the upright image.
    if rotation in _TRANSPOSED and image.format != "TIFF":
        return image.width, image.height
    return image.height, image.width


def own_channels(image: Image.Image, channels: int) -> np.ndarray:
    """Returns the values of a whole upright image as they are stored, (h, w, c).

    Raises:
      ValueError: where it has not c channels.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode in ("P", "PA"):  # colors by their numbers
        image = image.convert(_mode_of_palette(image))
    values = np.asarray(image.convert("L") if image.mode == "1" else image)
    values = np.atleast_3d(values)
    check_channels(values.shape[2], (channels,))
    return values


def _mode_of_palette(image: Image.Image) -> str:
    if image.has_transparency_data:
        return "RGBA"
    colors = np.reshape(image.getpalette("RGB") or (), (-1, 3))
    return "L" if (colors == colors[:, :1]).all() else "RGB"


def check_channels(count: int, wanted: tuple[int, ...]) -> None:
    """Raises ValueError where an image of `count` channels is not one that is wanted.

    Args:
      count: of the image.
      wanted: which are read; several are those of color.
    """
    if count in wanted:
        return
    *others, last = map(str, wanted)
    read = f"{', '.join(others)} or {last} are read as color" if others else ""
    fix = f"set data.channels={count} for such images"
    if count > MOST:
        fix = f"save {MOST} of them at most, and set data.channels"
    raise ValueError(
        f"{count} channels, and {read or f'data.channels is {last}'}; {fix}"
    )


def eight_bits(values: np.ndarray, levels: Levels = FULL) -> np.ndarray:
    """Returns values of any type as uint8: the range `levels` of more than 8 bits.

    Raises:
      ValueError: for floats without a range.
    """
    if values.dtype == np.bool_:
        return 255 * values.astype(np.uint8)
    if values.dtype == np.uint8:
        return values
    if np.issubdtype(values.dtype, np.floating) and levels == FULL:
        raise ValueError(
            "floats have no full range; set data.range to the levels that become black "
            "and white, such as '0,1'"
        )
    low, high = levels
    scaled = (values.astype(np.float32) - low) * (256 / (high - low))
    return np.clip(np.nan_to_num(scaled), 0, 255).astype(np.uint8)
