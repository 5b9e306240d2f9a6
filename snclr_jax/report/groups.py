"""What the files of runs say, the runs that differ in their seed alone as one group."""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Any, NamedTuple

from etils import epath
from flax.traverse_util import flatten_dict

from snclr_jax.evaluate.results import read_records
from snclr_jax.run.files import EVALUATION_FILE
from snclr_jax.run.metrics import read_metrics
from snclr_jax.run.workdir import read_config
from snclr_jax.settings.paths import located


class Key(NamedTuple):
    """What a score is of; scores of equal keys can be compared."""

    data: str  # "own": the images of the run's own data set
    what: str  # the evaluation
    network: str
    metric: str


class Score(NamedTuple):
    """A number of evaluation.json, and how it was reached."""

    value: float
    settings: dict[str, Any]
    step: int


class Run(NamedTuple):
    """What the files of a workdir say."""

    workdir: str  # as the user spelled it
    settings: dict[str, Any]  # the config by dotted field, without the seed
    seed: int | None
    metrics: list[dict[str, float]]  # the lines of metrics.jsonl
    scores: dict[Key, Score]  # of the trained encoder


class Group(NamedTuple):
    """Runs that differ in their seed alone."""

    name: str  # A, B, ...
    runs: list[Run]


def read_groups(workdirs: Sequence[str]) -> list[Group]:
    """Reads runs and groups them, in the order of their first runs.

    A seed that a group has already begins the next group: the same config may have been
    run by two versions of the code. Of a score that a run has repeatedly, the one of
    the latest step, then of the latest time counts.

    Args:
      workdirs: folders of runs, one or more.

    Raises:
      ValueError: for no workdir, one that is named twice or holds no run, and for a
        config.json or evaluation.json that cannot be read.
    """
    if not workdirs:
        raise ValueError("no workdir is named; name one or more")
    paths = [located(workdir) for workdir in workdirs]
    for workdir, path in zip(workdirs, paths, strict=True):
        if paths.count(path) > 1:
            raise ValueError(
                f"the workdir {workdir} is named more than once; name each run once"
            )
    groups: list[Group] = []
    for run in [_read_run(workdir) for workdir in workdirs]:
        for group in groups:
            same = group.runs[0].settings == run.settings
            if same and run.seed not in [other.seed for other in group.runs]:
                group.runs.append(run)
                break
        else:
            groups.append(Group(_letters(len(groups)), [run]))
    return groups


def _read_run(workdir: str) -> Run:
    settings: dict[str, Any] = flatten_dict(read_config(workdir), sep=".")
    seed = settings.pop("seed", None)
    return Run(workdir, settings, seed, read_metrics(workdir), _read_scores(workdir))


def _read_scores(workdir: str) -> dict[Key, Score]:
    path = epath.Path(workdir) / EVALUATION_FILE
    records = read_records(path)
    try:
        return {
            Key(record["data"], record["what"], record["network"], metric): Score(
                float(value), record["settings"], record["step"]
            )
            # Of one step, the last is the newest.
            for record in sorted(records, key=lambda record: record["step"])
            if record["encoder"] == "trained"
            for metric, value in record["metrics"].items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is damaged, or of an earlier version ({error}); remove it and "
            f"evaluate again: snclr evaluate --workdir={workdir}"
        ) from error


def _letters(number: int) -> str:
    lap, letter = divmod(number, len(string.ascii_uppercase))
    return string.ascii_uppercase[letter] + (str(lap) if lap else "")
