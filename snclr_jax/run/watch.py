"""`snclr watch`: running jobs in a terminal, from nothing but the files they write.

It imports no JAX, so that it starts at once where there is no accelerator.
"""

from __future__ import annotations

import json
import math
import shutil
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from snclr_jax.run.terminal import RED, YELLOW, draw, duration, sparkline, table

# As checkpoint.py, metrics.py, workdir.py and evaluate/results.py name them, which
# import JAX; tests/run/test_watch.py compares.
CONFIG_FILE = "config.json"
METRICS_FILE = "metrics.jsonl"
SUMMARY_FILE = "summary.json"
EVALUATION_FILE = "evaluation.json"
CHECKPOINTS = "checkpoints"

MISSING, STARTING, RUNNING = "no run yet", "starting", "running"
SILENT, FINISHED, DAMAGED = "silent", "finished", "damaged"
COLUMNS = (
    "run",
    "state",
    "step",
    "left",
    "loss",
    "kNN %",
    "images/s",
    "purity",
    "age",
    "queue",
    "checkpoint",
    "evaluation",
    "reason",
)
CURVE = 12  # bars of the loss curve
NAME = 32  # columns of text that the name of a run may take
QUIET = 60.0  # seconds without a line that never count as silence
RECENT = 5  # lines that the speed is the median of
STYLES = {SILENT: YELLOW, DAMAGED: RED}


class Row(NamedTuple):
    """What is shown of one run.

    Attributes:
      name: the workdir, shortened.
      state: one of the states above.
      since: seconds that the state lasts, or None where that says nothing.
      cells: texts by column, only those that are known.
    """

    name: str
    state: str
    since: float | None
    cells: dict[str, str]

    def columns(self) -> dict[str, str]:
        """Returns the text of every column."""
        lasting = "" if self.since is None else f" for {duration(self.since)}"
        known = {"run": self.name, "state": self.state + lasting, **self.cells}
        return {name: known.get(name, "") for name in COLUMNS}


def watch(workdirs: Sequence[str], *, every: float = 2.0, once: bool = False) -> None:
    """Shows runs until all are finished, or until Ctrl-C.

    On a terminal the view is drawn over itself; elsewhere it is printed again when
    something changed. Reads files only: it may start before the runs do, and run on
    another machine that shares their folders.

    Args:
      workdirs: folders of runs, one or more; they need not exist yet.
      every: seconds between two looks.
      once: look once.

    Raises:
      ValueError: for no workdir; with `once`, where none of them holds a run.
    """
    if not workdirs:
        raise ValueError("no workdir is named; name one or more")
    runs = [WatchedRun(workdir) for workdir in workdirs]
    shown, drawn, terminal = None, 0, sys.stdout.isatty()
    try:
        while True:
            rows = [run.read(time.time()) for run in runs]
            if once and all(row.state == MISSING for row in rows):
                raise ValueError(f"no run in {', '.join(workdirs)}; check --workdir")
            width = shutil.get_terminal_size((120, 0)).columns
            styles = [STYLES.get(row.state, 0) for row in rows]
            lines = table([row.columns() for row in rows], styles, width)
            facts = [(row.state, row.cells) for row in rows]
            if terminal:
                drawn = draw(lines, over=drawn)
            elif facts != shown:
                print("\n".join(text for text, _ in lines), flush=True)
            shown = facts
            if once or all(row.state == FINISHED for row in rows):
                return
            time.sleep(every)
    except KeyboardInterrupt:
        print()


