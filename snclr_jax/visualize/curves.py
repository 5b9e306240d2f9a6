"""How a run went: its metrics over the steps, in small panels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from snclr_jax.visualize.labels import label_ends
from snclr_jax.visualize.style import WIDTH, Theme, new_figure, themed

PANEL, HEIGHT = 3.5, 2.35  # inches that a panel with its labels needs, and of a row
APART = 0.12  # inches between what belongs to a panel and the next one

Lines = Sequence[dict[str, float]]
# Title with its unit; the metrics with their labels, and one metric needs none; whether
# the amounts are seen from 0: of others the change is what matters.
Panel = tuple[str, dict[str, str], bool]

RUN: tuple[Panel, ...] = (
    ("loss (nats)", {"loss": ""}, False),
    (
        "accuracy (%)",
        {
            "knn": "kNN",
            "probe_test": "online probe",
            "probe_accuracy": "probe, training",
        },
        True,
    ),
    ("spread of projections (0 to 1)", {"feature_std": ""}, True),
    ("norm of the gradient", {"gradient_norm": ""}, True),
    ("learning rate", {"learning_rate": ""}, True),
    ("speed (images/s)", {"images_per_second": ""}, True),
)
# Written once, before training.
BASELINES = {
    "knn_initial": "initial",
    "knn_untrained": "untrained",
    "knn_raw_pixels": "raw pixels",
    "majority": "majority",
}


def curves(
    lines: Lines,
    *,
    panels: Sequence[Panel] = RUN,
    width: float = WIDTH,
    theme: str = "light",
) -> Figure:
    """Draws metrics over the steps, in small panels.

    Panels whose metrics the run does not have are left out.

    Args:
      lines: of metrics.jsonl, see `snclr_jax.run.metrics.read_metrics`.
      panels: what to draw; `panels` of an objective are those of its own metrics. The
        default: loss, accuracy, spread, gradient, learning rate and speed.
      width: of the figure, in inches.
      theme: "light" or "dark".

    Raises:
      ValueError: where no line has any of the metrics.
    """
    known = set().union(*lines)
    shown = [panel for panel in panels if known & panel[1].keys()]
    if not shown:
        raise ValueError(
            "no line has any of the metrics "
            f"{[name for _, metrics, _ in panels for name in metrics]}"
        )
    fitting = max(1, int(width // PANEL))
    columns = min(fitting, len(shown))
    rows = -(-len(shown) // columns)
    with themed(theme) as colors:
        layout = ConstrainedLayoutEngine(w_pad=APART)
        figure = new_figure(width * columns / fitting, HEIGHT * rows, layout=layout)
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        last = max(line["step"] for line in lines)
        for axes, (title, metrics, from_zero) in zip(grid, shown, strict=False):
            ends = _plot(axes, lines, metrics, colors)
            axes.set_xlim(0, max(last, 1))
            axes.margins(y=0.12)
            axes.locator_params(axis="x", nbins=5, integer=True)
            axes.set(title=title, xlabel="step")
            if "knn" in metrics:
                ends += _add_baselines(axes, lines, colors)
            if from_zero:
                low, high = axes.dataLim.intervaly
                axes.set_ylim(0, 1.1 * max(low, high, 1e-12))
            label_ends(axes, ends)
        for axes in grid[len(shown) :]:
            axes.remove()
    return figure


def _plot(axes: Axes, lines: Lines, metrics: dict[str, str], theme: Theme) -> list:
    ends = []
    for color, (metric, label) in zip(theme.series, metrics.items(), strict=False):
        points = [(line["step"], line[metric]) for line in lines if metric in line]
        if not points:
            continue
        # A single point makes no line, and few evaluations are better seen as points.
        few = 30 if metric == "knn" else 1
        marker = "o" if len(points) <= few else ""
        style: dict[str, Any] = dict(color=color, marker=marker, markersize=4)
        # The last point lies on the edge.
        axes.plot(*zip(*points, strict=True), **style, clip_on=False)
        if label:
            ends.append((points[-1][1], label, color))
    return ends


def _add_baselines(axes: Axes, lines: Lines, theme: Theme) -> list:
    """Draws what needs no training as dashed lines, and returns their labels."""
    ends = []
    for metric, label in BASELINES.items():
        for line in lines:
            if metric in line:
                axes.axhline(line[metric], color=theme.muted, dashes=(4, 3), lw=1.2)
                ends.append((line[metric], label, theme.muted))
                break
    return ends
