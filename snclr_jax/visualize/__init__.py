"""Figures of a run, from plain arrays: for notebooks, PNG files and the report.

A figure is one of matplotlib's, and takes `theme="light"` or `"dark"`. `attention` and
`activation` make the arrays that `overlays` draws, of an encoder and images.

    from snclr_jax import visualize
    from snclr_jax.run.metrics import read_metrics

    visualize.curves(read_metrics("runs/digits"))

`themed` and `new_figure` give the same look to figures of your own.
"""

from __future__ import annotations

from snclr_jax.visualize.attention import activation, attention, overlays
from snclr_jax.visualize.confusion import confusion
from snclr_jax.visualize.curves import curves
from snclr_jax.visualize.embedding import embedding
from snclr_jax.visualize.gallery import gallery
from snclr_jax.visualize.memory import neighbor_ranks, queue_age, queue_coverage
from snclr_jax.visualize.project import project
from snclr_jax.visualize.strips import strips
from snclr_jax.visualize.style import new_figure, pixels, save_all, themed

__all__ = [
    "activation",
    "attention",
    "confusion",
    "curves",
    "embedding",
    "gallery",
    "neighbor_ranks",
    "new_figure",
    "overlays",
    "pixels",
    "project",
    "queue_age",
    "queue_coverage",
    "save_all",
    "strips",
    "themed",
]