class WatchedRun:
    """One workdir, looked at again and again.

    Args:
      workdir: folder of the run; it need not exist yet.
    """

    def __init__(self, workdir: str) -> None:
        self._folder = Path(workdir)
        self._name = workdir if len(workdir) <= NAME else "…" + workdir[1 - NAME :]
        self._tail = MetricsTail(self._folder / METRICS_FILE)

    def read(self, now: float) -> Row:
        """Returns what the files say; `now` is in seconds, as `time.time()`."""
        try:
            path = self._folder / CONFIG_FILE
            config, started = json.loads(path.read_text()), path.stat().st_mtime
            lines, written = self._tail.read()
            cells = dict(self._cells(config, lines))
        except FileNotFoundError:
            return Row(self._name, MISSING, None, {})
        except OSError as error:
            reason = f"cannot be read: {error.strerror}"
            return Row(self._name, DAMAGED, None, {"reason": reason})
        except (ValueError, KeyError, TypeError, ArithmeticError):
            reason = f"{CONFIG_FILE} is not a run's config"
            return Row(self._name, DAMAGED, None, {"reason": reason})
        state = self._state(config, lines, now - written)
        if state in (SILENT, FINISHED):
            cells.pop("left", None)
        since = {STARTING: now - started, SILENT: now - written}.get(state)
        return Row(self._name, state, since, cells)

    def _state(self, config: dict, lines: list[dict], silence: float) -> str:
        trained = [line for line in lines if "loss" in line]
        total = total_steps(config, lines)
        summarized = (self._folder / SUMMARY_FILE).exists()
        # A summary may be left over where the checkpoints of a run were removed.
        if summarized and (total is None or lines[-1]["step"] >= total):
            return FINISHED
        if not trained:
            return STARTING
        steps = [0, *(line["step"] for line in trained)]
        interval = (steps[-1] - steps[-2]) * config["batch_size"] / _speed(trained)
        return SILENT if silence > max(QUIET, 3 * interval) else RUNNING

    def _cells(self, config: dict, lines: list[dict]) -> Iterator[tuple[str, str]]:
        last = {name: value for line in lines for name, value in line.items()}
        trained = [line for line in lines if "loss" in line]
        step, total = last.get("step", 0), total_steps(config, lines)
        batch, queue = config["batch_size"], config["queue"]
        if total is None:
            yield "step", f"{step}"
        else:
            yield "step", f"{step}/{total} {100 * step // total}%"
        if trained:
            speed = _speed(trained)
            if total is not None:
                yield "left", duration((total - step) * batch / speed)
            losses = [line["loss"] for line in trained]
            yield "loss", f"{losses[-1]:.3f} {sparkline(losses, CURVE)}"
            yield "images/s", f"{speed:.0f}"
        if "knn_untrained" in last or "knn" in last:
            scores = (last.get("knn_untrained"), last.get("knn"))
            shown = ("" if score is None else f"{score:.1f}" for score in scores)
            yield "kNN %", " → ".join(shown).strip()
        if "neighbor_purity" in last:
            yield "purity", f"{last['neighbor_purity']:.2f}"
        if "neighbor_age" in last:
            yield "age", f"{last['neighbor_age']:.0f}"
        if queue["k"]:
            yield "queue", _queue(config, step)
        yield from self._saved()

    def _saved(self) -> Iterator[tuple[str, str]]:
        folder = self._folder / CHECKPOINTS
        # A checkpoint that is being written has a longer name.
        steps = [int(each.name) for each in folder.glob("*") if each.name.isdigit()]
        if steps:
            yield "checkpoint", f"{max(steps)}"
        try:
            records = json.loads((self._folder / EVALUATION_FILE).read_text())
            record = max(
                (r for r in records["records"] if r["encoder"] == "trained"),
                key=lambda record: record["when"],
            )
            metric, value = next(iter(record["metrics"].items()))
            yield "evaluation", f"{record['what']} {metric} {value:.2f}"
        except FileNotFoundError:
            pass
        except (ValueError, KeyError, TypeError, AttributeError, StopIteration):
            yield "evaluation", f"{EVALUATION_FILE} cannot be read"


class MetricsTail:
    """The lines of a growing `metrics.jsonl`; every look reads what is new.

    A continued run writes its file again, up to its last checkpoint. It is known from
    the line before the place read up to, which is then another one.

    Args:
      path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: list[dict[str, float]] = []
        self._place, self._last = 0, b""

    def read(self) -> tuple[list[dict[str, float]], float]:
        """Returns the whole lines so far, and when the last was written; 0 for never.

        What is not a line of numbers is left out, and a line without its end is left
        for the next look.
        """
        try:
            with self._path.open("rb") as file:
                written = self._path.stat().st_mtime
                file.seek(self._place - len(self._last))
                if file.read(len(self._last)) != self._last:
                    self._lines, self._place, self._last = [], 0, b""
                    file.seek(0)
                new = file.read()
        except FileNotFoundError:
            return [], 0.0
        whole = new[: new.rfind(b"\n") + 1].splitlines(keepends=True)
        if whole:
            self._place += sum(map(len, whole))
            self._last = whole[-1]
        self._lines += filter(None, map(_numbers, whole))
        return self._lines, written


def _numbers(line: bytes) -> dict[str, float] | None:
    try:
        found = json.loads(line)
        numbers: dict[str, float] = {
            name: value
            for name, value in found.items()
            if isinstance(value, int | float) and math.isfinite(value)
        }
    except (ValueError, AttributeError):
        return None
    return numbers if "step" in numbers else None


def total_steps(config: dict[str, Any], lines: list[dict[str, float]]) -> int | None:
    """Returns the steps of the whole run, or None before a line tells its epoch."""
    for line in reversed(lines):
        if line.get("epoch"):
            return round(config["epochs"] * line["step"] / line["epoch"])
    return None


def _speed(trained: list[dict[str, float]]) -> float:
    """Images per second of late; training alone, without evaluation and saving."""
    recent = [line.get("images_per_second", 0.0) for line in trained[-RECENT:]]
    return max(statistics.median(recent), 1e-9)


def _queue(config: dict[str, Any], step: float) -> str:
    """The size of the queue, and how much of it the steps so far have filled."""
    size, push = config["queue"]["size"], config["queue"]["push"]
    views = config["augment"]["global_views"] if push == "both" else 1
    filled = step * config["batch_size"] * views / size
    return f"{size}" if filled >= 1 else f"{filled:.0%} of {size}"
