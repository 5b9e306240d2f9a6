"""From an encoded image to random crops, out of the whole image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import ExifTags, Image

from snclr_jax.data.crop import View, crop_boxes, cut_views
from snclr_jax.data.decode import (
    Encoded,
    check_file,
    open_encoded,
    stored_values,
    unreadable,
)
from snclr_jax.data.upright import eight_bits, upright, upright_shape

# JPEGs can be decoded at a part of their size, in a part of the time.
_REDUCED = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
_JPEG_END = b"\xff\xd9"


def decode_views(
    image: Encoded | np.ndarray, views: Sequence[View], uniforms: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """Decodes one image and cuts a random crop out of it for every view.

    Modes, transparency and rotation are treated as in `decode_image`. A JPEG is decoded
    at 1/2, 1/4 or 1/8 of its size where every crop then still has the size of its view.

    Args:
      image: encoded as for `decode_image`, or pixels, uint8 (h, w, c).
      views: size s_v and crop of every view.
      uniforms: what each view's box is drawn from, see `crop_boxes`.

    Returns:
      For each view, uint8 (s_v, s_v, c).

    Raises:
      UnreadableImage: where the image cannot be decoded.
      OSError: where no file can be read, such as with too many open.
    """
    if isinstance(image, Encoded) and not image.form.in_color:
        with unreadable(image.name):
            image = eight_bits(stored_values(image), image.form.levels)
    if isinstance(image, np.ndarray):
        boxes = crop_boxes(image.shape[:2], views, uniforms)
        return cut_views(image, boxes, views)
    with unreadable(image.name):
        # A file is read at once; of a page, only what belongs to it.
        if isinstance(image.content, str) and image.page is None:
            check_file(image.content, None)
            image = image._replace(content=Path(image.content).read_bytes())
        with open_encoded(image) as opened:
            rotation = opened.getexif().get(ExifTags.Base.Orientation, 1)
            boxes = crop_boxes(upright_shape(opened), views, uniforms)
            reduction = 1
            if opened.format in ("JPEG", "MPO"):
                spare = min(
                    min(box.height, box.width) / view.size
                    for box, view in zip(boxes, views, strict=True)
                )
                reduction = max(r for r in _REDUCED if r <= max(1, spare))
            pixels = _decode_whole(opened, image, reduction, rotation)
    return cut_views(pixels, boxes, views, reduction=reduction)


def _decode_whole(
    image: Image.Image, stored: Encoded, reduction: int, rotation: int
) -> np.ndarray:
    """The whole upright image, uint8 (h, w, 3); `reduction` divides a JPEG's size."""
    data = stored.content
    plain = image.format == "JPEG" and image.mode in ("L", "RGB") and rotation == 1
    # OpenCV would not say that the end is missing; Pillow does.
    if plain and isinstance(data, bytes) and data.endswith(_JPEG_END):
        flags = _REDUCED[reduction] | cv2.IMREAD_IGNORE_ORIENTATION
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        if pixels is not None:
            return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    image.draft(None, (image.width // reduction, image.height // reduction))
    return np.asarray(upright(image, stored.form.levels))
