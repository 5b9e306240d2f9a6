"""How the rows of a queue are used, how old and how right the chosen ones are."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from snclr_jax.visualize.style import new_figure, themed

WIDTH, HEIGHT = 5.3, 3.1  # inches
BINS = 30


def queue_coverage(uses: np.ndarray, *, theme: str = "light") -> Figure:
    """Draws how often every row was chosen, the most used rows first.

    A second line is what choices at random would do.

    Args:
      uses: int (rows,), how often each filled row was chosen.
      theme: "light" or "dark".

    Raises:
      ValueError: where nothing was chosen.
    """
    uses = np.sort(np.asarray(uses))[::-1]
    if not uses.sum():
        raise ValueError("no row of the queue was chosen, so there is nothing to draw")
    random = np.sort(np.random.RandomState(0).poisson(uses.mean(), len(uses)))[::-1]
    # A row's step ends at its share, and the first one's starts at 0.
    share = 100 * np.arange(len(uses) + 1) / len(uses)
    uses, random = (np.append(counts[:1], counts) for counts in (uses, random))
    with themed(theme) as colors:
        figure = new_figure(WIDTH, HEIGHT)
        axes = figure.subplots()
        axes.fill_between(share, uses, step="pre", color=colors.series[0], lw=0)
        axes.plot(share, random, color=colors.series[1], dashes=(4, 2), lw=1.4)
        axes.set(
            title=f"times a row was chosen ({np.mean(uses[1:] > 0):.0%} of them ever)",
            xlabel="filled rows, the most used first (%)",
            xlim=(0, 100),
            ylim=(0, None),
        )
        axes.locator_params(axis="y", integer=True)
        axes.legend(
            *([axes.collections[0], axes.lines[0]], ["this run", "at random"]),
            frameon=False,
            loc="upper right",
        )
    return figure


def queue_age(chosen: np.ndarray, rows: np.ndarray, *, theme: str = "light") -> Figure:
    """Draws how old the chosen rows are, beside all rows that could be chosen.

    Args:
      chosen: int (m,), age in steps of every choice.
      rows: int (rows,), age in steps of every filled row.
      theme: "light" or "dark".

    Raises:
      ValueError: where nothing was chosen, or no row is filled.
    """
    if not len(chosen) or not len(rows):
        raise ValueError("no row of the queue was chosen, so there is nothing to draw")
    high = max(np.max(chosen), np.max(rows)) + 1
    # Of as many whole steps each: others would hold now more, now fewer ages.
    edges = np.arange(0, high + -(-high // BINS), -(-high // BINS))
    with themed(theme) as colors:
        figure = new_figure(WIDTH, HEIGHT)
        axes = figure.subplots()
        shares = [
            100 * np.histogram(ages, edges)[0] / len(ages) for ages in (chosen, rows)
        ]
        filled = axes.stairs(shares[0], edges, fill=True, color=colors.series[0])
        outline = axes.stairs(shares[1], edges, color=colors.series[1], lw=1.6)
        axes.set(
            title="age of rows (% of choices, % of rows)",
            xlabel="age (steps since the row was pushed)",
            xlim=(0, edges[-1]),
        )
        axes.locator_params(axis="x", integer=True)
        axes.margins(y=0.25)
        axes.legend(
            *([filled, outline], ["chosen", "all filled rows"]),
            frameon=False,
            loc="upper right",
            ncols=2,
        )
    return figure


def neighbor_ranks(
    purity: np.ndarray,
    right_weight: np.ndarray,
    wrong_weight: np.ndarray,
    *,
    theme: str = "light",
) -> Figure:
    """Draws how many neighbors have the image's class by rank, and what they weigh.

    Args:
      purity: (k,) share of the right ones, the most similar neighbor first.
      right_weight, wrong_weight: (k,) mean weight of each kind; nan where there is
        none.
      theme: "light" or "dark".
    """
    ranks = np.arange(1, len(purity) + 1)
    with themed(theme) as colors:
        figure = new_figure(WIDTH, 1.4 * HEIGHT)
        shares, weights = figure.subplots(2, 1, sharex=True)
        shares.bar(ranks, 100 * purity, color=colors.series[0], width=0.7)
        shares.set(title="neighbors of the image's class (%)", ylim=(0, 100))
        style = dict(marker="o", markersize=4)
        weights.plot(ranks, right_weight, color=colors.series[0], **style)
        weights.plot(ranks, wrong_weight, color=colors.series[1], **style)
        weights.set(
            title="mean weight w",
            xlabel="rank of the neighbor, the most similar first",
            xlim=(0.4, len(ranks) + 0.6),
            ylim=(0, None),
        )
        weights.locator_params(axis="x", integer=True)
        weights.margins(y=0.35)
        weights.legend(
            weights.lines,
            ["of its class", "of another"],
            frameon=False,
            loc="upper right",
            ncols=2,
        )
    return figure
