"""Labels beside what they name, none over another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patheffects import withStroke
from matplotlib.transforms import Bbox

LINE = 0.1  # height of a label, as a share of a small panel
ROOM = 7  # pixels that a label on a map keeps free on every side


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
    axes: Axes, points: Sequence[np.ndarray], texts: Sequence[str], background: str
) -> None:
    """Writes a text at every point that has room for it, the first ones first.

    Args:
      axes: with its final limits and size.
      points: n of (2,) in data.
      texts: n of them.
      background: color of the rim around the letters.
    """
    renderer = cast(FigureCanvasAgg, axes.figure.canvas).get_renderer()
    panel = axes.get_window_extent(renderer)
    written: list[Bbox] = []
    for (x, y), text in zip(points, texts, strict=True):
        label = axes.text(
            *(x, y, text),
            ha="center",
            va="center",
            weight="bold",
            zorder=6,
            path_effects=[withStroke(linewidth=3, foreground=background)],
        )
        box = label.get_window_extent(renderer)
        half = np.array([box.width, box.height]) / 2
        center = np.clip(
            axes.transData.transform((x, y)), panel.p0 + half, panel.p1 - half
        )
        x, y = axes.transData.inverted().transform(center)
        label.set_position((x, y))
        box = label.get_window_extent(renderer).padded(ROOM)
        if any(box.overlaps(other) for other in written):
            label.remove()
        else:
            written.append(box)
