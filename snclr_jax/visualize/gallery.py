"""The neighbor gallery: images with what the queue holds nearest to them."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from snclr_jax.visualize.style import Theme, class_name, new_figure, themed

MOST_NEIGHBORS = 8  # in a row; more are too small to look at
WIDTH, NARROWEST = 10.6, 3.1  # inches
# In units of a picture's side, which is about an inch.
PITCH, ROW, AFTER_QUERY, BETWEEN = 1.1, 1.64, 0.28, 0.45
HEAD, BAR = 0.42, 0.07
KEY_LINE, KEY_WIDTH = 0.3, 7.0  # inches: of a line, and of a key in one line
BOLD: dict[str, Any] = dict(fontsize=8, weight="bold")


def gallery(
    queries: np.ndarray,
    neighbors: np.ndarray,
    found: Any,
    *,
    class_names: tuple[str, ...] | None = None,
    theme: str = "light",
) -> Figure:
    """Draws every query with its nearest neighbors, the most similar first.

    Below a neighbor stand its cosine similarity and its weight w, then its class
    and its age in steps. A bar shows w, its full length the largest of the query. Solid
    borders are of the query's class, dashed ones of another. Of more than 8 neighbors
    the first 8 are drawn.

    Args:
      queries: uint8 (n, s, s, 3).
      neighbors: uint8 (n, k, s, s, 3).
      found: holds the (n, k) arrays `similarity`, `weight`, `age` and `valid`,
        and `query_label` (n,) and `neighbor_label` (n, k) or None, such as
        `snclr_jax.evaluate.memory.gallery.Gallery`.
      class_names: by label; None shows the numbers.
      theme: "light" or "dark".

    Raises:
      ValueError: where the pictures do not fit the arrays.
    """
    _check(queries, neighbors, np.shape(found.similarity))
    count, k = len(queries), min(neighbors.shape[1], MOST_NEIGHBORS)
    block = (k + 1) * PITCH + AFTER_QUERY
    blocks = max(1, min(count, int((WIDTH + BETWEEN) // (block + BETWEEN))))
    rows = -(-count // blocks)
    width = max(blocks * (block + BETWEEN) - BETWEEN, NARROWEST)
    height = rows * ROW + HEAD
    with themed(theme) as colors:
        key = KEY_LINE * (1 if width > KEY_WIDTH else 3)
        figure = new_figure(width, height + key, layout="none")
        axes = figure.add_axes((0, 0, 1, height / (height + key)))
        axes.set(xlim=(0, width), ylim=(height, 0))
        axes.axis("off")
        for number in range(count):
            column, row = divmod(number, rows)
            left, top = column * (block + BETWEEN), row * ROW + HEAD
            if row == 0:
                _add_heading(axes, left, k)
            _picture(axes, left + 0.05, top, queries[number])
            if found.query_label is not None:
                name = class_name(found.query_label[number], class_names)
                axes.text(left + 0.55, top + 1.06, name, ha="center", va="top", **BOLD)
            for rank in np.flatnonzero(found.valid[number, :k]).tolist():
                x, index = (
                    left + 0.05 + AFTER_QUERY + (rank + 1) * PITCH,
                    (number, rank),
                )
                picture = neighbors[index]
                _draw_neighbor(axes, x, top, picture, found, index, class_names, colors)
        columns = 3 if width > KEY_WIDTH else 1
        _add_key(figure, found.neighbor_label is not None, columns, colors)
    return figure


def _add_heading(axes: Axes, left: float, k: int) -> None:
    axes.text(left + 0.55, HEAD / 2, "image", ha="center", va="center")
    text = "its neighbors" + ", nearest first" * (k > 1)
    axes.text(left + 0.05 + PITCH + AFTER_QUERY, HEAD / 2, text, va="center")


def _draw_neighbor(
    axes: Axes,
    x: float,
    y: float,
    picture: np.ndarray,
    gallery: Any,
    index: tuple[int, int],
    class_names: tuple[str, ...] | None,
    theme: Theme,
) -> None:
    weight = gallery.weight[index]
    largest = max(gallery.weight[index[0]].max(), 1e-12)
    _picture(axes, x, y, picture)
    name, border = "", None
    if gallery.neighbor_label is not None:
        own, theirs = gallery.query_label[index[0]], gallery.neighbor_label[index]
        name = class_name(theirs, class_names)
        if min(own, theirs) >= 0:
            border = _border(own == theirs, theme)
    if border:
        axes.add_patch(Rectangle((x, y), 1, 1, **border))
    axes.add_patch(
        Rectangle((x, y + 1.05), weight / largest, BAR, facecolor=theme.muted)
    )
    similarity = gallery.similarity[index]
    small: dict[str, Any] = dict(ha="center", va="top", fontsize=8)
    axes.text(x + 0.5, y + 1.16, f"cos {similarity:.2f}  w {weight:.2f}", **small)
    age = f"age {gallery.age[index]}"
    # Of a long name the line has no room for the age.
    second = name if len(name) > 9 else "   ".join(filter(None, [name, age]))
    axes.text(x + 0.5, y + 1.33, second, **small)


def _picture(axes: Axes, x: float, y: float, picture: np.ndarray) -> None:
    axes.imshow(picture, extent=(x, x + 1, y + 1, y), aspect="auto", zorder=1)


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
    label = "weight w; full length: the largest"
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
            f"fit similarities of shape {shape}; use pictures (n, s, s, 3) and "
            "(n, k, s, s, 3) for (n, k)"
        )
