"""CIFAR with ResNet-18 in the minutes of one GPU: trials, then the best one whole.

    python benchmarks/trials.py cifar10_resnet18=FOLDER --minutes=7

FOLDER holds train/<class>/* and test/<class>/*; cifar100_resnet18 is the other set.
Trials of 20 epochs change the recipe, each with its neighbors and with K = 0, and are
scored by kNN on 5,000 training images that are held back. Of the first few, which are
most apart, and then of all, the one whose neighbors score best is trained whole on all
training images, with and without them, and scored on the test images: kNN every 50
epochs, and a linear probe at the end.

No run starts after --minutes, and one that has started is finished; to end at a time,
send SIGTERM, which saves: `timeout 540 python ...`. The same command continues, and
repeats no run that is complete. At its end, and with --minutes=0 at once, a section of
benchmarks/RESULTS.md is written from what is there. --debug rehearses all of it on any
200 images, at toy size, and prints in place of writing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, NamedTuple

from image_sets import SGD
from ml_collections import ConfigDict
from report import table
from runs import as_folder
from workdirs import WHAT, Workdirs, cell, command

# Variants of the recipe and settings, by name.
TRIALS: dict[str, tuple[list[str], dict[str, Any]]] = {
    "the recipe (LARS)": ([], {}),
    "SGD": ([], SGD),
    "memory_dcl, SGD": (["memory_dcl"], SGD),
    "temperature 0.1": ([], {"objective.temperature": 0.1}),
    "constant moving average": ([], {"ema.final_momentum": 0.99}),
    "soft cross-entropy": ([], {"objective.form": "soft_cross_entropy"}),
    "attention temperature 0.1": ([], {"objective.attention.temperature": 0.1}),
    "batch 512": ([], {"batch_size": 512}),
    "crops from 0.08": (
        [],
        {f"augment.{view}.crop_scale": (0.08, 1.0) for view in ("view1", "view2")},
    ),
    "weight decay 5e-4": ([], {"optim.weight_decay": 5e-4}),
    "K = 20": ([], {"objective.queue.k": 20}),
}
FIRST = 3  # of the trials, before anything is trained whole
EVERY_EPOCHS = 50  # between the scores of a whole run
CAPTION = """\
The recipe `{name}` of benchmarks/image_sets.py, in bfloat16, one seed.
Trials: {tries} epochs, kNN on {holdback} held-back training images. Whole: {epochs}
epochs on all training images, kNN and a linear probe on the test images. kNN is
{pixels} on raw pixels, and {untrained} on the untrained encoder. A step's time is that
of the fastest part of the run; compiling, evaluating and saving come on top."""


class Trial(NamedTuple):
    """A training; `name` is one of `TRIALS`."""

    name: str
    neighbors: bool
    whole: bool = False

    @property
    def folder(self) -> str:
        """Its name."""
        kind = "whole" if self.whole else "trial"
        return f"{kind}-{as_folder(self.name)}-{int(self.neighbors)}"


class Trials(Workdirs):
    """The trials on one image set, and the whole runs of the best one."""

    title: ClassVar[str] = "trials"

    def left(self) -> Counter[int]:
        """Returns how many runs are still to be made, by their epochs."""
        made = Counter(run.whole for run in self.complete())
        trials, whole = 2 * len(TRIALS) - made[False], 2 - made[True]
        return Counter({self.set.tries: trials, self.set.epochs: max(0, whole)})

    def what(self, run: Trial) -> tuple[str, ...]:
        """Returns what a run is scored by, beside kNN."""
        return WHAT if run.whole else ()

    def stages(self) -> Iterator[list[Trial]]:
        """Yields lists of runs: some trials and the best one whole, then of all."""
        names = list(TRIALS)
        for part in (names[:FIRST], names[FIRST:]):
            for name in part:
                yield [Trial(name, neighbors) for neighbors in (True, False)]
            yield self.whole(names[: names.index(part[-1]) + 1])

    def whole(self, names: Sequence[str]) -> list[Trial]:
        """Returns the whole runs of the best of some trials, none while one is open."""
        trials = [Trial(name, neighbors=True) for name in names]
        if any(map(self.waits, trials)):
            return []
        best = max(trials, key=lambda run: self.figures(run).get("knn", 0.0))
        return [best._replace(neighbors=each, whole=True) for each in (True, False)]

    def config(self, run: Trial) -> ConfigDict:
        """Returns the recipe of a run."""
        variants, settings = TRIALS[run.name]
        holdback = 0 if run.whole else 100 if self.debug else self.set.holdback
        config = self.recipe(variants, seed=0, holdback=holdback)
        config.update_from_flattened_dict(settings)
        if self.debug:  # CPUs are slow in bfloat16
            config.batch_size, config.model.dtype = 16, "float32"
        else:
            config.epochs = self.set.epochs if run.whole else self.set.tries
            config.evaluate.every_epochs = EVERY_EPOCHS if run.whole else 0
        if not run.neighbors:
            config.objective.queue.k = 0
        return config


def section(trials: Trials) -> list[str]:
    """Returns the heading, the caption and the table of what is complete."""
    runs = [run for runs in trials.stages() for run in runs if trials.figures(run)]
    first = [trials.figures(run) for run in runs[:1]]
    caption = CAPTION.format(
        name=trials.name,
        tries=trials.set.tries,
        epochs=trials.set.epochs,
        holdback=trials.set.holdback,
        pixels=cell(first, "knn_raw_pixels", ".2f"),
        untrained=cell(first, "knn_untrained", ".2f"),
    )
    rows = [
        [
            run.name,
            "whole" if run.whole else "trial",
            trials.config(run).objective.queue.k,
            *(
                cell([trials.figures(run)], name, form)
                for name, form in (("knn", ".2f"), ("linear", ".2f"), ("ms", ".2f"))
            ),
        ]
        for run in dict.fromkeys(runs)
    ]
    header = ("setting", "run", "K", "kNN", "linear", "ms a step")
    return [f"Trials: {trials.name}", caption, table(header, rows)]


if __name__ == "__main__":
    command("trials.py", __doc__, Trials, section)
