"""The sections of the page about a run, in words and figures."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict
from matplotlib.figure import Figure

from snclr_jax import visualize
from snclr_jax.configs import base
from snclr_jax.data.bad_files import FILE as BAD_FILES
from snclr_jax.encoder.stored import Encoder
from snclr_jax.evaluate.frozen.accuracy import accuracy, in_words
from snclr_jax.evaluate.results import GOOD, Record, versions
from snclr_jax.report import page
from snclr_jax.report.measure import Confusion, EmbeddingMap, Looks
from snclr_jax.report.page import Drawing, Section
from snclr_jax.run.workdir import as_json
from snclr_jax.step.objective import Objective
from snclr_jax.visualize.style import THEMES

Names = tuple[str, ...] | None
MOST_NAMED = 10  # unreadable images; of more, the others are folded away


def curves(
    lines: Sequence[dict[str, float]], objective: Objective
) -> Iterator[Section]:
    """How training went, and how what the objective shows of itself developed."""
    known = set().union(*lines)
    knn = " kNN is measured at the online evaluations." if "knn" in known else ""
    yield Section(
        "Training",
        f"Means over each logging interval.{knn}",
        [drawing("curves", "metrics over the steps", visualize.curves, lines)],
    )
    if any(known & metrics.keys() for _, metrics, _ in objective.panels):
        yield Section(
            "Objective",
            objective.explanation,
            [
                drawing(
                    "objective",
                    "metrics of the objective over the steps",
                    *(visualize.curves, lines),
                    panels=objective.panels,
                )
            ],
        )


def looks(seen: Looks) -> Section:
    """Where the encoder looks."""
    meanings = {
        "attention": "the weights by which the class token of the last block attends "
        "to each patch, the mean over its heads",
        "activation": "the length of the encoder's last features at each position, "
        "whose mean over the positions is the feature",
    }
    return Section(
        "Where the encoder looks",
        "Training images and, beside each, "
        f"{meanings[seen.kind]}: the lighter, the larger, from the smallest to the "
        "largest value of each image.",
        [
            drawing(
                seen.kind,
                f"training images with maps of the encoder's {seen.kind}",
                *(visualize.overlays, seen.pictures, seen.maps),
            )._replace(photos=True)
        ],
    )


def embedding(mapped: EmbeddingMap, names: Names) -> Section:
    """Maps of the embedding."""
    count = len(next(iter(mapped.maps.values()))[0])
    others = [method for method in mapped.maps if method != "PCA"]
    keep = "keeps" if len(others) == 1 else "keep"
    some = f" of {mapped.images:,}" * (count < mapped.images)
    colored = ""
    if mapped.labels is not None:
        colored = " A class is named where its points are, where there is room."
    return Section(
        "Map of the embedding",
        f"Features of {count:,}{some} {mapped.split} images, brought to length 1, so "
        f"that directions are compared.{colored} PCA keeps distances as far as two "
        f"directions can; {' and '.join(others)} {keep} neighbors, and distances "
        "between groups mean little there.",
        [
            drawing(
                "embedding",
                "maps of the embedding, one point for each image",
                *(visualize.embedding, mapped.maps, mapped.labels),
                class_names=names,
            )
        ],
    )


def confusion(classified: Confusion, k: int, names: Names) -> Section:
    """What kNN takes for what."""
    found = accuracy(classified.true, classified.predicted).named("knn")
    always = classified.majority.named("majority")
    compared = "each by the others" if classified.left_out else "test images"
    return Section(
        "Confusion",
        f"{k}-NN of {len(classified.true):,} images ({compared}) among "
        f"{classified.train_images:,} training images: {in_words(found, 'knn')} right. "
        f"Always the most frequent class: {in_words(always, 'majority')}.",
        [
            drawing(
                "confusion",
                "which classes are taken for which",
                *(visualize.confusion, classified.true, classified.predicted),
                class_names=names,
            )
        ],
    )


def unreadable(lines: Sequence[dict[str, Any]]) -> Section:
    """The images that others were shown in place of."""
    rows = [[line["split"], line["name"], line["reason"]] for line in lines]
    head = ["split", "image", "why"]
    html = page.table(head, rows[:MOST_NAMED])
    if len(rows) > MOST_NAMED:
        others = page.table(head, rows[MOST_NAMED:])
        html += page.folded(f"{len(rows) - MOST_NAMED} more", others)
    return Section(
        "Unreadable images",
        f"{len(rows):,} images could not be read; in place of each stood another one. "
        f"From {BAD_FILES}, which keeps those that were repaired since.",
        html=html,
    )


def evaluations(records: Sequence[Record], workdir: Path, *, online: bool) -> Section:
    """The table of evaluation.json; `online` is whether training had a kNN."""
    if not records:
        command = f"snclr evaluate --workdir={shlex.quote(str(workdir))} --baselines"
        beyond = " beyond the online kNN" if online else ""
        text = f"This run has not been evaluated{beyond} yet."
        return Section("Evaluation", text, html=page.code([command]))

    def column(record: Record) -> str:
        if record["encoder"] != "trained":
            return record["encoder"]
        return f"trained ({record['network']}, step {record['step']})"

    columns = list(dict.fromkeys(map(column, records)))
    rows: dict[tuple[str, str, str], dict[str, float]] = {}
    for record in records:
        for name, value in record["metrics"].items():
            row = record["what"], name, record["data"]
            rows.setdefault(row, {})[column(record)] = value
    guided = any(row[1] in GOOD for row in rows)
    cells = (
        [
            *row,
            *(number(values[c]) if c in values else "" for c in columns),
            *[GOOD.get(row[1], "")] * guided,
        ]
        for row, values in rows.items()
    )
    text = "From evaluation.json, which holds every setting."
    if any("majority" in record["metrics"] for record in records):
        text += (
            " Accuracies in percent: the higher, the better. A balanced one is the "
            "mean over the classes; majority always answers the most frequent class."
        )
    head = ["evaluation", "metric", "images", *columns, *["what is good"] * guided]
    table = page.table(head, cells)
    return Section("Evaluation", text, html=table)


def number(value: float) -> str:
    if np.isnan(value):
        return ""
    # Accuracies have two decimals; shares and penalties may be small.
    return f"{value:.2f}" if abs(value) >= 0.1 or not value else f"{value:.3g}"


def settings(config: Any) -> Section:
    """The config: first what differs from the base, then everything."""
    ours, theirs = (
        flatten_dict(as_json(each), sep=".") for each in (config, base.get_config())
    )
    changed = [
        [name, repr(value), repr(theirs[name]) if name in theirs else "not there"]
        for name, value in sorted(ours.items())
        if name not in theirs or theirs[name] != value
    ]
    everything = [[name, repr(value)] for name, value in sorted(ours.items())]
    return Section(
        "Settings",
        "Fields that differ from configs/base.py.",
        html=page.table(["field", "this run", "base"], changed)
        + page.folded(
            f"all {len(everything)} fields", page.table(["field", "value"], everything)
        ),
    )


def origin(encoder: Encoder, workdir: Path) -> Section:
    """Versions, and the commands that make more of the run."""
    rows = [
        ["encoder", encoder.describe()],
        *map(list, versions().items()),
        ["python", platform.python_version()],
    ]
    run = f"--workdir={shlex.quote(str(workdir))}"
    commands = [
        f"snclr evaluate {run} --baselines",
        f"snclr features {run} --out=features.npz",
        f"snclr export {run} --out=encoder.safetensors",
        f"snclr report {run}",
        "tensorboard --logdir=" + shlex.quote(str(workdir / "tensorboard")),
    ]
    return Section(
        "Versions and commands",
        html=page.table(["of this page", ""], rows) + page.code(commands),
    )


def drawing(
    name: str, alt: str, draw: Callable[..., Figure], *args: Any, **settings: Any
) -> Drawing:
    """Returns a figure for laptops and for phones, of the arguments of `draw`."""
    narrow = themed(draw, *args, **settings, width=page.NARROW)
    return Drawing(name, alt, themed(draw, *args, **settings), narrow)


def themed(
    draw: Callable[..., Figure], *args: Any, **settings: Any
) -> dict[str, Figure]:
    """Returns a figure by theme."""
    return {theme: draw(*args, theme=theme, **settings) for theme in THEMES}
