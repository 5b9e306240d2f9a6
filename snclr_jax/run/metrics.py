"""Reporting: console, a JSON-lines file and loggers, from one call."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
from etils import epath
from tqdm import tqdm

from snclr_jax.devices.processes import from_first
from snclr_jax.run.files import METRICS_FILE, write_whole, written
from snclr_jax.run.loggers import LoggedRun
from snclr_jax.run.open_loggers import Loggers
from snclr_jax.settings.paths import located
from snclr_jax.step.objective import Shown

COPY_SECONDS = 60
MUST_BE_FINITE = ("loss", "gradient_norm", "parameter_norm")


class NonFiniteError(RuntimeError):
    """The loss, its gradient or the weights are no longer numbers."""


class MetricWriter:
    """Writes scalars of a step to `workdir/metrics.jsonl` and to loggers.

    Only process 0 writes. A continued run first drops the lines that the killed run
    wrote after its last checkpoint, so every step stands there once.

    Args:
      workdir: the run's folder.
      first_step: the step that the run starts or continues from.
      to: names of `LOGGERS`.
      settings: the run's config, for the loggers.

    Raises:
      OSError, ValueError: on every process, where one cannot be opened.
    """

    def __init__(
        self,
        workdir: epath.PathLike,
        *,
        first_step: int,
        to: Sequence[str],
        settings: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self._writes = jax.process_index() == 0
        from_first(lambda: self._open(workdir, first_step, to, settings))

    def _open(
        self,
        workdir: epath.PathLike,
        first_step: int,
        to: Sequence[str],
        settings: Mapping[str, Any],
    ) -> None:
        self._workdir = epath.Path(workdir)
        # An object store cannot append: what grows is written here and copied there.
        self._copies = "://" in str(workdir)
        self._folder = Path(tempfile.mkdtemp() if self._copies else workdir)
        self._copied = time.monotonic()
        kept = [
            line for line in read_metrics(workdir) if line["step"] <= first_step != 0
        ]
        path = self._folder / METRICS_FILE
        write_whole(path, "".join(map(_line, kept)))
        self._file = path.open("a", buffering=1, encoding="utf-8")
        run = LoggedRun(self._folder, located(workdir).name, first_step, settings)
        self._loggers = Loggers(to, self._workdir, run, say=say)

    def write(self, step: int, scalars: dict[str, float]) -> None:
        """Writes one step's scalars."""
        if not self._writes:
            return
        with written(self._file.name):
            self._file.write(_line({"step": step, **scalars}))
        self._loggers.tell(lambda logger: logger.write(step, scalars))
        if time.monotonic() - self._copied > COPY_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Brings what was written to a workdir that is no folder of this machine."""
        if not self._writes or not self._copies:
            return
        self._loggers.tell(lambda logger: logger.flush())
        for source in filter(Path.is_file, self._folder.rglob("*")):
            target = self._workdir / source.relative_to(self._folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
        self._copied = time.monotonic()

    def write_image(self, step: int, name: str, image: np.ndarray) -> None:
        """Gives an image, uint8 (height, width, 3), to the loggers; on process 0."""
        if self._writes:
            self._loggers.tell(lambda logger: logger.write_image(step, name, image))

    def close(self) -> None:
        """Closes the file and the loggers."""
        if self._writes:
            self._loggers.close()
            with written(self._file.name):  # it tries again what it could not
                self._file.close()
            self.flush()
            if self._copies:
                shutil.rmtree(self._folder)


def read_metrics(workdir: epath.PathLike) -> list[dict[str, float]]:
    """Returns the lines of `workdir/metrics.jsonl`, but for damaged ones.

    A machine that loses its power may leave some; it is said how many.
    """
    path = epath.Path(workdir) / METRICS_FILE
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]
    metrics = [line for line in map(_parsed, lines) if line is not None]
    if damaged := len(lines) - len(metrics):
        warnings.warn(f"{path}: {damaged} damaged lines are passed over", stacklevel=2)
    return metrics


def _line(metrics: dict[str, float]) -> str:
    return json.dumps(metrics) + "\n"


def _parsed(line: bytes) -> dict[str, float] | None:
    try:
        metrics = json.loads(line)
    except ValueError:
        return None
    return metrics if isinstance(metrics, dict) and "step" in metrics else None


class PendingMetrics:
    """Metrics still on the device, fetched one interval late and all at once.

    The loop never waits for the step it has just started: what it fetches belongs to
    the interval before.
    """

    def __init__(self) -> None:
        self._calls: list[tuple[int, dict[str, jax.Array]]] = []

    def add(self, step: int, metrics: dict[str, jax.Array]) -> None:
        """Keeps the metrics of the step that ends with `step` updates made.

        Where they are (n,) each, they are those of n steps, and this is the last one.
        """
        self._calls.append((step, metrics))

    def take(self) -> tuple[int, int, dict[str, float]] | None:
        """Returns the last step, and the number and the means of steps since last time.

        Raises:
          NonFiniteError: naming the first step whose loss, gradient or weights are not.
        """
        if not self._calls:
            return None
        calls, self._calls = self._calls, []
        fetched = jax.device_get([metrics for _, metrics in calls])
        by_step = {
            name: np.concatenate([np.atleast_1d(call[name]) for call in fetched])
            for name in fetched[0]
        }
        last, count = calls[-1][0], len(by_step[MUST_BE_FINITE[0]])
        finite = np.all([np.isfinite(by_step[name]) for name in MUST_BE_FINITE], axis=0)
        if not finite.all():
            bad = int(np.argmin(finite))
            values = ", ".join(
                f"{name} {by_step[name][bad]}" for name in MUST_BE_FINITE
            )
            raise NonFiniteError(
                f"step {last - count + 1 + bad} is not finite: {values}. Try a lower "
                "optim.learning_rate, a longer optim.warmup_epochs, a higher "
                "objective.temperature or model.dtype='float32'"
            )
        means = {name: float(np.mean(values)) for name, values in by_step.items()}
        return last, count, means


@dataclasses.dataclass
class Clock:
    """Time of training alone: without compilation, evaluation and saving.

    Attributes:
      train_seconds: all of it.
      images: trained on in that time.
      waited: seconds of it in which the devices had no batch to work on.
    """

    train_seconds: float = 0.0
    images: int = 0
    waited: float = 0.0
    _started: float = 0.0

    def start(self) -> None:
        """Time counts from here."""
        self._started = time.perf_counter()

    def lap(self, images: int, waited: float) -> float:
        """Counts the seconds since the last lap, and returns them."""
        now = time.perf_counter()
        seconds, self._started = now - self._started, now
        self.train_seconds += seconds
        self.images += images
        self.waited += waited
        return seconds

    def totals(self) -> dict[str, float]:
        """What a checkpoint keeps of it."""
        return {
            "train_seconds": self.train_seconds,
            "images": self.images,
            "waited": self.waited,
        }


def say(text: str) -> None:
    """Prints once, whatever the number of processes, and above a bar if there is one.

    Where nobody can read it any more, such as after a terminal was closed, what is said
    from then on is lost, and the run goes on to where it saves.
    """
    if jax.process_index() != 0:
        return
    try:
        tqdm.write(text)
        sys.stdout.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def progress_bar(*items, **settings) -> tqdm:
    """Returns tqdm's bar; only process 0 shows it, and only on a terminal."""
    hidden = None if jax.process_index() == 0 else True
    return tqdm(*items, disable=hidden, **settings)


