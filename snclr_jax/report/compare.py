"""`snclr compare`: runs side by side, as tables in plain text."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from snclr_jax.evaluate.intervals import mean_and_interval
from snclr_jax.report.groups import Group, Key, Run, read_groups
from snclr_jax.run.files import OWN
from snclr_jax.run.watch import duration

WIDTH = 100  # columns of text that up to four groups fit into
POINTS = 10  # of a curve
MOST = 5  # settings that are shown where not all are asked for
# What fields begin with, those that say most of a run first.
FIRST = (
    *("data.name", "data.path", "model.name", "batch_size", "epochs"),
    *("objective.", "optim.", "ema.", "model.", "data.", "augment.view", ""),
)
MISSING = "-"


def compare(workdirs: Sequence[str], *, everything: bool = False) -> str:
    """Returns what runs trained, for how long, and their scores, side by side.

    Runs that differ in nothing but their seed are one column, see `read_groups`, and
    its numbers are means over the seeds. Scores, and what they differ by from those of
    the first column, have 95% confidence intervals by Student's t distribution,

        mean +- t_{0.975, n - 1} s / sqrt(n)

    for n seeds and their standard deviation s. The differences are taken seed by seed
    (a paired comparison), where both columns have the same seeds. A single seed has no
    interval.

    Args:
      workdirs: folders of runs, one or more.
      everything: all settings that differ, curves, every number of the evaluations
        and all differences; otherwise what fits on a screen. A loss then stands there
        where the objectives are the same.

    Raises:
      ValueError: as `read_groups`.
    """
    groups = read_groups(workdirs)
    parts = [_legend(groups), _training(groups), _settings(groups, everything)]
    if everything:
        parts += [
            _curve(groups, "knn", "kNN accuracy in training, %", ".2f"),
            _curve(
                groups, "knn_balanced", "balanced kNN accuracy in training, %", ".2f"
            ),
            _curve(groups, "majority", "always the most frequent class, %", ".2f"),
            _curve(groups, "loss", "loss", ".4f"),
        ]
    parts += _evaluations(groups, everything)
    return "\n\n".join(part for part in parts if part)


def _legend(groups: Sequence[Group]) -> str:
    return "\n".join(
        f"{group.name if run is group.runs[0] else '':3} seed {run.seed}  {run.workdir}"
        for group in groups
        for run in group.runs
    )


def _settings(groups: Sequence[Group], everything: bool) -> str:
    settings = [group.runs[0].settings for group in groups]
    rows, fields = [], 0
    for field in sorted(set().union(*settings), key=_importance):
        values = [
            _shown(of_group[field]) if field in of_group else MISSING
            for of_group in settings
        ]
        if len(set(values)) == 1:
            continue
        fields += 1
        # Objectives have fields of their own, which say nothing of another one.
        said = field == "objective.name" or MISSING in values
        if everything or (not said and len(rows) < MOST):
            rows.append([field, *values])
    if not fields:
        return "no settings differ but the seed"
    more = f"settings that differ: {fields}; snclr compare --all shows them, and curves"
    if not rows:
        return more
    title = "settings that differ"
    return _table(title, groups, rows) + (f"\n{more}" if len(rows) < fields else "")


def _importance(field: str) -> tuple[int, str]:
    """Orders fields: what says most of a run is first."""
    return next(n for n, of in enumerate(FIRST) if field.startswith(of)), field


def _shown(value: Any) -> str:
    return value if value and isinstance(value, str) else repr(value)


def _training(groups: Sequence[Group]) -> str:
    def row(
        label: str, of_run: Callable[[Run], float | None], form: Callable[[float], str]
    ) -> list[str]:
        cells = []
        for group in groups:
            values = [of_run(run) for run in group.runs]
            known = [value for value in values if value is not None]
            whole = len(known) == len(values)
            cells.append(form(float(np.mean(known))) if whole else MISSING)
        return [label, *cells]

    def last(metric: str) -> Callable[[Run], float | None]:
        return lambda run: next(reversed(_curve_of(run, metric).values()), None)

    objectives = [group.runs[0].settings.get("objective.name") for group in groups]
    rows = [
        ["objective", *(name or MISSING for name in objectives)],
        row("images seen", _images_seen, "{:,.0f}".format),
        row("training time", _seconds, duration),
        row("images/s", _speed, "{:.0f}".format),
    ]
    # Of different objectives the losses are different sums.
    if len(set(objectives)) == 1:
        rows.append(row("loss", last("loss"), "{:.4f}".format))
    for label, metric in (("kNN, %", "knn"), ("balanced kNN, %", "knn_balanced")):
        rows.append(row(label, last(metric), "{:.2f}".format))
    known = [each for each in rows if set(each[1:]) != {MISSING}]
    return _table("training", groups, known) if known else ""


def _images_seen(run: Run) -> float | None:
    steps = [line["step"] for line in run.metrics]
    batch = run.settings.get("batch_size")
    return max(steps) * batch if steps and batch else None


def _speed(run: Run) -> float | None:
    speeds = list(_curve_of(run, "images_per_second").values())
    return float(np.median(speeds)) if speeds else None


def _seconds(run: Run) -> float | None:
    """Of training alone: the steps of every line at the line's own speed."""
    speeds, batch = _curve_of(run, "images_per_second"), run.settings.get("batch_size")
    if not speeds or not batch:
        return None
    steps = np.diff([0, *speeds])
    return float(np.sum(steps * batch / np.array(list(speeds.values()))))


