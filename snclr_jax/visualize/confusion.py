"""Which classes a classifier takes for which."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from snclr_jax.visualize.style import WIDTH, Theme, class_name, new_figure, themed

BAR = 0.9  # inches that the color bar takes
PANEL, HEIGHT = 4.6, 4.6  # inches that a list needs
MOST_WITH_NUMBERS = 12  # classes whose cells have room for a number
PAIRS = 15  # confusions that are listed of more classes


def confusion(
    true: np.ndarray,
    found: np.ndarray,
    *,
    class_names: tuple[str, ...] | None = None,
    width: float = WIDTH,
    theme: str = "light",
) -> Figure:
    """Draws a confusion matrix, or of many classes what matters of it.

    Up to 12 classes, and on a laptop's page up to 30, are a matrix, rows in percent of
    a true class. Of more, one panel has the accuracy of every class in rising order,
    and another the pairs of classes that are confused most often.

    Args:
      true: int (n,) label of every image, >= 0.
      found: int (n,) the class that it was put in.
      class_names: by label; None shows the numbers.
      width: of the figure at most, in inches.
      theme: "light" or "dark".

    Raises:
      ValueError: for no image, or arrays that do not fit each other.
    """
    true, found = np.asarray(true), np.asarray(found)
    if not len(true) or true.shape != found.shape:
        raise ValueError(
            f"true classes of shape {true.shape} do not fit found ones of shape "
            f"{found.shape}; use (n,) for both, n >= 1"
        )
    classes, index = np.unique(np.stack([true, found]), return_inverse=True)
    true, found = index.reshape(2, -1)
    names = [class_name(label, class_names) for label in classes]
    with themed(theme) as colors:
        side = 3.2 + 0.18 * len(names) + 0.05 * max(map(len, names))
        if side + BAR > width and len(names) > MOST_WITH_NUMBERS:
            columns = min(2, int(width // PANEL))
            figure = new_figure(width, HEIGHT * 2 // columns)
            # Each with room for its own names.
            halves = figure.subfigures(2 // columns, columns, squeeze=False)
            first, second = halves.ravel()
            _rising_accuracy(first.subplots(), true, found, names, colors)
            _frequent_pairs(second.subplots(), true, found, names, colors)
            return figure
        side = min(side, width - BAR)
        figure = new_figure(side + BAR, side)
        counts = np.zeros((len(names), len(names)), int)
        np.add.at(counts, (true, found), 1)
        _matrix(figure.subplots(), counts, names)
    return figure


def _matrix(axes: Axes, counts: np.ndarray, names: list[str]) -> None:
    shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="cividis", vmin=0, vmax=100)
    bar = axes.figure.colorbar(image, ax=axes, shrink=0.8)
    bar.set_label("images of the true class (%)")
    bar.outline.set_visible(False)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    turned = 90 if max(map(len, names)) > 3 else 0
    axes.set_xticks(range(len(names)), names, rotation=turned)
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(length=0)
    axes.set(xlabel="class of the nearest neighbors", ylabel="true class")
    if len(counts) > MOST_WITH_NUMBERS:
        return
    for (row, column), share in np.ndenumerate(shares):
        if counts[row, column]:
            # Of the map's own brightness, so that it is read on every cell.
            light = np.dot(mpl.colormaps["cividis"](share / 100)[:3], (0.3, 0.6, 0.1))
            axes.text(
                *(column, row, f"{share:.0f}"),
                ha="center",
                va="center",
                fontsize=8,
                color="black" if light > 0.45 else "white",
            )


def _rising_accuracy(
    axes: Axes, true: np.ndarray, predicted: np.ndarray, names: list[str], theme: Theme
) -> None:
    total = np.bincount(true, minlength=len(names))
    known = np.flatnonzero(total)
    right = np.bincount(true[true == predicted], minlength=len(names))
    accuracy = 100 * right[known] / total[known]
    order = np.argsort(accuracy, kind="stable")
    axes.fill_between(
        np.arange(1, len(known) + 1), accuracy[order], color=theme.series[0], lw=0
    )
    axes.set(
        title=f"accuracy of {len(known)} classes (%)",
        xlabel="classes, the least accurate first",
        ylim=(0, 100),
        xlim=(1, len(known)),
    )
    ends = [
        "\n   ".join([end, *(names[known[index]] for index in of_end[:3])])
        for end, of_end in (("least:", order), ("most:", order[::-1]))
    ]
    axes.text(
        *(0.03, 0.97, "\n".join(ends)),
        transform=axes.transAxes,
        va="top",
        fontsize=8.5,
        bbox=dict(facecolor=theme.background, edgecolor="none", alpha=0.85),
    )


def _frequent_pairs(
    axes: Axes, true: np.ndarray, predicted: np.ndarray, names: list[str], theme: Theme
) -> None:
    wrong = np.stack([true, predicted])[:, true != predicted]
    pairs, counts = np.unique(wrong, axis=1, return_counts=True)
    most = np.argsort(-counts, kind="stable")[:PAIRS][::-1]
    texts = [f"{names[a]} → {names[b]}" for a, b in pairs[:, most].T]
    axes.barh(range(len(most)), counts[most], color=theme.series[0])
    axes.set_yticks(range(len(most)), texts, fontsize=8)
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")
    axes.locator_params(axis="x", integer=True)
    axes.set(title="frequent confusions", xlabel="images (true → found class)")
