"""Small pictures for a page: many in one file, as browsers load them fastest."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable

import numpy as np
from PIL import Image

from snclr_jax.visualize.pictures import in_color

COLUMNS = 64  # pictures in a row of a sheet, and rows of a full one
_QUALITY = 80


def sheets(
    read: Callable[[np.ndarray], np.ndarray], rows: np.ndarray, side: int
) -> list[str]:
    """Returns pictures side by side in sheets, data URIs of WebP.

    Args:
      read: decodes some images: (m,) rows -> uint8 (m, s, s, c).
      rows: which; picture i is in sheet i // 4096, at i % 64 from the left in row
        i % 4096 // 64.
      side: of a picture, in pixels.
    """
    at_once, found = COLUMNS * COLUMNS, []
    for start in range(0, len(rows), at_once):
        part = rows[start : start + at_once]
        lines = -(-len(part) // COLUMNS)
        width = min(len(part), COLUMNS) * side
        sheet = Image.new("RGB", (width, lines * side))
        for place, pixels in enumerate(read(part)):
            line, column = divmod(place, COLUMNS)
            sheet.paste(_small(pixels, side), (column * side, line * side))
        found.append(_uri(sheet))
    return found


def thumbnail(pixels: np.ndarray, side: int) -> str:
    """Returns one picture, uint8 (s, s, c), as a data URI of WebP."""
    return _uri(_small(pixels, side))


def _small(pixels: np.ndarray, side: int) -> Image.Image:
    picture = Image.fromarray(in_color(pixels))
    if picture.size == (side, side):
        return picture
    return picture.resize((side, side), Image.Resampling.LANCZOS)


def _uri(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "WEBP", quality=_QUALITY)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"
