"""Digits: what single choices of the recipe change.

    python benchmarks/digits.py

One seed and six epochs, scored on 2,000 held-back training pictures; neighbors.py has
the whole recipe with and without neighbors. Every run is a fresh process of the command
line; finished ones are not repeated. Prints a Markdown table, whose rows belong in
benchmarks/RESULTS.md with hardware and date.
"""

from __future__ import annotations

from report import table
from runs import run

CHOICES = {
    "SNCLR (the recipe)": {},
    "K = 0 (InfoNCE)": {"objective.queue.k": 0},
    "EMA momentum 0.99": {"ema.momentum": 0.99},
    "soft cross-entropy": {"objective.form": "soft_cross_entropy"},
    "linear attention": {"objective.attention.kind": "linear"},
    "own views allowed": {"objective.queue.exclude_same_image": False},
    "loss temperature 0.2": {"objective.temperature": 0.2},
}


def main() -> None:
    short = {"data.holdback": 2000, "epochs": 6}
    summaries = {
        name: run("digits", f"choices {name}", settings | short, seed=0)
        for name, settings in CHOICES.items()
    }
    rows = [(name, f"{each['knn_trained']:.1f}") for name, each in summaries.items()]
    first = next(iter(summaries.values()))
    rows += [
        ("raw pixels", f"{first['knn_raw_pixels']:.1f}"),
        ("untrained encoder", f"{first['knn_untrained']:.1f}"),
    ]
    print(table(("run", "kNN"), rows))


if __name__ == "__main__":
    main()
