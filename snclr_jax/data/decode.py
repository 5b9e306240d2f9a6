"""From an encoded image of any size and mode to colour pixels: a square, or crops."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import cv2
import numpy as np
from PIL import ExifTags, Image, ImageOps

from snclr_jax.data.crop import View, crop_boxes, cut_views

# JPEGs can be decoded at a part of their size, in a part of the time.
_REDUCED = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
_JPEG_END = b"\xff\xd9"
_TRANSPOSED = (5, 6, 7, 8)  # EXIF 2.3, tag 274: rows and columns are exchanged


class Encoded(NamedTuple):
    """An image as it is stored.

    Attributes:
      content: the path of its file, or the file's bytes.
      name: what to call the image in an error.
    """

    content: str | bytes
    name: str


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
        raise _cannot_decode(name, error) from error


def decode_squares(
    encoded: Callable[[np.ndarray], Sequence[Encoded]], side: int, indices: np.ndarray
) -> np.ndarray:
    """Decodes the images `encoded(indices)` by `decode_image`: uint8 (b, s, s, 3)."""
    squares = []
    for content, name in encoded(indices):
        file = io.BytesIO(content) if isinstance(content, bytes) else content
        squares.append(decode_image(file, side, name=name))
    return np.stack(squares)


def decode_views(
    image: Encoded | np.ndarray, views: Sequence[View], uniforms: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """Decodes one image and cuts a random crop out of it for every view.

    Modes, transparency and rotation are treated as in `decode_image`. A JPEG is decoded
    at 1/2, 1/4 or 1/8 of its size where every crop then still has the size of its view.

    Args:
      image: encoded in any format that Pillow reads, or pixels, uint8 (h, w, 3).
      views: size s_v and crop of every view.
      uniforms: what each view's box is drawn from, see `crop_boxes`.

    Returns:
      For each view, uint8 (s_v, s_v, 3).

    Raises:
      ValueError: where the image cannot be decoded.
    """
    if isinstance(image, np.ndarray):
        boxes = crop_boxes(image.shape[:2], views, uniforms)
        return cut_views(image, boxes, views)
    try:
        data = image.content
        if isinstance(data, str):
            data = Path(data).read_bytes()
        with Image.open(io.BytesIO(data)) as opened:
            rotation = opened.getexif().get(ExifTags.Base.Orientation, 1)
            shape = opened.height, opened.width
            if rotation in _TRANSPOSED:
                shape = shape[::-1]
            boxes = crop_boxes(shape, views, uniforms)
            reduction = 1
            if opened.format in ("JPEG", "MPO"):
                spare = min(
                    min(box.height, box.width) / view.size
                    for box, view in zip(boxes, views, strict=True)
                )
                reduction = max(r for r in _REDUCED if r <= max(1, spare))
            pixels = _decode_whole(opened, data, reduction, rotation)
    except Exception as error:
        raise _cannot_decode(image.name, error) from error
    return cut_views(pixels, boxes, views, reduction=reduction)


def _decode_whole(
    image: Image.Image, data: bytes, reduction: int, rotation: int
) -> np.ndarray:
    """The whole upright image, uint8 (h, w, 3); `reduction` divides a JPEG's size."""
    plain = image.format == "JPEG" and image.mode in ("L", "RGB") and rotation == 1
    # OpenCV would not say that the end is missing; Pillow does.
    if plain and data.endswith(_JPEG_END):
        flags = _REDUCED[reduction] | cv2.IMREAD_IGNORE_ORIENTATION
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        if pixels is not None:
            return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    image.draft(None, (image.width // reduction, image.height // reduction))
    return np.asarray(_to_rgb(ImageOps.exif_transpose(image)))


def _cannot_decode(name: str, error: Exception) -> ValueError:
    return ValueError(
        f"{name} cannot be decoded as an image ({type(error).__name__}: {error}); "
        "replace or remove it"
    )


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # "I;16" and its kin; convert() would clip at 255
        levels = np.clip(np.asarray(image), 0, 65535) >> 8
        image = Image.fromarray(levels.astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")
