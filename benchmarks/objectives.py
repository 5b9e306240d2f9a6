"""Every objective on the same images, views, networks and optimizer, side by side.

    python benchmarks/objectives.py digits omniglot=FOLDER cifar10=FOLDER --minutes=480

FOLDER holds train/<class>/* and test/<class>/*. The online network sees as many images
with each objective, two views of each. Short runs try each objective at its published
temperature, at half and at twice of it, and score training images that are held back;
at the temperature of the best kNN it is trained longer, with three seeds on all
training images, and scored on the test images at the end. What says most comes first:
published temperatures, the others, then seeds.

The same command continues what was stopped or killed at any moment, and repeats no run
that is complete: each is a folder of runs/benchmarks/objectives. Several processes of
it share the runs, and so small a network learns more images in two processes of one
core each (`taskset -c 0 python ... & taskset -c 1 python ...`) than in one of two.
After --minutes no new run starts (0: none at all), and a section of
benchmarks/RESULTS.md is written for each image set, from what is there. A value at
which the loss is no longer a number is out. --debug rehearses in other folders, with
any 200 images, and prints in place of writing.
"""

from __future__ import annotations

import math

from comparison import (
    BASELINE,
    HELD_BACK,
    ORDER,
    TEST,
    Comparison,
    Run,
    tried,
)
from report import table
from workdirs import cell, command

COLUMNS = (
    ("kNN", "knn", ".2f"),
    ("linear", "linear", ".2f"),
    ("effective rank", "effective_rank", ".1f"),
    ("neighbor purity", "neighbor_purity", ".2f"),
    ("ms a step", "ms", ".1f"),
    ("MB", "step_mb", ".0f"),
)
CAPTION = """\
{epochs} epochs of the recipe `{name}` in benchmarks/image_sets.py, two views of each
image. Settings of an objective are its defaults, but for the size of a queue and what
is varied: a temperature, or what takes its place; SNCLR has the recipe's. The best kNN
on {holdback} held-back training images after {tries} epochs chose it (bold), with one
seed. Rows scored on test images are of it, on all training images: means over seeds
with half of their 95% interval. Rows scored on held-back images are of the published
value. kNN is {pixels} on raw pixels, and {untrained} on the untrained encoder. The
linear probe is of frozen features; a step has one core, and its time is that of the
fastest part of all seeds; MB is the peak of the compiled step with the images on the
device. With two views cacr_momentum is info_nce, and has no row."""


def section(comparison: Comparison) -> list[str]:
    """Returns the heading, the caption and the table of what is complete."""
    runs = [*comparison.final(BASELINE), *tried(BASELINE)]
    first = next(filter(None, map(comparison.figures, runs)), {})
    caption = CAPTION.format(
        name=comparison.name,
        holdback=comparison.set.holdback,
        epochs=comparison.set.epochs,
        tries=comparison.set.tries,
        pixels=cell([first], "knn_raw_pixels", ".2f"),
        untrained=cell([first], "knn_untrained", ".2f"),
    )
    rows = [row(comparison, name) for name in ORDER]
    header = ("objective", "held-back kNN", "scored on", *(each[0] for each in COLUMNS))
    return [f"Objectives: {comparison.name}", caption, table(header, rows)]


def row(comparison: Comparison, objective: str) -> list[str]:
    """Returns an objective's figures, of its first run where there are no seeds."""
    final, runs = comparison.final(objective), tried(objective)
    seeds = list(filter(None, map(comparison.figures, final)))
    shown = seeds or list(filter(None, [comparison.figures(runs[0])]))
    fastest = min((each["ms"] for each in shown), default=math.nan)
    shown = [each | {"ms": fastest} for each in shown]
    chosen = final[0].value if final else None
    return [
        f"{objective} (K = 0)" if objective == BASELINE else objective,
        ", ".join(score(comparison, run, chosen=chosen) for run in runs),
        f"{TEST}, seeds: {len(seeds)}" if seeds else HELD_BACK,
        *(cell(shown, name, form) for _, name, form in COLUMNS),
    ]


def score(comparison: Comparison, run: Run, *, chosen: float | None) -> str:
    """Returns the kNN of a run behind what is varied; the one that was best is bold."""
    knn = cell([comparison.figures(run)], "knn", ".2f")
    said = "not finite" if comparison.failed(run) else knn
    if run.value is None:
        return said
    bold = "**" * (run.value == chosen)
    return f"{run.value:g}: {bold}{said}{bold}"


if __name__ == "__main__":
    command("objectives.py", __doc__, Comparison, section)
