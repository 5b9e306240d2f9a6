"""The neighbor gallery: images with what the queue holds nearest to them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from snclr_jax.visualize.pictures import in_color
from snclr_jax.visualize.style import (
    WIDTH,
    Theme,
    class_name,
    image_name,
    new_figure,
    themed,
)

MOST_NEIGHBORS = 8  # in a row; more are too small to look at
# All lengths are inches.
SMALLEST, LARGEST = 0.97, 1.7  # side of a picture
GAP, AFTER_QUERY, BETWEEN = 0.1, 0.28, 0.45
HEAD, BAR, BELOW = 0.42, 0.07, 0.64
NARROWEST = 3.1
KEY_LINE, KEY_WIDTH = 0.3, 7.0  # of a line, and of a key in one line
LETTERS = 18  # that an inch has room for
BOLD: dict[str, Any] = dict(fontsize=8, weight="bold")

Place = tuple[float, float, float]  # left, top and side of a picture


class _Layout(NamedTuple):
    """Blocks of a query and its k neighbors, in rows that fill the width."""

    side: float  # of a picture
    k: int
    blocks: int  # in a row

    @classmethod
    def fitting(cls, width: float, count: int, k: int) -> _Layout:
        def side(blocks: int, k: int) -> float:
            block = (width + BETWEEN) / blocks - BETWEEN
            return (block - AFTER_QUERY) / (k + 1) - GAP

        k = min(k, MOST_NEIGHBORS)
        while k > 1 and side(1, k) < SMALLEST:
            k -= 1
        blocks = 1
        while blocks < count and side(blocks + 1, k) >= SMALLEST:
            blocks += 1
        return cls(min(side(blocks, k), LARGEST), k, blocks)

    @property
    def pitch(self) -> float:
        return self.side + GAP

    @property
    def block(self) -> float:
        return (self.k + 1) * self.pitch + AFTER_QUERY + BETWEEN

    @property
    def row(self) -> float:
        return self.side + BELOW


def gallery(
    queries: np.ndarray,
    neighbors: np.ndarray,
    found: Any,
    *,
    class_names: tuple[str, ...] | None = None,
    width: float = WIDTH,
    theme: str = "light",
) -> Figure:
    """Draws every query with its nearest neighbors, the most similar first.

    Below a neighbor stand its cosine similarity and its weight w, then its class, or
    its name where there are no classes, and its age in steps. A bar shows w, its full
    length the largest of all. Solid borders are of the query's class, dashed ones
    of another. Of more neighbors than there is room for, 8 at most, the first are
    drawn.

    Args:
      queries: uint8 (n, s, s, c), shown by `in_color`.
      neighbors: uint8 (n, k, s, s, c).
      found: holds the (n, k) arrays `similarity`, `weight`, `age` and `valid`,
        `query_label` (n,) and `neighbor_label` (n, k) or None, and `query_name` (n,)
        and `neighbor_name` (n, k), such as `snclr_jax.evaluate.memory.gallery.Gallery`.
      class_names: by label; None shows the numbers.
      width: of the figure at most, in inches.
      theme: "light" or "dark".

    Raises:
      ValueError: where the pictures do not fit the arrays.
    """
    _check(queries, neighbors, np.shape(found.similarity))
    count = len(queries)
    layout = _Layout.fitting(width, count, neighbors.shape[1])
    rows = -(-count // layout.blocks)
    width = max(layout.blocks * layout.block - BETWEEN, NARROWEST)
    height = rows * layout.row + HEAD
    with themed(theme) as colors:
        key = KEY_LINE * (1 if width > KEY_WIDTH else 3)
        figure = new_figure(width, height + key, layout="none")
        axes = figure.add_axes((0, 0, 1, height / (height + key)))
        axes.set(xlim=(0, width), ylim=(height, 0))
        axes.axis("off")
        for number in range(count):
            column, row = divmod(number, rows)
            left, top = column * layout.block + GAP / 2, row * layout.row + HEAD
            if row == 0:
                _add_heading(axes, left, layout)
            side = layout.side
            _picture(axes, (left, top, side), queries[number])
            name = _name(found.query_label, found.query_name, number, class_names)
            below = left + side / 2, top + side + 0.06
            axes.text(*below, name, ha="center", va="top", **BOLD)
            for rank in np.flatnonzero(found.valid[number, : layout.k]).tolist():
                x = left + AFTER_QUERY + (rank + 1) * layout.pitch
                place, index = (x, top, side), (number, rank)
                _picture(axes, place, neighbors[index])
                _describe(axes, place, found, index, class_names, colors)
        columns = 3 if width > KEY_WIDTH else 1
        _add_key(figure, found.neighbor_label is not None, columns, colors)
    return figure


def _add_heading(axes: Axes, left: float, layout: _Layout) -> None:
    axes.text(left + layout.side / 2, HEAD / 2, "image", ha="center", va="center")
    text = "its neighbors" + ", nearest first" * (layout.k > 1)
    axes.text(left + layout.pitch + AFTER_QUERY, HEAD / 2, text, va="center")


def _name(
    labels: np.ndarray | None,
    names: np.ndarray,
    index: Any,
    class_names: tuple[str, ...] | None,
) -> str:
    """Returns an image's class or, without classes, the end of its name."""
    if labels is not None:
        return class_name(int(labels[index]), class_names)
    return image_name(str(names[index]))


