"""Where an encoder looks: attention of ViTs, activation of others, over the images."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from snclr_jax.visualize.pictures import in_color
from snclr_jax.visualize.style import WIDTH, new_figure, themed

# All lengths are inches.
SIDE, GAP, BETWEEN = 1.25, 0.06, 0.3
ROW_GAP = 0.12
OPACITY = 0.65  # of a map over its picture
COLORS = "inferno"  # dark to light: the order is seen without any color, too


class Encoder(Protocol):
    """What is asked of an encoder, such as `snclr_jax.load_encoder` returns."""

    def maps(self, images: Any) -> dict[str, np.ndarray]: ...

    def views(self, images: Any) -> np.ndarray: ...


def attention(encoder: Encoder, images: Any) -> np.ndarray:
    """Returns how much a ViT's class token attends to each pixel, in the last block.

        softmax(q k' / sqrt(h)),   the mean over the heads

    of the class token's query and the keys of the patches (as Caron et al., 2021, show
    them, head by head: `encoder.maps(images)["attention"]`), enlarged to the pixels of
    the view by bilinear interpolation. A value is the weight of a whole patch.

    Args:
      encoder: from `snclr_jax.load_encoder`.
      images: what it takes: one image, or several.

    Returns:
      float32 (h, w) of one image, (b, h, w) of several, over `encoder.views(images)`.

    Raises:
      ValueError: where the encoder is no ViT.
    """
    maps = _maps_of(encoder, images, "attention", "is no ViT", "activation")
    return _enlarged(maps.mean(axis=-3), encoder.views(images).shape[-2])


def activation(encoder: Encoder, images: Any) -> np.ndarray:
    """Returns the length of the last features at each pixel, of a ResNet or patchnet.

        |x(r, c)|,   whose mean over r and c of x itself is the feature

    enlarged to the pixels of the view by bilinear interpolation.

    Args:
      encoder: from `snclr_jax.load_encoder`.
      images: what it takes: one image, or several.

    Returns:
      float32 (h, w) of one image, (b, h, w) of several, over `encoder.views(images)`.

    Raises:
      ValueError: where the encoder is a ViT.
    """
    maps = _maps_of(encoder, images, "activation", "is a ViT", "attention")
    return _enlarged(maps, encoder.views(images).shape[-2])


def overlays(
    pictures: np.ndarray,
    maps: np.ndarray,
    *,
    width: float = WIDTH,
    theme: str = "light",
) -> Figure:
    """Draws every picture, and beside it the same one in grey below its map.

    Colors run from the smallest value of a map, dark, to its largest, light.

    Args:
      pictures: uint8 (b, h, w, c), shown by `in_color`.
      maps: (b, h, w).
      width: of the figure at most, in inches.
      theme: "light" or "dark".

    Raises:
      ValueError: where the maps do not fit the pictures.
    """
    if not len(pictures) or pictures.shape[:-1] != maps.shape:
        raise ValueError(
            f"pictures of shape {pictures.shape} do not fit maps of shape "
            f"{maps.shape}; use (b, h, w, c) and (b, h, w)"
        )
    pair = 2 * SIDE + GAP
    columns = max(1, int((width + BETWEEN - 2 * GAP) // (pair + BETWEEN)))
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    width = columns * (pair + BETWEEN) - BETWEEN + 2 * GAP
    height = rows * (SIDE + ROW_GAP) - ROW_GAP + 2 * GAP
    with themed(theme):
        figure = new_figure(width, height, layout="none")
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(-GAP, width - GAP), ylim=(height - GAP, -GAP))
        axes.axis("off")
        for number, (picture, each) in enumerate(
            zip(in_color(pictures), maps, strict=True)
        ):
            row, column = divmod(number, columns)
            left, top = column * (pair + BETWEEN), row * (SIDE + ROW_GAP)
            _show(axes, picture, left, top)
            grey = picture.mean(axis=-1)
            beside = left + SIDE + GAP
            _show(axes, grey, beside, top, cmap="gray", vmin=0, vmax=255)
            _show(axes, each, beside, top, cmap=COLORS, alpha=OPACITY)
    return figure


def _show(axes: Axes, picture: np.ndarray, left: float, top: float, **how: Any) -> None:
    extent = (left, left + SIDE, top + SIDE, top)
    axes.imshow(picture, extent=extent, aspect="auto", **how)


def _maps_of(
    encoder: Encoder, images: Any, kind: str, reason: str, other: str
) -> np.ndarray:
    maps = encoder.maps(images)
    if kind not in maps:
        raise ValueError(
            f"the encoder {reason}, so it has no {kind} map; use visualize.{other}"
        )
    return maps[kind]


def _enlarged(maps: np.ndarray, size: int) -> np.ndarray:
    """Returns float32 (..., size, size) of (..., side, side)."""
    flat = np.float32(maps).reshape(-1, *maps.shape[-2:])
    large = [
        Image.fromarray(each).resize((size, size), Image.Resampling.BILINEAR)
        for each in flat
    ]
    return np.stack([np.asarray(each) for each in large]).reshape(
        *maps.shape[:-2], size, size
    )
