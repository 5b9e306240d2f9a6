"""Rows of pictures, such as the images of a cluster, each row beside its name."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from snclr_jax.visualize.pictures import in_color
from snclr_jax.visualize.style import WIDTH, new_figure, themed

# All lengths are inches.
NAME, LARGEST, GAP = 1.5, 0.8, 0.06  # room of a name, side of a picture, between two


def strips(
    rows: Mapping[str, np.ndarray], *, width: float = WIDTH, theme: str = "light"
) -> Figure:
    """Draws pictures in rows, each row on the right of its name.

    Args:
      rows: by name, for which there is room of some 20 letters; uint8 (n, s, s, c) of
        any n, shown by `in_color`.
      width: of the figure at most, in inches.
      theme: "light" or "dark".

    Raises:
      ValueError: where there is no picture.
    """
    most = max(map(len, rows.values()), default=0)
    if not most:
        raise ValueError("there is no picture; give one row or more, with pictures")
    side = min(LARGEST, (width - NAME) / most - GAP)
    pitch = side + GAP
    width, height = NAME + most * pitch, len(rows) * pitch
    with themed(theme):
        figure = new_figure(width, height, layout="none")
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, width), ylim=(height, 0))
        axes.axis("off")
        for number, (name, pictures) in enumerate(rows.items()):
            top = number * pitch
            axes.text(GAP, top + side / 2, name, va="center", parse_math=False)
            for place, picture in enumerate(in_color(pictures)):
                left = NAME + place * pitch
                extent = (left, left + side, top + side, top)
                axes.imshow(picture, extent=extent, aspect="auto")
    return figure
