"""The runs that compare objectives on one image set: which, in what order, how far.

All of it follows from folders: those of complete runs are kept, the others continued.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Iterator
from typing import NamedTuple

import jax
from image_sets import IMAGE_SETS
from ml_collections import ConfigDict
from runs import RUNS
from snclr_jax.configs import base
from snclr_jax.configs import evaluate as evaluation

from snclr_jax.evaluate.results import read_records, records_path
from snclr_jax.evaluate.run import evaluate
from snclr_jax.objectives import OBJECTIVES
from snclr_jax.preflight.lower import compile_step
from snclr_jax.preflight.report import Memory
from snclr_jax.run.files import STOPPED_FILE, lock
from snclr_jax.run.metrics import NonFiniteError, read_metrics
from snclr_jax.run.workdir import read_config
from snclr_jax.train import train

BASELINE = "info_nce"  # SNCLR with K = 0
FIRST = (
    *("snclr", BASELINE, "nnclr", "byol", "simclr"),
    *("sce", "moco_v2", "ressl", "swav", "mv_dhel"),
)
ORDER = sorted(OBJECTIVES, key=lambda name: (*FIRST, name).index(name))
# What is varied where it is no temperature; nothing, where an objective has neither.
VARIED = {"cacr": "t_negative", "groco": "steepness", "barlow": "off_diagonal"}
FACTORS = (1.0, 0.5, 2.0)  # times what is published
SEEDS = 3
HELD_BACK, TEST = "held-back", "test"
WHAT = ("linear", "quality")
# Of the probe: the whole grid would take longer than the training.
LINEAR = {"learning_rate": (0.1, 1.0), "weight_decay": (0.0,), "l2": (1e-2, 1e-3)}


class Run(NamedTuple):
    """A training; `value` is of what is varied, None where nothing is."""

    objective: str
    value: float | None
    seed: int = 0
    scored_on: str = HELD_BACK

    @property
    def folder(self) -> str:
        """Its name."""
        value = "" if self.value is None else f"-{self.value:g}"
        return f"{self.objective}{value}-{self.scored_on}-{self.seed}"


class StepMemory:
    """Evaluator: the peak of the compiled step in 1e6 bytes, by the compiler."""

    every_epochs = 0

    def __call__(self, state, run) -> dict[str, float]:
        """Compiles the step again."""
        images = run.data.train.size
        compiled = compile_step(run.config, run.mesh, images=images)
        return {"step_mb": Memory.of(compiled).peak / 1e6}


def varied(objective: str) -> tuple[str, float | None]:
    """Returns the field that is varied and its published value, None for none."""
    field = VARIED.get(objective, "temperature")
    return field, OBJECTIVES[objective].section(objective).get(field)


def tried(objective: str) -> list[Run]:
    """Returns the runs on held-back images, the published value first."""
    _, published = varied(objective)
    if published is None:
        return [Run(objective, None)]
    return [Run(objective, factor * published) for factor in FACTORS]


class Comparison:
    """The runs on one image set.

    Args:
      images: a name of `IMAGE_SETS`, or NAME=FOLDER.
      debug: shrink every run to seconds.
    """

    def __init__(self, images: str, *, debug: bool) -> None:
        self.name, _, self.path = images.partition("=")
        self.set, self.debug = IMAGE_SETS[self.name], debug
        self.folder = RUNS / ("objectives-debug" if debug else "objectives") / self.name
        self.refused: set[Run] = set()

    def stages(self) -> Iterator[list[Run]]:
        """Yields lists of runs; those of seeds only where all values were tried."""
        for place in range(len(FACTORS)):
            yield [run for name in ORDER for run in tried(name)[place : place + 1]]
        for seed in range(SEEDS):
            yield [run for name in ORDER for run in self.final(name)[seed : seed + 1]]

    def final(self, objective: str) -> list[Run]:
        """Returns the seeds at the value of the best kNN, none while that is open."""
        runs = [run for run in tried(objective) if not self.failed(run)]
        if not runs or not all(map(self.figures, runs)):
            return []
        best = max(runs, key=lambda run: self.figures(run)["knn"])
        return [best._replace(seed=seed, scored_on=TEST) for seed in range(SEEDS)]

    def waits(self, run: Run) -> bool:
        """Whether a run is to be made or continued."""
        return not (self.figures(run) or self.failed(run) or run in self.refused)

    def complete(self) -> list[Run]:
        """Returns the runs that need not be made any more."""
        return [run for runs in self.stages() for run in runs if not self.waits(run)]

    def failed(self, run: Run) -> bool:
        """Whether the loss of a run was no longer a number."""
        path = self.folder / run.folder / STOPPED_FILE
        said = path.read_text(encoding="utf-8") if path.exists() else ""
        return NonFiniteError.__name__ in said

    def figures(self, run: Run) -> dict[str, float]:
        """Returns what is known of a complete run by name, {} for another one."""
        workdir = self.folder / run.folder
        records = read_records(records_path(workdir))
        scores = {record["what"]: record["metrics"] for record in records}
        lines = read_metrics(workdir)
        last = {name: value for line in lines for name, value in line.items()}
        if "knn" not in last or not scores.keys() >= set(self.what(run)):
            return {}
        speeds = [line["images_per_second"] for line in lines if "loss" in line]
        last["ms"] = 1e3 * read_config(workdir)["batch_size"] / statistics.median(speeds)
        if scores:
            last["linear"] = scores["linear"]["top1"]
            last["effective_rank"] = scores["quality"]["effective_rank"]
        return last

    def what(self, run: Run) -> tuple[str, ...]:
        """Returns what a run is scored by beside kNN: choices need no more."""
        return WHAT if run.scored_on == TEST else ()

    def config(self, run: Run) -> ConfigDict:
        """Returns the recipe of a run."""
        config = self.set.config()
        source = config.data.name
        # The recipes are SNCLR's own.
        variants = [run.objective] * (run.objective != "snclr") + ["debug"] * self.debug
        base.variant(config, ",".join(variants))
        if run.value is not None:
            config.objective[varied(run.objective)[0]] = run.value
        config.seed, config.data.name, config.data.path = run.seed, source, self.path
        holdback = 100 if self.debug else self.set.holdback
        config.data.holdback = holdback if run.scored_on == HELD_BACK else 0
        if not self.debug:
            self.set.shorten(config, tries=run.scored_on == HELD_BACK)
        config.evaluate.every_epochs = 0  # test images are looked at once
        return config

    def carry_out(self, run: Run) -> None:
        """Trains, or continues to train, and evaluates; what is said is in log.txt.

        Leaves a run alone that another process carries out.
        """
        workdir, started = self.folder / run.folder, time.monotonic()
        workdir.mkdir(parents=True, exist_ok=True)
        settings = evaluation.get_config("debug" if self.debug else "")
        if not self.debug:
            settings.linear.update(LINEAR)
        what = self.what(run)
        try:
            with (
                open(workdir / "log.txt", "a", encoding="utf-8") as log,
                contextlib.redirect_stdout(log),
            ):
                lock(log)
                evaluators = [StepMemory()] if what else []
                train(self.config(run), str(workdir), evaluators=evaluators)
                if what:
                    evaluate(workdir, what, settings)
            said = f"kNN {self.figures(run)['knn']:.2f}"
        except (ValueError, NonFiniteError, BlockingIOError) as error:
            self.refused.add(run)
            said = str(error)
        jax.clear_caches()  # or the programs of a hundred runs stay
        print(f"{workdir}: {said}; {time.monotonic() - started:.0f} s", flush=True)


def next_run(comparisons: list[Comparison]) -> tuple[Comparison, Run] | None:
    """Returns the first run of the first stage that has one to make, None for none."""
    for stages in zip(*(each.stages() for each in comparisons), strict=True):
        for comparison, runs in zip(comparisons, stages, strict=True):
            for run in filter(comparison.waits, runs):
                return comparison, run
    return None
