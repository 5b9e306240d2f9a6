"""`snclr report`: reads a run, measures what can be seen, writes one page."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh
from matplotlib.figure import Figure

from snclr_jax.data import Data, open_data
from snclr_jax.data.bad_files import BadFiles, read_bad_files
from snclr_jax.devices.mesh import make_mesh
from snclr_jax.encoder.stored import Encoder, open_encoder
from snclr_jax.evaluate.frozen.accuracy import in_words
from snclr_jax.evaluate.memory.choices import choices_of_run
from snclr_jax.evaluate.memory.networks import Search, open_networks
from snclr_jax.evaluate.results import read_records, records_path
from snclr_jax.evaluate.subject import make_subjects
from snclr_jax.report import measure, sections
from snclr_jax.report.neighbor_sections import neighbors
from snclr_jax.report.page import Section, numbers, page
from snclr_jax.run.files import (
    METRICS_FILE,
    SUMMARY_FILE,
    check_writable,
    read_if_there,
    replaced,
    write_whole,
)
from snclr_jax.run.metrics import read_metrics
from snclr_jax.run.workdir import has_images, read_config
from snclr_jax.visualize.curves import BASELINES
from snclr_jax.visualize.style import encode

REPORT_FILE = "report.html"
FIGURES = "figures"

Lines = Sequence[dict[str, float]]


def report(
    workdir: str | Path, *, data: Any = None, network: str | None = None
) -> Path:
    """Writes `report.html` and `figures/*.png` into the folder of a run.

    The page holds all it shows and needs no network. The run may still be training: the
    newest whole checkpoint is looked at, and every metric so far.

    Args:
      workdir: the run's folder.
      data: the images of the run, where they were given to `train`.
      network: "online" or "target", whose features are mapped and classified; None is
        what the run's config says.

    Returns:
      The path of the page.

    Raises:
      ValueError: where there is no run, no metric or no whole checkpoint yet, or a file
        is damaged; where other images are given than the run had.
    """
    workdir = Path(workdir)
    read_config(workdir)  # says so where there is no run at all
    check_writable(workdir)
    lines = read_metrics(workdir)
    if not any("loss" in line for line in lines):
        raise ValueError(
            f"{workdir / METRICS_FILE} has no step yet; a run writes one every "
            "log.every_steps steps"
        )
    records = read_records(records_path(workdir))
    mesh = make_mesh()
    encoder = open_encoder(workdir, network=network, mesh=mesh)
    images, unreadable = None, ""
    try:
        images = open_data(encoder.config.data, data)
    except (ValueError, OSError) as error:
        if data is not None:
            raise
        unreadable = f"The images of the run cannot be read here: {error}"
    if data is not None and images and not has_images(workdir, images.identity):
        raise ValueError(
            f"data= holds {images.identity['train']}, which are not the images of "
            f"{workdir}; give those that it was trained on"
        )

    search = Search.of(encoder.config, mesh)
    parts = [*sections.curves(lines, search.objective)]
    if images is None:
        parts.append(Section("Images", unreadable))
    else:
        with contextlib.closing(BadFiles(str(workdir), images)):
            parts += _of_images(encoder, search, images, mesh)
    bad = read_bad_files(workdir)
    if bad:
        parts.append(sections.unreadable(bad))
    parts += [
        sections.evaluations(records, workdir, online=any("knn" in x for x in lines)),
        sections.settings(encoder.config),
        sections.origin(encoder, workdir),
    ]
    name = workdir.absolute().name
    now = datetime.datetime.now(datetime.UTC).isoformat(sep=" ", timespec="minutes")
    subtitle = f"snclr report of {now}, networks of step {encoder.step}"
    html = page(
        name, subtitle, _summary(workdir, lines, encoder, images, len(bad)), parts
    )
    figures = {
        drawing.name: drawing.figures["light"]
        for part in parts
        for drawing in part.drawings
    }
    return _write(workdir, figures, html)


def _write(workdir: Path, figures: Mapping[str, Figure], html: str) -> Path:
    folder, path = workdir / FIGURES, workdir / REPORT_FILE
    folder.mkdir(exist_ok=True)
    for name, figure in figures.items():
        with replaced(folder / f"{name}.png") as part:
            part.write_bytes(encode(figure))
    write_whole(path, html)
    return path


def _of_images(
    encoder: Encoder, search: Search, data: Data, mesh: Mesh
) -> Iterator[Section]:
    config, names = encoder.config, data.class_names
    if search.objective.searches:
        memory = search, open_networks(encoder, search), data.train
        shown, chosen = measure.show_neighbors(*memory), choices_of_run(*memory)
        yield from neighbors(shown, chosen, names)
    else:
        yield Section(
            "Neighbors",
            "The objective of the run finds no neighbors for its images, so there is "
            "no gallery, and no use of a memory.",
        )
    yield sections.looks(measure.look(encoder, data.train, mesh))
    (subject,) = make_subjects(
        encoder, layers=False, baselines=False, settings=config.evaluate, mesh=mesh
    )
    mapped = measure.map_embedding(subject, data, seed=config.seed)
    if mapped is not None:
        yield sections.embedding(mapped, names)
    classified = measure.classify(subject, data, config, mesh)
    if classified is not None:
        yield sections.confusion(classified, config.evaluate.k, names)


def _summary(
    workdir: Path, lines: Lines, encoder: Encoder, data: Data | None, bad: int
) -> str:
    """Returns the numbers at the top of the page."""
    path = workdir / SUMMARY_FILE
    fix = "remove it, and the page says no time of training"
    summary = read_if_there(path, fix) or {}
    config, values = encoder.config, {}
    scored = [line for line in lines if "knn" in line]
    if scored:
        values["kNN, trained"] = in_words(scored[-1], "knn")
    for name, label in BASELINES.items():
        baseline = [line for line in lines if name in line]
        if baseline:
            title = f"kNN, {label}" if name.startswith("knn") else label
            values[title] = in_words(baseline[0], name)
    last = max(line["step"] for line in lines)
    values["steps"] = f"{last:,}"
    if data is not None:
        total = data.train.size // config.batch_size * config.epochs
        values["steps"] += " (finished)" if last >= total else f" of {total:,} so far"
        test = "" if data.test is None else f" + {data.test.size:,} test"
        values["images"] = f"{data.train.size:,}{test}"
    if bad:
        values["unreadable images"] = f"{bad:,}, see below"
    values["data"] = config.data.tfds_name or config.data.name
    values["encoder"] = config.model.name
    values["batch"] = f"{config.batch_size:,}"
    speeds = [
        line["images_per_second"] for line in lines if "images_per_second" in line
    ]
    values["speed"] = f"{np.median(speeds):,.0f} images/s"
    if "train_seconds" in summary:
        seconds = datetime.timedelta(seconds=round(summary["train_seconds"]))
        values["time of training"] = str(seconds)
    return numbers(values)
