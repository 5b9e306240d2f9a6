"""Labels beside what they name, none over another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patheffects import withStroke

LINE = 0.1  # height of a label, as a share of a small panel
ROUNDS = 200  # of pushing labels apart


def spread(wanted: Sequence[float] | np.ndarray, gap: float) -> np.ndarray:
    """Returns positions at least `gap` apart, in the order of the wanted ones.

    They stay where they are wanted where they can; crowded ones are spread around the
    middle of what they want.

    Example:
      >>> spread([0.5, 0.5, 0.9], 0.2).round(2).tolist()
      [0.4, 0.6, 0.9]
    """
    wanted = np.asarray(wanted, float)
    order = np.argsort(wanted, kind="stable")
    # Neighbors that are too close become a block around its mean (pool adjacent
    # violators, on the positions less what the gaps before them take).
    steps = gap * np.arange(len(wanted))
    blocks: list[list[float]] = []
    for value in wanted[order] - steps:
        blocks.append([value, 1])
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            mean, count = blocks.pop()
            before, others = blocks[-1]
            total = count + others
            blocks[-1] = [(mean * count + before * others) / total, total]
    placed = np.concatenate([np.full(int(count), mean) for mean, count in blocks])
    positions = np.empty_like(wanted)
    positions[order] = placed + steps
    return positions


def label_ends(axes: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Writes (height in data, text, color of its mark) to the right of a panel."""
    if not ends:
        return
    low, high = axes.get_ylim()
    wanted = [(height - low) / (high - low) for height, _, _ in ends]
    for position, (_, text, color) in zip(spread(wanted, LINE), ends, strict=True):
        axes.annotate(
            "■ ",
            (1.02, position),
            xycoords="axes fraction",
            color=color,
            va="center",
            fontsize=7,
        )
        axes.annotate(
            text, (1.065, position), xycoords="axes fraction", va="center", fontsize=8.5
        )


def label_points(
    axes: Axes, points: np.ndarray, texts: Sequence[str], background: str
) -> None:
    """Writes a text at every point, pushed apart where two would touch.

    A text that had to move far is joined to its point by a thin line.

    Args:
      axes: with its final limits.
      points: (n, 2) in data.
      texts: n of them.
      background: color of the rim around the letters.
    """
    renderer = cast(FigureCanvasAgg, axes.figure.canvas).get_renderer()
    drawn = [
        axes.text(
            x,
            y,
            text,
            ha="center",
            va="center",
            weight="bold",
            zorder=6,
            path_effects=[withStroke(linewidth=3, foreground=background)],
        )
        for (x, y), text in zip(points, texts, strict=True)
    ]
    boxes = [text.get_window_extent(renderer) for text in drawn]
    sizes = np.array([(box.width + 4, box.height + 2) for box in boxes])
    start = axes.transData.transform(points)
    centers = _push_apart(start, sizes, axes.get_window_extent(renderer))
    for text, center, origin, size in zip(drawn, centers, start, sizes, strict=True):
        x, y = axes.transData.inverted().transform(center)
        text.set_position((x, y))
        if np.any(np.abs(center - origin) > size):
            ends = axes.transData.inverted().transform([origin, center])
            axes.plot(*ends.T, color=text.get_color(), linewidth=0.6, zorder=5)


def _push_apart(start: np.ndarray, sizes: np.ndarray, panel) -> np.ndarray:
    """Returns (n, 2) centers of boxes that overlap no more, inside the panel."""
    centers = start.astype(float).copy()
    low = np.array([panel.x0, panel.y0]) + sizes / 2
    high = np.maximum(np.array([panel.x1, panel.y1]) - sizes / 2, low)
    for _ in range(ROUNDS):
        moved = False
        for i in range(len(centers)):
            for j in range(i):
                between = centers[i] - centers[j]
                overlap = (sizes[i] + sizes[j]) / 2 - np.abs(between)
                if overlap.min() <= 0:
                    continue
                axis = int(np.argmin(overlap))
                way = 1.0 if between[axis] >= 0 else -1.0
                centers[i, axis] += way * (overlap[axis] / 2 + 0.5)
                centers[j, axis] -= way * (overlap[axis] / 2 + 0.5)
                moved = True
        centers = np.clip(centers, low, high)
        if not moved:
            break
    return centers
