"""Whether soft neighbors pay, what a perfect choice would bring, what noise costs.

    python benchmarks/neighbors.py digits omniglot=FOLDER cifar10=FOLDER --minutes=480

FOLDER holds train/<class>/* and test/<class>/*. MemoryDCL, SoftDCL and both forms of
SNCLR are trained without neighbors (K = 0), with those that they find, with the nearest
ones of the image's own class (an oracle that reads labels) and with rows drawn at
random, each in a short run and in the whole recipe. All runs of a seed see the same
views, and those of an objective start from the same weights: what is compared with
K = 0 is compared within a seed. Test images are scored at the end.

The same command continues what was stopped or killed at any moment, and repeats no run
that is complete: each is a folder of runs/benchmarks/neighbors. Several processes of it
share the runs. After --minutes no new run starts (0: none at all), and a section of
benchmarks/RESULTS.md is written for each image set, from what is there. --debug
rehearses in other folders, with any 200 images and one seed, and prints in place of
writing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import numpy as np
from ml_collections import ConfigDict
from report import table
from runs import as_folder
from workdirs import Workdirs, cell, command

from snclr_jax.data import open_data
from snclr_jax.settings.objective import objective_class

NONE, FOUND, ORACLE = "none (K = 0)", "found", "of the same class"
# What is chosen by a class of neighbor_choices.py, after the name of an objective's.
OTHERS = {ORACLE: "OfSameClass", "random": "OfAnyRow"}
# The class of an objective, its variant of a recipe, and its settings.
LOSSES: dict[str, tuple[str, list[str], dict[str, str]]] = {
    "memory_dcl": ("MemoryDCL", ["memory_dcl"], {}),
    "soft_dcl": ("SoftDCL", ["soft_dcl"], {}),
    "snclr, paper": ("SNCLR", [], {"form": "paper"}),
    "snclr, soft_cross_entropy": ("SNCLR", [], {"form": "soft_cross_entropy"}),
}
SEEDS = 5
COLUMNS = (
    ("kNN", "knn", ".2f"),
    ("kNN - K = 0", "knn_gain", "+.2f"),
    ("linear", "linear", ".2f"),
    ("linear - K = 0", "linear_gain", "+.2f"),
    ("purity", "neighbor_purity", ".3f"),
    ("AUC of w", "queue_weight_auc", ".3f"),
)
CAPTION = """\
The recipe `{name}` in benchmarks/image_sets.py, short and whole, scored on test images:
means over seeds with half of their 95% interval, and differences from K = 0 of the same
seed with theirs. Purity is the share of neighbors of the image's own class at the end
of training; AUC how often a right neighbor has a larger weight than a wrong one of the
same image (0.5: weights know nothing of classes). kNN is {pixels} on raw pixels, and
{untrained} on the untrained encoder. The oracle reads labels: it is no method, and
random neighbors are none either."""


class Run(NamedTuple):
    """A training."""

    choice: str
    loss: str
    epochs: int
    seed: int

    @property
    def folder(self) -> str:
        """Its name."""
        name = as_folder(f"{self.choice} {self.loss}")
        return f"{name}-{self.epochs}-{self.seed}"

    def without(self) -> Run:
        """Returns the run that sees no neighbors, where several objectives are one."""
        loss = "snclr, paper" if self.loss.startswith("snclr") else "soft_dcl"
        return self._replace(choice=NONE, loss=loss)


# (choice, loss): who finds neighbors himself comes first, the bounds after all seeds.
PAIRS = (
    (NONE, "soft_dcl"),
    (FOUND, "memory_dcl"),
    (FOUND, "soft_dcl"),
    (NONE, "snclr, paper"),
    (FOUND, "snclr, paper"),
    (FOUND, "snclr, soft_cross_entropy"),
)
BOUNDS = tuple((choice, loss) for loss in LOSSES for choice in OTHERS)


class Bounds(Workdirs):
    """The runs on one image set, a seed after the other."""

    title: ClassVar[str] = "neighbors"

    @property
    def seeds(self) -> range:
        """Those of all runs; one is enough for a rehearsal."""
        return range(1 if self.debug else SEEDS)

    @property
    def epochs(self) -> tuple[int, int]:
        """Those of a short run, and of the whole recipe."""
        return self.set.epochs, self.set.config().epochs

    def left(self) -> Counter[int]:
        """Returns how many runs are still to be made, by their epochs."""
        runs = [run for stage in self.stages() for run in stage]
        return Counter(run.epochs for run in runs if self.waits(run))

    def stages(self) -> Iterator[list[Run]]:
        """Yields the runs of each seed: objectives by themselves, then the bounds."""
        for rows in (PAIRS[:3], PAIRS[3:], BOUNDS):
            for epochs in self.epochs:
                for seed in self.seeds:
                    yield [Run(*row, epochs, seed) for row in rows]

    def config(self, run: Run) -> ConfigDict:
        """Returns the recipe with the neighbors of a run."""
        cls, variants, settings = LOSSES[run.loss]
        config = self.recipe(variants, seed=run.seed)
        if not self.debug:  # warm-ups stay the same share of the recipe's epochs
            config.epochs = run.epochs
        if run.choice in OTHERS:
            name = f"neighbor_choices:{cls}{OTHERS[run.choice]}"
            section = objective_class(name).section(name)
            section.update(config.objective.to_dict() | {"name": name})
            config.objective = section
        config.objective.update(settings)
        queue = config.objective.queue
        if run.choice == ORACLE and "rank" in queue:  # a class may have no more rows
            queue.rank = queue.k + 1
        if run.choice == NONE:
            queue.k = 0
        if "labels" in config.objective:
            config.objective.labels = self.labels
        return config

    @cached_property
    def labels(self) -> str:
        """The file of the labels of the training images, written once a call."""
        config = self.recipe([], seed=0)
        path = self.folder / "labels.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, open_data(config.data).train.labels)
        return str(path)

    def compared(self, *row: Any) -> list[dict[str, float]]:
        """Returns the figures of every seed, with what they are above K = 0's.

        Args:
          row: the fields of `Run` but the seed.
        """
        seeds = []
        for run in (Run(*row, seed) for seed in self.seeds):
            figures, without = self.figures(run), self.figures(run.without())
            if figures and without and run.choice != NONE:
                for name in ("knn", "linear"):
                    figures[f"{name}_gain"] = figures[name] - without[name]
            seeds += [figures] if figures else []
        return seeds


def section(bounds: Bounds) -> list[str]:
    """Returns the heading, the caption and the table of what is complete."""
    rows = {
        (*row, epochs): bounds.compared(*row, epochs)
        for epochs in bounds.epochs
        for row in PAIRS + BOUNDS
    }
    first = [next(iter(sum(rows.values(), [])), {})]
    caption = CAPTION.format(
        name=bounds.name,
        pixels=cell(first, "knn_raw_pixels", ".2f"),
        untrained=cell(first, "knn_untrained", ".2f"),
    )
    lines = [
        [
            loss,
            choice,
            epochs,
            *(cell(seeds, name, shown) for _, name, shown in COLUMNS),
            len(seeds),
        ]
        for (choice, loss, epochs), seeds in rows.items()
        if seeds
    ]
    header = (
        "objective",
        "neighbors",
        "epochs",
        *(each[0] for each in COLUMNS),
        "seeds",
    )
    return [f"Neighbors and their bounds: {bounds.name}", caption, table(header, lines)]


if __name__ == "__main__":
    command("neighbors.py", __doc__, Bounds, section)