def _describe(
    axes: Axes,
    place: Place,
    gallery: Any,
    index: tuple[int, int],
    class_names: tuple[str, ...] | None,
    theme: Theme,
) -> None:
    x, y, side = place
    if gallery.neighbor_label is not None:
        own, theirs = gallery.query_label[index[0]], gallery.neighbor_label[index]
        if min(own, theirs) >= 0:
            border = _border(own == theirs, theme)
            axes.add_patch(Rectangle((x, y), side, side, **border))
    weight = gallery.weight[index]
    length = side * weight / max(gallery.weight.max(), 1e-12)
    bottom = y + side
    axes.add_patch(Rectangle((x, bottom + 0.05), length, BAR, facecolor=theme.muted))
    small: dict[str, Any] = dict(ha="center", va="top", fontsize=8)
    first = f"cos {gallery.similarity[index]:.2f}  w {weight:.2f}"
    axes.text(x + side / 2, bottom + 0.16, first, **small)
    name = _name(gallery.neighbor_label, gallery.neighbor_name, index, class_names)
    second = "   ".join(filter(None, [name, f"age {gallery.age[index]}"]))
    # Below a small picture the line has no room for a long name and the age.
    second = second if len(second) <= LETTERS * side else name
    axes.text(x + side / 2, bottom + 0.33, second, **small)


def _picture(axes: Axes, place: Place, picture: np.ndarray) -> None:
    x, y, side = place
    extent = (x, x + side, y + side, y)
    axes.imshow(in_color(picture), extent=extent, aspect="auto", zorder=1)


def _border(same: bool, theme: Theme) -> dict[str, Any]:
    style = "solid" if same else (0, (2.5, 1.5))
    return dict(
        fill=False, edgecolor=theme.series[not same], linewidth=2.6, linestyle=style
    )


def _add_key(figure: Figure, labelled: bool, columns: int, theme: Theme) -> None:
    handles = []
    if labelled:
        handles += [
            Patch(**_border(True, theme), label="of the image's class"),
            Patch(**_border(False, theme), label="of another class"),
        ]
    label = "weight w; full length: the largest of all"
    handles.append(Patch(facecolor=theme.muted, label=label))
    figure.legend(
        handles=handles,
        loc="upper left",
        ncols=columns,
        frameon=False,
        borderaxespad=0.3,
    )


def _check(queries: np.ndarray, neighbors: np.ndarray, shape: tuple[int, ...]) -> None:
    if not len(queries) or neighbors.shape[:2] != shape or len(queries) != shape[0]:
        raise ValueError(
            f"{len(queries)} queries and neighbors of shape {neighbors.shape} do not "
            f"fit similarities of shape {shape}; use pictures (n, s, s, c) and "
            "(n, k, s, s, c) for (n, k)"
        )
