"""One look for all figures, light and dark, for readers of every color vision."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.rcsetup import cycler

DPI = 144  # of files: one and a half times a laptop's, so that small text stays sharp
NAME_LENGTH = 16  # letters of a name that are shown
WIDTH = 10.6  # inches of a figure: a laptop's page


class Theme(NamedTuple):
    """Colors of a figure.

    Attributes:
      background: behind everything.
      text: of letters, at least 4.5 : 1 against the background (WCAG 2, AA).
      muted: of axes and what is only compared with, at least 3 : 1.
      grid: of grid lines.
      series: of up to 10 lines or classes: those of Okabe and Ito's palette that stand
        out from the background, and others that are, for readers of every color vision,
        as far from each other as the nearest two of theirs.
    """

    background: str
    text: str
    muted: str
    grid: str
    series: tuple[str, ...]


THEMES = {
    "light": Theme(
        background="#ffffff",
        text="#1b1f24",
        muted="#6b7480",
        grid="#e3e6ea",
        series=(
            *("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00"),
            *("#56b4e9", "#000000", "#aa22ff", "#882200", "#662288"),
        ),
    ),
    "dark": Theme(
        background="#14171c",
        text="#e8eaed",
        muted="#8d97a5",
        grid="#2b3038",
        series=(
            *("#56b4e9", "#e69f00", "#009e73", "#cc79a7", "#f0e442"),
            *("#d55e00", "#ffffff", "#7744ff", "#00eeaa", "#bb22aa"),
        ),
    ),
}


class _Figure(Figure):
    """A figure that a notebook shows once, as the value of a cell."""

    def _repr_png_(self) -> bytes:
        return encode(self)


@contextlib.contextmanager
def themed(theme: str) -> Generator[Theme]:
    """Matplotlib's settings for one theme, while a figure is drawn.

    Raises:
      ValueError: for an unknown theme.
    """
    if theme not in THEMES:
        raise ValueError(f"theme {theme!r} is unknown; use one of {tuple(THEMES)}")
    colors = THEMES[theme]
    settings: dict[Any, Any] = {
        "axes.axisbelow": True,
        "axes.edgecolor": colors.muted,
        "axes.facecolor": colors.background,
        "axes.grid": True,
        "axes.labelcolor": colors.text,
        "axes.prop_cycle": cycler(color=colors.series),
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlecolor": colors.text,
        "axes.titlelocation": "left",
        "axes.titlesize": 10.5,
        "axes.titleweight": "bold",
        "figure.facecolor": colors.background,
        "font.family": "sans-serif",
        "font.size": 9.5,
        "grid.color": colors.grid,
        "lines.linewidth": 1.8,
        "savefig.facecolor": "auto",
        "text.color": colors.text,
        "xtick.color": colors.muted,
        "xtick.labelcolor": colors.text,
        "ytick.color": colors.muted,
        "ytick.labelcolor": colors.text,
    }
    with mpl.rc_context(settings):
        yield colors


def new_figure(width: float, height: float, *, layout: Any = "constrained") -> Figure:
    """Returns an empty figure, in inches, that no global state of matplotlib keeps."""
    figure = _Figure(figsize=(width, height), layout=layout)
    FigureCanvasAgg(figure)
    return figure


def class_name(label: int, names: tuple[str, ...] | None) -> str:
    """Returns what a class is called, cut where it is long; "" for an unknown one."""
    if label < 0:
        return ""
    name = str(label) if names is None else names[label]
    name = name if len(name) <= NAME_LENGTH else name[: NAME_LENGTH - 1] + "…"
    return _no_formula(name)


def image_name(name: str) -> str:
    """Returns the end of an image's name, where those of one folder differ."""
    name = name if len(name) <= NAME_LENGTH else "…" + name[1 - NAME_LENGTH :]
    return _no_formula(name)


def _no_formula(text: str) -> str:
    return text.replace("$", r"\$")


def encode(figure: Figure, form: str = "png", **settings) -> bytes:
    """Returns a figure as a file's content; `form` is "png" or "webp"."""
    file = io.BytesIO()
    figure.savefig(file, format=form, dpi=DPI, pil_kwargs=settings or None)
    return file.getvalue()


def pixels(figure: Figure) -> np.ndarray:
    """Returns a figure as uint8 (height, width, 3), 100 pixels for an inch."""
    figure.canvas.draw()
    return np.asarray(cast(FigureCanvasAgg, figure.canvas).buffer_rgba())[..., :3]


def save_all(figures: Mapping[str, Figure], folder: str | Path) -> list[Path]:
    """Writes every figure to `folder/NAME.png` and returns the paths.

    Args:
      figures: by name.
      folder: created where there is none.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.png" for name in figures]
    for path, figure in zip(paths, figures.values(), strict=True):
        path.write_bytes(encode(figure))
    return paths
