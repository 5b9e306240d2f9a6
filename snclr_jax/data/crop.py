"""Random resized crops on the host: which box of an image, and the box's pixels.

The boxes are those of torchvision's RandomResizedCrop, which `step/augment.py` draws on
the device for resident sets. They follow from (seed, step, row of the global batch,
view) alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

ATTEMPTS = 10  # torchvision's RandomResizedCrop
DRAWS = 2 * ATTEMPTS + 2  # uniform numbers per box

# Images are shared out to threads and processes already; this holds for all of cv2.
cv2.setNumThreads(1)


class View(NamedTuple):
    """How one view of an image is cropped.

    Attributes:
      size: height and width s of the view, in pixels.
      scale: range of the crop's share of the image's area, in (0, 1].
      ratio: range of its width / height.
    """

    size: int
    scale: tuple[float, float]
    ratio: tuple[float, float]


class Box(NamedTuple):
    """A crop, in whole pixels of the upright image."""

    top: int
    left: int
    height: int
    width: int


def draw_uniforms(seed: int, step: int, view: int, rows: range) -> np.ndarray:
    """Draws the numbers in [0, 1) that decide the crops of some rows of a batch.

    Args:
      seed: 0 to 2^32 - 1.
      step: of the global batch, from 0.
      view: number of the view, from 0.
      rows: consecutive rows of the global batch.

    Returns:
      float64 (len(rows), DRAWS); a row's numbers do not depend on which others are
      asked for, nor on the size of the batch.
    """
    # A generator per row would cost ten times as much: seeding takes 0.1 ms.
    # RandomState's stream is frozen (NEP 19); Generator's may change with numpy.
    random = np.random.RandomState([seed, step, view])
    return random.uniform(size=(rows.stop, DRAWS))[rows.start :]


def crop_boxes(
    shape: tuple[int, int], views: Sequence[View], uniforms: Sequence[np.ndarray]
) -> list[Box]:
    """Chooses a box for every view.

    The share of the area and the logarithm of width / height are uniform in their
    ranges; of ten draws the first that fits counts. Where none does, the crop is the
    largest one in the middle that keeps to the view's `ratio`.

    Args:
      shape: the upright image's height and width.
      views: what is cut.
      uniforms: for every view (DRAWS,) numbers in [0, 1), see `draw_uniforms`.
    """
    return [
        _crop_box(*shape, view, numbers.tolist())
        for view, numbers in zip(views, uniforms, strict=True)
    ]


def _crop_box(height: int, width: int, view: View, uniforms: list[float]) -> Box:
    (smallest, largest), (low, high) = view.scale, view.ratio
    *shape_draws, down, across = uniforms
    for u, v in zip(shape_draws[:ATTEMPTS], shape_draws[ATTEMPTS:], strict=True):
        area = height * width * (smallest + (largest - smallest) * u)
        ratio = low * (high / low) ** v
        box_height = round(math.sqrt(area / ratio))
        box_width = round(math.sqrt(area * ratio))
        if 0 < box_height <= height and 0 < box_width <= width:
            break
    else:
        box_height = min(height, max(1, round(width / low)))
        box_width = min(width, max(1, round(height * high)))
        down = across = 0.5
    top = int(down * (height - box_height + 1))
    left = int(across * (width - box_width + 1))
    return Box(top, left, box_height, box_width)


def cut_views(
    pixels: np.ndarray,
    boxes: Sequence[Box],
    views: Sequence[View],
    *,
    reduction: int = 1,
) -> list[np.ndarray]:
    """Cuts boxes out of an image and resizes each to the size of its view.

    Every pixel of a view is the mean of n x m bilinear samples, no two neighbors of
    which are farther apart than a pixel of the image: bilinear where the crop grows,
    antialiased where it shrinks. It differs from Pillow's BILINEAR about as much as
    Pillow's BICUBIC does, and takes a third of the time.

    Args:
      pixels: uint8 (h, w, c), the image, whole or reduced.
      boxes: of the image before it was reduced.
      views: what is cut.
      reduction: by how much the image was reduced; boxes are then rounded to whole
        pixels of what is left.

    Returns:
      For each view, uint8 (s_v, s_v, c).
    """

    def span(start: int, length: int) -> slice:
        half = reduction // 2  # rounded up, so that no crop loses a pixel it needs
        end = start + length
        return slice((start + half) // reduction, (end + half) // reduction)

    cuts = []
    for box, view in zip(boxes, views, strict=True):
        crop = pixels[span(box.top, box.height), span(box.left, box.width)]
        n, m = (-(-length // view.size) for length in crop.shape[:2])
        fine, size = (m * view.size, n * view.size), (view.size, view.size)
        samples = _resized(crop, fine, cv2.INTER_LINEAR)
        cuts.append(_resized(samples, size, cv2.INTER_AREA))
    return cuts


def _resized(pixels: np.ndarray, size: tuple[int, int], how: int) -> np.ndarray:
    if pixels.shape[2] == 3:
        return cv2.resize(pixels, size, interpolation=how)
    # OpenCV takes four channels at most, and leaves one channel's axis out.
    each = [cv2.resize(of, size, interpolation=how) for of in cv2.split(pixels)]
    return np.stack(each, axis=-1)
