"""The runs that compare objectives on one image set: which, in what order, how far."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import ClassVar, NamedTuple

from ml_collections import ConfigDict
from workdirs import WHAT, Workdirs

from snclr_jax.evaluate.online import Evaluator
from snclr_jax.objectives import OBJECTIVES
from snclr_jax.preflight.lower import compile_step
from snclr_jax.preflight.report import Memory

BASELINE = "info_nce"  # SNCLR with K = 0
FIRST = (
    *("snclr", BASELINE, "soft_dcl", "nnclr", "byol", "simclr"),
    *("sce", "moco_v2", "ressl", "swav", "mv_dhel"),
)
ORDER = sorted(OBJECTIVES, key=lambda name: (*FIRST, name).index(name))
ORDER.remove("cacr_momentum")  # with two views it is the baseline
# What is varied where it is no temperature; nothing, where an objective has neither.
VARIED = {"cacr": "t_negative", "groco": "steepness", "barlow": "off_diagonal"}
FACTORS = (1.0, 0.5, 2.0)  # times what is published
SEEDS = 3
HELD_BACK, TEST = "held-back", "test"


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


class Comparison(Workdirs):
    """The runs that compare objectives on one image set."""

    title: ClassVar[str] = "objectives"
    evaluators: ClassVar[Sequence[Evaluator]] = (StepMemory(),)

    def left(self) -> Counter[int]:
        """Returns how many runs are still to be made, by their epochs."""
        complete = [run.scored_on for run in self.complete()]
        values = sum(len(tried(name)) for name in ORDER)
        return Counter(
            {
                self.set.tries: values - complete.count(HELD_BACK),
                self.set.epochs: SEEDS * len(ORDER) - complete.count(TEST),
            }
        )

    def what(self, run: Run) -> tuple[str, ...]:
        """Returns what a run is scored by beside kNN: choices need no more."""
        return WHAT if run.scored_on == TEST else ()

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

    def config(self, run: Run) -> ConfigDict:
        """Returns the recipe of a run."""
        holdback = 100 if self.debug else self.set.holdback
        config = self.recipe(
            # The recipes are SNCLR's own.
            [run.objective] * (run.objective != "snclr"),
            seed=run.seed,
            holdback=holdback if run.scored_on == HELD_BACK else 0,
        )
        if run.value is not None:
            config.objective[varied(run.objective)[0]] = run.value
        if not self.debug:  # warm-ups stay the same share of the recipe's epochs
            tries = run.scored_on == HELD_BACK
            config.epochs = self.set.tries if tries else self.set.epochs
        return config
