"""`snclr watch`: running jobs in a terminal, from nothing but the files they write.

It imports no JAX, so that it starts at once where there is no accelerator.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

from snclr_jax.run.files import (
    CHECKPOINTS,
    CONFIG_FILE,
    EVALUATION_FILE,
    FAILED,
    METRICS_FILE,
    OWN,
    SHOWN_FILE,
    STOPPED,
    STOPPED_FILE,
    SUMMARY_FILE,
)
from snclr_jax.run.metrics_tail import MetricsTail

MISSING, STARTING, RUNNING = "no run yet", "starting", "running"
SILENT, FINISHED, DAMAGED = "silent", "finished", "damaged"
# Columns before and after those that an objective shows of itself.
ACCURACIES = {
    "kNN %": "knn{}",
    "balanced %": "knn{}_balanced",
    "majority %": "majority",
}
FIRST = ("run", "state", "step", "left", "loss", *ACCURACIES, "images/s")
LAST = ("checkpoint", "evaluation", "reason")
BARS = "▁▂▃▄▅▆▇█"
CURVE = 12  # bars of the loss curve
NAME = 32  # columns of text that the name of a run may take
QUIET = 60.0  # seconds without a line that never count as silence
RECENT = 5  # lines that the speed is the median of
STYLES = {SILENT: "yellow", STOPPED: "yellow", DAMAGED: "red", FAILED: "red"}
# For a terminal without Unicode.
PLAIN = str.maketrans({**dict(zip(BARS, "_.-:=+*#", strict=True)), "→": "->", "…": "~"})
UNITS = (("d", 86400, ".1f"), ("h", 3600, ".1f"), ("min", 60, ".0f"), ("s", 1, ".0f"))


class Row(NamedTuple):
    """What is shown of one run.

    Attributes:
      name: the workdir, shortened.
      state: one of the states above, or of `stopped.json`.
      since: seconds that the state lasts, or None where that says nothing.
      cells: texts by column, only those that are known.
    """

    name: str
    state: str
    since: float | None
    cells: dict[str, str]

    def columns(self) -> dict[str, str]:
        """Returns every text that is known, by column."""
        lasting = "" if self.since is None else f" for {duration(self.since)}"
        return {"run": self.name, "state": self.state + lasting, **self.cells}


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
    # A terminal is asked for its width at every look; a pipe has none.
    width = None if sys.stdout.isatty() else shutil.get_terminal_size((120, 0)).columns
    # Names of runs and metrics may look like markup.
    console = Console(width=width, markup=False, emoji=False, highlight=False)
    live = Live(console=console, auto_refresh=False)
    shown = None
    with contextlib.suppress(KeyboardInterrupt), contextlib.ExitStack() as at_end:
        at_end.callback(live.stop)
        while True:
            rows = [run.read(time.time()) for run in runs]
            if once and all(row.state == MISSING for row in rows):
                raise ValueError(f"no run in {', '.join(workdirs)}; check --workdir")
            facts = [(row.state, row.cells) for row in rows]
            if console.is_interactive:
                live.start()
                live.update(view(rows, console), refresh=True)
            elif facts != shown:
                console.print(view(rows, console))
            shown = facts
            if once or all(row.state == FINISHED for row in rows):
                return
            time.sleep(every)


def view(rows: Sequence[Row], console: Console) -> Group:
    """Returns a table with one line for each run.

    Columns that do not fit follow in another table, which begins with the names of the
    runs again. A column without any text is left out.
    """
    plain, encoding = console.options.ascii_only, console.encoding
    overflow = "crop" if plain else "ellipsis"

    def printable(text: str) -> str:
        text = text.translate(PLAIN) if plain else text
        return text.encode(encoding, "backslashreplace").decode(encoding)

    texts = [
        {name: printable(text) for name, text in row.columns().items()} for row in rows
    ]
    own = [name for row in texts for name in row if name not in FIRST + LAST]
    names = dict.fromkeys([*FIRST[1:], *own, *LAST])

    def table(names: Sequence[str]) -> Table:
        grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for name in names:
            grid.add_column(name, no_wrap=True, overflow=overflow)
        for row, text in zip(rows, texts, strict=True):
            cells = (text.get(name, "") for name in names)
            grid.add_row(*cells, style=STYLES.get(row.state))
        return grid

    blocks = [["run"]]
    for name in (name for name in names if any(name in text for text in texts)):
        # A table that is wider measures as wide as the terminal.
        needed = console.measure(table([*blocks[-1], name])).maximum
        if len(blocks[-1]) > 1 and needed >= console.width:
            blocks.append(["run"])
        blocks[-1].append(name)
    return Group(*map(table, blocks))


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
            config, started = _read_json(path), path.stat().st_mtime
            batch, epochs = config["batch_size"], config["epochs"]
            lines, written = self._tail.read()
            total = total_steps(epochs, lines)
            cells = dict(self._cells(batch, total, lines))
            state = self._state(batch, total, lines, now - written)
            since = {STARTING: started, SILENT: written}.get(state)
            if state != FINISHED and (stop := self._stop()) is not None:
                state, cells["reason"], since = stop
        except FileNotFoundError:
            return Row(self._name, MISSING, None, {})
        except OSError as error:
            reason = f"cannot be read: {error.strerror}"
            return Row(self._name, DAMAGED, None, {"reason": reason})
        except (ValueError, KeyError, TypeError, ArithmeticError):
            reason = f"{CONFIG_FILE}, {SHOWN_FILE} or {STOPPED_FILE} is not a run's"
            return Row(self._name, DAMAGED, None, {"reason": reason})
        if state not in (STARTING, RUNNING):
            cells.pop("left", None)
        return Row(self._name, state, None if since is None else now - since, cells)

    def _stop(self) -> tuple[str, str, float] | None:
        """Returns state, reason and time of a run that wrote down that it stopped."""
        path = self._folder / STOPPED_FILE
        try:
            why, when = _read_json(path), path.stat().st_mtime
        except FileNotFoundError:
            return None
        return f"{why['state']}", f"{why['reason']}", when

    def _state(
        self, batch: int, total: int | None, lines: list[dict], silence: float
    ) -> str:
        trained = [line for line in lines if "loss" in line]
        summarized = (self._folder / SUMMARY_FILE).exists()
        # A summary may be left over where the checkpoints of a run were removed.
        if summarized and (total is None or lines[-1]["step"] >= total):
            return FINISHED
        if not trained:
            return STARTING
        steps = [0, *(line["step"] for line in trained)]
        interval = (steps[-1] - steps[-2]) * batch / _speed(trained)
        return SILENT if silence > max(QUIET, 3 * interval) else RUNNING

    def _cells(
        self, batch: int, total: int | None, lines: list[dict]
    ) -> Iterator[tuple[str, str]]:
        last = {name: value for line in lines for name, value in line.items()}
        trained = [line for line in lines if "loss" in line]
        step = last.get("step", 0)
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
        for column, name in ACCURACIES.items():
            names = dict.fromkeys((name.format("_untrained"), name.format("")))
            if any(each in last for each in names):
                texts = (f"{last[n]:.1f}" if n in last else "" for n in names)
                yield column, " → ".join(texts).strip()
        path = self._folder / SHOWN_FILE
        # A run of an earlier version has none.
        shown = _read_json(path) if path.exists() else []
        for label, metric, form in shown:
            if metric in last:
                yield label, f"{last[metric]:{form}}"
        yield from self._saved()

    def _saved(self) -> Iterator[tuple[str, str]]:
        folder = self._folder / CHECKPOINTS
        # A checkpoint that is being written has a longer name.
        steps = [
            int(checkpoint.name)
            for checkpoint in folder.glob("*")
            if checkpoint.name.isdigit()
        ]
        if steps:
            yield "checkpoint", f"{max(steps)}"
        try:
            records = _read_json(self._folder / EVALUATION_FILE)["records"]
            own = [r for r in records if (r["encoder"], r["data"]) == ("trained", OWN)]
            for record in own[-1:]:  # the newest
                yield "evaluation", _scores(record)
        except FileNotFoundError:
            pass
        except (ValueError, KeyError, TypeError, AttributeError, StopIteration):
            yield "evaluation", f"{EVALUATION_FILE} cannot be read"


def _scores(record: dict[str, Any]) -> str:
    """Returns the first number of a record, with what an accuracy is to be read by."""
    metrics = record["metrics"]
    metric, value = next(iter(metrics.items()))
    beside = {
        "balanced": metrics.get(f"{metric}_balanced"),
        "majority": metrics.get("majority"),
    }
    said = [f"{name} {v:.2f}" for name, v in beside.items() if v is not None]
    text = f"{record['what']} {metric} {value:.2f}"
    return f"{text} ({', '.join(said)})" if said else text


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def total_steps(epochs: int, lines: list[dict[str, float]]) -> int | None:
    """Returns the steps of the whole run, or None before a line tells its epoch."""
    for line in reversed(lines):
        if line.get("epoch"):
            return round(epochs * line["step"] / line["epoch"])
    return None


def _speed(trained: list[dict[str, float]]) -> float:
    """Images per second of late; training alone, without evaluation and saving."""
    recent = [line.get("images_per_second", 0.0) for line in trained[-RECENT:]]
    return max(statistics.median(recent), 1e-9)


def sparkline(values: Sequence[float], width: int) -> str:
    """Returns a curve of at most `width` bars, each the mean of as many values.

    Example:
      >>> sparkline([8.0, 6.0, 4.0, 2.0, 1.0], 12)
      '█▆▄▂▁'
    """
    count = min(width, len(values))
    edges = [len(values) * edge // count for edge in range(count + 1)]
    means = [
        statistics.fmean(values[start:end])
        for start, end in zip(edges[:-1], edges[1:], strict=True)
    ]
    low, span = min(means), max(means) - min(means)
    return "".join(
        BARS[round((mean - low) / span * (len(BARS) - 1))] if span else BARS[0]
        for mean in means
    )


def duration(seconds: float) -> str:
    """Returns a time that is read at a glance.

    Example:
      >>> [duration(seconds) for seconds in (42, 200, 9000, 200_000)]
      ['42 s', '3 min', '2.5 h', '2.3 d']
    """
    unit, size, form = next((u for u in UNITS if seconds >= u[1]), UNITS[-1])
    return f"{max(seconds, 0) / size:{form}} {unit}"
