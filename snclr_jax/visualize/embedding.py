"""Maps of the embedding: one point for each image, colored by its class."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

# scipy has no stubs of its compiled classes.
from scipy.spatial import cKDTree  # pyright: ignore[reportAttributeAccessIssue]

from snclr_jax.visualize.labels import label_points
from snclr_jax.visualize.style import (
    Theme,
    class_colors,
    class_name,
    new_figure,
    themed,
)

MOST_CLASSES = 20  # that are told apart; of more, the most frequent ones
SIDE = 5.3  # inches of a map
MARKERS = "o^s"  # in turn, where there are more classes than colors of the palette

Map = tuple[np.ndarray, tuple[str, str]]


def embedding(
    maps: Mapping[str, Map],
    labels: np.ndarray | None = None,
    *,
    class_names: tuple[str, ...] | None = None,
    theme: str = "light",
) -> Figure:
    """Draws maps of the same images side by side.

    A class is named where its points are. Of more than 20 classes, the 20 of most
    points are colored and the others stay gray.

    Args:
      maps: by title, (n, 2) points and what the axes are, see `project`.
      labels: int (n,), below 0 where unknown; None draws one color.
      class_names: by label; None shows the numbers.
      theme: "light" or "dark".

    Raises:
      ValueError: for no map, or labels that do not fit it.
    """
    if not maps:
        raise ValueError("no map is given; use one or more of project()")
    for points, _ in maps.values():
        if labels is not None and len(labels) != len(points):
            raise ValueError(f"{len(labels)} labels do not fit {len(points)} points")
    classes, total = _shown(labels)
    with themed(theme) as colors:
        figure = new_figure(SIDE * len(maps), SIDE)
        panels = figure.subplots(1, len(maps), squeeze=False)[0]
        for axes, (title, (points, names)) in zip(panels, maps.items(), strict=True):
            _scatter(axes, points, labels, classes, colors)
            axes.set(title=title, xlabel=names[0], ylabel=names[1])
            axes.set(xticks=[], yticks=[])
            axes.margins(0.06)
        if total > len(classes):
            figure.suptitle(
                f"in color: the {len(classes)} most frequent of {total} classes",
                fontsize=9.5,
            )
        # Labels are placed when the panels have their final size.
        figure.canvas.draw()
        figure.set_layout_engine("none")
        for axes, (points, _) in zip(panels, maps.values(), strict=True):
            if len(classes):
                centers = [_densest(points[labels == label]) for label in classes]
                texts = [class_name(label, class_names) for label in classes]
                label_points(axes, np.array(centers), texts, colors.background)
    return figure


def _shown(labels: np.ndarray | None) -> tuple[np.ndarray, int]:
    """Returns the classes to tell apart, and how many there are."""
    if labels is None:
        return np.empty(0, int), 0
    classes, sizes = np.unique(labels[labels >= 0], return_counts=True)
    largest = np.argsort(-sizes, kind="stable")[:MOST_CLASSES]
    return np.sort(classes[largest]), len(classes)


def _scatter(
    axes: Axes,
    points: np.ndarray,
    labels: np.ndarray | None,
    classes: np.ndarray,
    theme: Theme,
) -> None:
    size = np.clip(14_000 / max(len(points), 1), 7, 30)
    if labels is None or not len(classes):
        axes.scatter(*points.T, s=size, color=theme.series[0], linewidths=0, alpha=0.7)
        return
    class_index = np.searchsorted(classes, labels)
    known = np.isin(labels, classes)
    axes.scatter(
        *points[~known].T, s=size * 0.6, color=theme.muted, linewidths=0, alpha=0.35
    )
    palette = np.array([to_rgba(color) for color in class_colors(len(classes), theme)])
    markers = MARKERS if len(classes) > len(theme.series) else MARKERS[:1]
    # In a mixed-up order: no class lies over all others.
    order = np.random.RandomState(0).permutation(np.flatnonzero(known))
    for number, marker in enumerate(markers):
        some = order[class_index[order] % len(markers) == number]
        axes.scatter(
            *points[some].T,
            s=size,
            c=palette[class_index[some]],
            marker=marker,
            linewidths=0,
            alpha=0.85,
        )


def _densest(points: np.ndarray) -> np.ndarray:
    """Returns the point with the most others around it: a class may be in parts."""
    tree, count = cKDTree(points), len(points)
    distance, _ = tree.query(points, [min(count, 1 + round(count**0.5))])
    return points[np.argmin(distance[:, 0])]