def _curve(groups: Sequence[Group], metric: str, title: str, form: str) -> str:
    """At steps that all groups have, and at the last of each where that is another."""
    curves = [_mean_curve(group, metric) for group in groups]
    known = [curve for curve in curves if curve]
    if not known:
        return ""

    def row(label: str, cell: Callable[[dict[int, float]], str]) -> list[str]:
        return [label, *(cell(curve) if curve else MISSING for curve in curves)]

    shared = sorted(set.intersection(*map(set, known)))
    points = np.linspace(0, len(shared) - 1, min(POINTS, len(shared)))
    rows = [
        row(f"step {step}", lambda curve, step=step: format(curve[step], form))
        for step in (shared[int(point)] for point in points.round())
    ]
    if len({max(curve) for curve in known} | set(shared[-1:])) > 1:
        rows.append(
            row("last @step", lambda curve: f"{curve[max(curve)]:{form}} @{max(curve)}")
        )
    return _table(title, groups, rows)


def _mean_curve(group: Group, metric: str) -> dict[int, float]:
    """The mean over the seeds, at the steps that all of them have."""
    curves = [_curve_of(run, metric) for run in group.runs]
    steps = set.intersection(*map(set, curves))
    return {step: float(np.mean([curve[step] for curve in curves])) for step in steps}


def _curve_of(run: Run, metric: str) -> dict[int, float]:
    return {int(line["step"]): line[metric] for line in run.metrics if metric in line}


def _evaluations(groups: Sequence[Group], everything: bool) -> Iterator[str]:
    runs = [run for group in groups for run in group.runs]
    keys = list(dict.fromkeys(key for run in runs for key in run.scores))
    if not everything:
        keys = _first_of_each(keys)
    if not keys:
        yield "no run has been evaluated: use snclr evaluate --workdir=DIR"
    for data in sorted(
        {key.data for key in keys}, key=lambda data: (data != OWN, data)
    ):
        title = "evaluation" if data == OWN else f"evaluation on {data}"
        of_data = [key for key in keys if key.data == data]
        labels = [_label(key, runs, keys) for key in of_data]
        rows = [
            [label, *(_score(group, key) for group in groups)]
            for label, key in zip(labels, of_data, strict=True)
        ]
        rows.append(["at step", *(_steps(group, of_data) for group in groups)])
        yield _table(f"{title}: mean ± half of its 95% interval", groups, rows)
        first, *others = groups
        rows = [
            [label, *(_difference(first, group, key) for group in others)]
            for label, key in zip(labels, of_data, strict=True)
        ]
        several = any(len(group.runs) > 1 for group in groups)
        if others and (everything or several):
            yield _table(f"{title}: difference to {first.name}", others, rows)
    if any(_differently_set(key, runs) for key in keys):
        yield "* evaluated with different settings, see each evaluation.json"


def _first_of_each(keys: Sequence[Key]) -> list[Key]:
    """The first number of each evaluation, and an accuracy's balanced one."""
    first: dict[tuple, str] = {}
    for key in keys:
        first.setdefault(key[:-1], key.metric)
    return [
        key
        for key in keys
        if key.metric in (first[key[:-1]], f"{first[key[:-1]]}_balanced")
    ]


def _label(key: Key, runs: Sequence[Run], keys: Sequence[Key]) -> str:
    label = key.metric
    if not label.startswith(key.what):
        label = f"{key.what} {label}"
    if len({key.network for key in keys}) > 1:
        label = f"{label} ({key.network})"
    return f"{label} *" if _differently_set(key, runs) else label


def _differently_set(key: Key, runs: Sequence[Run]) -> bool:
    settings = [run.scores[key].settings for run in runs if key in run.scores]
    return any(other != settings[0] for other in settings)


def _by_seed(group: Group, key: Key) -> dict[int | None, float]:
    return {run.seed: run.scores[key].value for run in group.runs if key in run.scores}


def _score(group: Group, key: Key) -> str:
    scores = list(_by_seed(group, key).values())
    if not scores:
        return MISSING
    all_of_them = len(scores) == len(group.runs)
    count = "" if all_of_them else f" ({len(scores)}/{len(group.runs)})"
    return _with_interval(scores, "") + count


def _difference(first: Group, other: Group, key: Key) -> str:
    before, after = _by_seed(first, key), _by_seed(other, key)
    if not before or before.keys() != after.keys():
        return MISSING
    return _with_interval([after[seed] - before[seed] for seed in before], "+")


def _with_interval(values: Sequence[float], sign: str) -> str:
    mean, half = mean_and_interval(values)
    # Accuracies have two decimals; shares and penalties may be small.
    largest = max(map(abs, values))
    form = ".2f" if largest >= 0.1 or not largest else ".3g"
    shown = format(mean, sign + form)
    return shown if half is None else f"{shown} ± {half:{form}}"


def _steps(group: Group, keys: Sequence[Key]) -> str:
    steps = {
        run.scores[key].step for run in group.runs for key in keys if key in run.scores
    }
    return ", ".join(map(str, sorted(steps))) or MISSING


def _table(title: str, groups: Sequence[Group], rows: Sequence[Sequence[str]]) -> str:
    """Columns are as wide as their widest cell; where that is too much, cells fold."""
    rows = [["", *(group.name for group in groups)], *rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    # Two spaces stand between columns, and the first takes a third of the text at most.
    widths[0] = min(widths[0], WIDTH // 3)
    share = (WIDTH - widths[0]) // len(groups) - 2
    widths[1:] = [min(width, max(share, 12)) for width in widths[1:]]
    lines = [title]
    for row in rows:
        folded = [textwrap.wrap(c, w) or [""] for c, w in zip(row, widths, strict=True)]
        for i in range(max(map(len, folded))):
            cells = [part[i] if i < len(part) else "" for part in folded]
            first = f"{cells[0]:{widths[0]}}"
            rest = (f"{c:>{w}}" for c, w in zip(cells[1:], widths[1:], strict=True))
            lines.append("  ".join([first, *rest]).rstrip())
    return "\n".join(lines)
