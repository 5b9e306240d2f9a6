"""Maps of the embedding: one point for each image, colored by its class."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

# scipy has no stubs of its compiled classes.
from scipy.spatial import cKDTree  # pyrefly: ignore[missing-module-attribute]

from snclr_jax.visualize.labels import label_points
from snclr_jax.visualize.style import WIDTH, Theme, class_name, new_figure, themed

MOST_CLASSES = 20  # that are told apart; of more, the most frequent ones
SIDE = 5.3  # inches of a map
MARKERS = "o^"  # of the first ten classes, each in its color, and of the other ten
LEGEND_LINE, LETTER, MARK = 0.22, 0.085, 0.5  # inches, of an entry of the legend

Map = tuple[np.ndarray, tuple[str, str]]


def embedding(
    maps: Mapping[str, Map],
    labels: np.ndarray | None = None,
    *,
    class_names: tuple[str, ...] | None = None,
    width: float = WIDTH,
    theme: str = "light",
) -> Figure:
    """Draws maps of the same images side by side.

    A legend names every class, and so does the map where there is room for its name. Of
    more than 20 classes, the 20 of most points are colored and the others stay gray.

    Args:
      maps: by title, (n, 2) points and what the axes are, see `project`.
      labels: int (n,), below 0 where unknown; None draws one color.
      class_names: by label; None shows the numbers.
      width: of the figure at most, in inches; maps without room go below.
      theme: "light" or "dark".

    Raises:
      ValueError: for no map, or labels that do not fit it.
    """
    if not maps:
        raise ValueError("no map is given; use one or more of project()")
    count = len(next(iter(maps.values()))[0])
    labels = np.full(count, -1) if labels is None else labels
    for points, _ in maps.values():
        if len(labels) != len(points):
            raise ValueError(f"{len(labels)} labels do not fit {len(points)} points")
    classes, sizes = np.unique(labels[labels >= 0], return_counts=True)
    largest = np.argsort(-sizes, kind="stable")[:MOST_CLASSES]
    shown = np.sort(classes[largest])
    names = [class_name(label, class_names) for label in shown]
    side = min(SIDE, width)
    columns = min(len(maps), int(width // side))
    rows = -(-len(maps) // columns)
    with themed(theme) as colors:
        figure = new_figure(side * columns, side * rows)
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, (title, (points, ways)) in zip(panels, maps.items(), strict=False):
            _scatter(axes, points, labels, shown, colors)
            axes.set(title=title, xlabel=ways[0], ylabel=ways[1], xticks=[], yticks=[])
            axes.margins(0.06)
        for axes in panels[len(maps) :]:
            axes.remove()
        gray = []
        if len(classes) > len(shown):
            gray.append(f"{len(classes) - len(shown)} other classes")
        if np.any(labels < 0):
            gray.append("no label")
        if names:
            _add_legend(figure, names, " or ".join(gray), colors)
        # Names are placed when the panels have their final size.
        figure.canvas.draw()
        figure.set_layout_engine("none")
        for axes, (points, _) in zip(panels, maps.values(), strict=False):
            centers = [_densest(points[labels == label]) for label in classes[largest]]
            texts = [class_name(label, class_names) for label in classes[largest]]
            label_points(axes, centers, texts, colors.background)
    return figure


def _scatter(
    axes: Axes, points: np.ndarray, labels: np.ndarray, shown: np.ndarray, theme: Theme
) -> None:
    size = np.clip(14_000 / max(len(points), 1), 7, 30)
    if not len(shown):
        axes.scatter(*points.T, s=size, color=theme.series[0], linewidths=0, alpha=0.7)
        return
    known = np.isin(labels, shown)
    axes.scatter(
        *points[~known].T, s=size * 0.6, color=theme.muted, linewidths=0, alpha=0.35
    )
    lap, turn = np.divmod(np.searchsorted(shown, labels), len(theme.series))
    # In a mixed-up order: no class lies over all others.
    order = np.random.RandomState(0).permutation(np.flatnonzero(known))
    for number, marker in enumerate(MARKERS):
        some = order[lap[order] == number]
        colors = [theme.series[index] for index in turn[some]]
        style = dict(marker=marker, linewidths=0, alpha=0.85)
        axes.scatter(*points[some].T, s=size, c=colors, **style)


def _add_legend(figure: Figure, names: list[str], gray: str, theme: Theme) -> None:
    looks = list(itertools.product(MARKERS, theme.series))[: len(names)]
    if gray:
        looks, names = [*looks, ("o", theme.muted)], [*names, gray]
    marks = [
        Line2D([], [], linestyle="", label=name, marker=marker, color=color)
        for name, (marker, color) in zip(names, looks, strict=True)
    ]
    entry = MARK + LETTER * max(map(len, names))
    columns = max(1, int(figure.get_figwidth() // entry))
    lines = -(-len(marks) // columns)
    figure.set_figheight(figure.get_figheight() + LEGEND_LINE * lines)
    figure.legend(
        handles=marks,
        loc="outside lower left",
        ncols=columns,
        frameon=False,
        handletextpad=0,
        columnspacing=1,
    )


def _densest(points: np.ndarray) -> np.ndarray:
    """Returns the point with the most others around it: a class may be in parts."""
    tree, count = cKDTree(points), len(points)
    distance, _ = tree.query(points, [min(count, 1 + round(count**0.5))])
    return points[np.argmin(distance[:, 0])]
