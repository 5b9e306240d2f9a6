"""Runs on one image set, each in a folder: complete ones are kept, others continued.

Several processes share the runs: one that is carried out is left alone by the others.
What is known of complete runs is also a line each of a file in benchmarks/figures/, by
which another machine makes only those that are left. Remove the file where a recipe has
changed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol

import jax
from image_sets import IMAGE_SETS
from ml_collections import ConfigDict
from report import origin, write
from runs import RUNS
from snclr_jax.configs import base
from snclr_jax.configs import evaluate as evaluation

from snclr_jax.evaluate.intervals import mean_and_interval
from snclr_jax.evaluate.online import Evaluator
from snclr_jax.evaluate.results import read_records, records_path
from snclr_jax.evaluate.run import evaluate
from snclr_jax.run.files import STOPPED_FILE, lock
from snclr_jax.run.metrics import NonFiniteError, read_metrics
from snclr_jax.run.workdir import read_config
from snclr_jax.train import train

WHAT = ("linear", "quality")
# Of the probe: the whole grid would take longer than the training.
LINEAR = {"learning_rate": (0.1, 1.0), "weight_decay": (0.0,), "l2": (1e-2, 1e-3)}
FIGURES = Path(__file__).with_name("figures")
# What tables show, and no more, is kept of a run.
KEPT = (
    *("knn", "linear", "effective_rank", "neighbor_purity", "queue_weight_auc"),
    *("ms", "step_mb", "knn_raw_pixels", "knn_untrained"),
)
# Images that a CPU core trains on in a second, and what else a run takes, in seconds.
SPEED, REST = 800, 40


class Planned(Hashable, Protocol):
    """A training; equal ones are one."""

    @property
    def folder(self) -> str:
        """Its name."""
        ...


class Workdirs:
    """The runs on one image set, and what is known of them from their folders alone.

    Args:
      images: a name of `IMAGE_SETS`, or NAME=FOLDER.
      debug: shrink every run to seconds.
    """

    # Of the folder beside those of other comparisons, and what looks at each run.
    title: ClassVar[str]
    evaluators: ClassVar[Sequence[Evaluator]] = ()

    def __init__(self, images: str, *, debug: bool) -> None:
        self.name, _, self.path = images.partition("=")
        self.set, self.debug = IMAGE_SETS[self.name], debug
        self.folder = RUNS / (self.title + "-debug" * debug) / self.name
        self.refused: set[Planned] = set()
        self.file = FIGURES / f"{self.title}-{self.name}.jsonl"

    def left(self) -> Counter[int]:
        """Returns how many runs are still to be made, by their epochs."""
        raise NotImplementedError

    def stages(self) -> Iterator[list[Any]]:
        """Yields lists of runs, in the order in which they are made."""
        raise NotImplementedError

    def config(self, run: Any) -> ConfigDict:
        """Returns the recipe of a run."""
        raise NotImplementedError

    def what(self, run: Any) -> tuple[str, ...]:
        """Returns what a run is scored by, beside kNN."""
        return WHAT

    def recipe(
        self, variants: Sequence[str], *, seed: int, holdback: int = 0
    ) -> ConfigDict:
        """Returns the recipe of the image set, in variants of its own or of the base.

        Test images are looked at once, at the end.
        """
        config = self.set.config()
        source = config.data.name
        base.variant(config, ",".join([*variants, *["debug"] * self.debug]))
        config.seed, config.data.name, config.data.path = seed, source, self.path
        config.data.holdback, config.evaluate.every_epochs = holdback, 0
        return config

    def waits(self, run: Planned) -> bool:
        """Whether a run is to be made or continued."""
        return not (self.figures(run) or self.failed(run) or run in self.refused)

    def complete(self) -> list[Any]:
        """Returns the runs that need not be made any more."""
        return [run for runs in self.stages() for run in runs if not self.waits(run)]

    @cached_property
    def kept(self) -> dict[str, dict[str, float]]:
        """The lines of the file of figures, as it was, by the names of their runs."""
        if self.debug or not self.file.exists():
            return {}
        text = self.file.read_text(encoding="utf-8")
        lines = map(json.loads, text.splitlines())
        return {line.pop("run"): line for line in lines}

    def keep(self) -> None:
        """Writes the file of figures."""
        lines = []
        for run in set(self.complete()) - self.refused:
            known = self.figures(run)
            shown = {
                name: float(f"{known[name]:.6g}") for name in KEPT if name in known
            }
            lines.append(json.dumps({"run": run.folder} | shown) + "\n")
        self.file.parent.mkdir(exist_ok=True)
        self.file.write_text("".join(sorted(lines)), encoding="utf-8")

    def failed(self, run: Planned) -> bool:
        """Whether the loss of a run was no longer a number: no accuracy is kept."""
        if "knn" not in self.kept.get(run.folder, {"knn": 0.0}):
            return True
        path = self.folder / run.folder / STOPPED_FILE
        said = path.read_text(encoding="utf-8") if path.exists() else ""
        return NonFiniteError.__name__ in said

    def figures(self, run: Planned) -> dict[str, float]:
        """Returns what is known of a complete run by name, {} for another one."""
        workdir = self.folder / run.folder
        records = read_records(records_path(workdir))
        scores = {record["what"]: record["metrics"] for record in records}
        lines = read_metrics(workdir)
        last = {name: value for line in lines for name, value in line.items()}
        if "knn" not in last or not scores.keys() >= set(self.what(run)):
            return self.kept.get(run.folder, {})
        speeds = [line["images_per_second"] for line in lines if "loss" in line]
        # The fastest part of the run: others may have had the cores meanwhile.
        last["ms"] = 1e3 * read_config(workdir)["batch_size"] / max(speeds)
        if scores:
            last["linear"] = scores["linear"]["top1"]
            last["effective_rank"] = scores["quality"]["effective_rank"]
        return last

    def carry_out(self, run: Planned) -> None:
        """Trains, or continues to train, and evaluates; what is said is in log.txt."""
        workdir, started = self.folder / run.folder, time.monotonic()
        workdir.mkdir(parents=True, exist_ok=True)
        settings = evaluation.get_config("debug" if self.debug else "")
        if not self.debug:
            settings.linear.update(LINEAR)
        try:
            with (
                open(workdir / "log.txt", "a", encoding="utf-8") as log,
                contextlib.redirect_stdout(log),
            ):
                lock(log)
                what = self.what(run)
                evaluators = self.evaluators if what else ()
                train(self.config(run), str(workdir), evaluators=evaluators)
                if what:
                    evaluate(workdir, what, settings)
            said = f"kNN {self.figures(run)['knn']:.2f}"
        except (ValueError, NonFiniteError) as error:
            self.refused.add(run)
            said = str(error)
        except BlockingIOError:
            self.refused.add(run)
            said = "another process has it"
        jax.clear_caches()  # or the programs of a hundred runs stay
        print(f"{workdir}: {said}; {time.monotonic() - started:.0f} s", flush=True)

    def estimate(self) -> str:
        """Returns in words how much there is to do."""
        left, epoch = self.left(), self.set.images / SPEED
        seconds = sum(n * (epochs * epoch + REST) for epochs, n in left.items())
        return (
            f"{self.name}: {left.total()} runs are left, {seconds / 3600:.1f} h of one "
            f"core at {SPEED} images/s"
        )


def next_run(sets: Sequence[Workdirs]) -> tuple[Workdirs, Planned] | None:
    """Returns the first run of the first stage that has one to make, None for none."""
    for stages in zip(*(each.stages() for each in sets), strict=True):
        for workdirs, runs in zip(sets, stages, strict=True):
            for run in filter(workdirs.waits, runs):
                return workdirs, run
    return None


def cell(figures: Sequence[dict[str, float]], name: str, form: str) -> str:
    """Returns the mean of a figure, with half of its interval where values differ."""
    values = [each[name] for each in figures if name in each]
    if not values:
        return "-"
    mean, half = mean_and_interval(values)
    shown = f"{mean:{form}}"
    return f"{shown} ± {half:{form.lstrip('+')}}" if half else shown


def command(
    script: str,
    doc: str | None,
    kind: Callable[..., Workdirs],
    section: Callable[[Any], list[str]],
) -> None:
    """Makes what is left of all runs, and writes a section for each image set.

    Args:
      script: what was called, beside this file.
      doc: what --help says.
      kind: of the runs.
      section: heading, caption and table of what is complete of one image set.
    """
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = ", ".join(IMAGE_SETS)
    parser.add_argument("images", nargs="+", help=f"NAME or NAME=FOLDER of {names}")
    parser.add_argument("--minutes", type=float, default=math.inf)
    parser.add_argument("--debug", action="store_true")
    flags = parser.parse_args()
    for images in flags.images:
        if images.partition("=")[0] not in IMAGE_SETS:
            parser.error(
                f"{images} is no image set; use NAME or NAME=FOLDER of {names}"
            )
    sets = [kind(images, debug=flags.debug) for images in flags.images]
    for each in sets:
        of_folder = each.set.config().data.name == "folder"
        if of_folder and not Path(each.path, "train").is_dir():
            parser.error(
                f"{each.name} has no folder {each.path or 'FOLDER'}/train; "
                f"use {each.name}=FOLDER with train/<class>/* and test/<class>/*"
            )
    where = origin(f"python benchmarks/{script} IMAGES", ["jax"], timed=True)
    print(*(each.estimate() for each in sets), sep="\n", flush=True)
    # Evaluations are the same programs in each run.
    jax.config.update("jax_compilation_cache_dir", str(RUNS / "cache"))
    end = time.monotonic() + 60 * flags.minutes
    while time.monotonic() < end and (following := next_run(sets)):
        workdirs, run = following
        workdirs.carry_out(run)
    for each in filter(Workdirs.complete, sets):
        paragraphs = [*section(each), where]
        if flags.debug:
            print(*paragraphs, sep="\n\n")
        else:
            each.keep()
            write(*paragraphs)
