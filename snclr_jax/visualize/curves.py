"""How a run went: its metrics over the steps, in small panels."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from snclr_jax.visualize.labels import label_ends
from snclr_jax.visualize.style import Theme, new_figure, themed

COLUMNS = 3
WIDTH, HEIGHT = 10.6, 2.35  # inches, of a figure and of a row of panels

Lines = Sequence[dict[str, float]]
# Title with its unit, and the metrics with their labels; one metric needs none.
Panel = tuple[str, dict[str, str]]

RUN: tuple[Panel, ...] = (
    ("loss (nats)", {"loss": ""}),
    ("accuracy (%)", {"knn": "kNN", "probe_accuracy": "online probe"}),
    ("spread of projections (0 to 1)", {"feature_std": ""}),
    ("norm of the gradient", {"gradient_norm": ""}),
    ("learning rate", {"learning_rate": ""}),
    ("speed (images/s)", {"images_per_second": ""}),
)
NEIGHBORS: tuple[Panel, ...] = (
    (
        "positiveness w",
        {"positiveness_max": "largest", "positiveness_mean": "mean"},
    ),
    ("entropy of w (nats)", {"positiveness_entropy": ""}),
    ("neighbors of own class (share)", {"neighbor_purity": ""}),
    ("similarity of neighbors (cosine)", {"neighbor_similarity": ""}),
    ("age of neighbors (steps)", {"neighbor_age": ""}),
    ("weight λ of all neighbors", {"neighbor_weight": ""}),
)
# Amounts that are seen from 0; of the others the change is what matters.
FROM_ZERO = {
    *("knn", "feature_std", "gradient_norm", "learning_rate", "images_per_second"),
    *("positiveness_max", "neighbor_purity", "neighbor_age", "neighbor_weight"),
}
# Written once, before training.
BASELINES = {
    "knn_initial": "initial",
    "knn_untrained": "untrained",
    "knn_raw_pixels": "raw pixels",
}


def curves(lines: Lines, *, theme: str = "light") -> Figure:
    """Draws loss, accuracy, spread, gradient, learning rate and speed over the steps.

    Panels whose metric the run does not have are left out.

    Args:
      lines: of metrics.jsonl, see `snclr_jax.run.metrics.read_metrics`.
      theme: "light" or "dark".

    Raises:
      ValueError: where no line has any of the metrics.
    """
    return _draw(lines, RUN, theme, _add_baselines)


def positiveness(lines: Lines, *, theme: str = "light") -> Figure:
    """Draws how the neighbors and their positiveness develop over the steps.

    Args:
      lines: of metrics.jsonl; a run with K = 0 has none of these metrics.
      theme: "light" or "dark".

    Raises:
      ValueError: where no line has any of the metrics.
    """
    return _draw(lines, NEIGHBORS, theme)


def _draw(
    lines: Lines,
    panels: Sequence[Panel],
    theme: str,
    extra: Callable[[Axes, Lines, Theme], list] | None = None,
) -> Figure:
    known = set().union(*lines)
    shown = [panel for panel in panels if known & panel[1].keys()]
    if not shown:
        raise ValueError(
            f"no line has any of the metrics {[name for _, m in panels for name in m]}"
        )
    rows = -(-len(shown) // COLUMNS)
    with themed(theme) as colors:
        figure = new_figure(WIDTH, HEIGHT * rows)
        grid = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
        last = max(line["step"] for line in lines)
        for axes, (title, metrics) in zip(grid, shown, strict=False):
            ends = _plot(axes, lines, metrics, colors)
            axes.set_xlim(0, max(last, 1))
            axes.margins(y=0.12)
            axes.locator_params(axis="x", nbins=5)
            axes.set(title=title, xlabel="step")
            if extra and "knn" in metrics:
                ends += extra(axes, lines, colors)
            if FROM_ZERO & metrics.keys():
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
        axes.plot(*zip(*points, strict=True), color=color, marker=marker, markersize=4)
        if label:
            ends.append((points[-1][1], label, color))
    return ends


def _add_baselines(axes: Axes, lines: Lines, theme: Theme) -> list:
    """Draws kNN without training as dashed lines, and returns their labels."""
    ends = []
    for metric, label in BASELINES.items():
        for line in lines:
            if metric in line:
                axes.axhline(line[metric], color=theme.muted, dashes=(4, 3), lw=1.2)
                ends.append((line[metric], label, theme.muted))
                break
    return ends