class Progress:
    """A line of metrics every interval, and on a terminal a bar with the time left.

    Args:
      total_steps: of the run.
      first_step: the step that the run starts or continues from.
      shown: what the objective shows of itself.
    """

    SHOWN = (
        ("online probe %", "probe_accuracy", ".1f"),
        ("feature std", "feature_std", ".2f"),
        ("gradient norm", "gradient_norm", ".2g"),
        ("learning rate", "learning_rate", ".2g"),
        ("images/s", "images_per_second", ".0f"),
        ("waiting for data", "data_wait", ".0%"),
    )

    def __init__(
        self, total_steps: int, first_step: int, shown: Sequence[Shown]
    ) -> None:
        own = (metric[:3] for metric in shown)
        self._shown = (("loss", "loss", ".3f"), *own, *self.SHOWN)
        self._bar = progress_bar(
            total=total_steps, initial=first_step, unit="step", dynamic_ncols=True
        )

    def advance(self, steps: int) -> None:
        """So many more steps are under way."""
        self._bar.update(steps)

    def show(self, step: int, scalars: dict[str, float]) -> None:
        """Prints an interval's metrics."""
        shown = ", ".join(
            f"{label} {scalars[name]:{form}}"
            for label, name, form in self._shown
            if name in scalars
        )
        say(f"step {step}: {shown}")
        self._bar.set_postfix_str(f"{scalars['images_per_second']:.0f} images/s")

    def close(self) -> None:
        """Leaves the bar as it stands."""
        self._bar.close()
