"""Loggers: where the numbers and images of a run go besides `metrics.jsonl`."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import os
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from tensorboardX import SummaryWriter

PROJECT = "snclr_jax"
# What a server of MLflow takes at once, and of one value.
_MOST_PARAMS, _MOST_CHARACTERS = 100, 6000


@dataclasses.dataclass(frozen=True)
class LoggedRun:
    """What a logger is told of a run.

    Attributes:
      folder: on this machine, for what the logger itself writes.
      name: of the run.
      first_step: the step that the run starts or continues from.
      settings: the run's config, sections as dictionaries.
      id: of the run at this logger, where it has been there before; or "".
    """

    folder: Path
    name: str
    first_step: int
    settings: Mapping[str, Any]
    id: str = ""


class Logger(Protocol):
    """One place for numbers and images. It is opened with a `LoggedRun`.

    A continued run may write steps again that it had written after its checkpoint.

    Attributes:
      library: the module that it needs.
      id: of the run there, by which a continuation finds it; "" where it needs none.
    """

    library: ClassVar[str]
    id: str = ""

    def __init__(self, run: LoggedRun) -> None: ...

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes numbers of a step."""
        ...

    def write_image(self, step: int, name: str, image: np.ndarray) -> None:
        """Writes an image, uint8 (height, width, 3), of a step."""
        ...

    def flush(self) -> None:
        """Brings what was written to the run's folder, if it goes there."""

    def close(self) -> None:
        """Brings all that was written to where it goes, and ends."""
        ...


class TensorBoard(Logger):
    """Event files in the run's folder `tensorboard`."""

    library: ClassVar[str] = "tensorboardX"

    def __init__(self, run: LoggedRun) -> None:
        self._board = SummaryWriter(
            str(run.folder / "tensorboard"),
            purge_step=run.first_step + 1,
            # On a full disk its thread dies, and a queue with an end would block.
            max_queue=0,
        )

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        for name, value in scalars.items():
            self._board.add_scalar(name, value, step)

    def write_image(self, step: int, name: str, image: np.ndarray) -> None:
        self._board.add_image(name, image, step, dataformats="HWC")

    def flush(self) -> None:
        self._board.flush()

    def close(self) -> None:
        self._board.close()


class Wandb(Logger):
    """Weights & Biases; its environment variables, as WANDB_MODE=offline, hold."""

    library: ClassVar[str] = "wandb"

    def __init__(self, run: LoggedRun) -> None:
        self._wandb: Any = importlib.import_module(self.library)
        self.id = run.id or uuid.uuid4().hex[:8]
        self._run = self._wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=run.name,
            id=self.id,
            resume="allow",
            config=dict(run.settings),
            allow_val_change=True,
            dir=str(run.folder),
            # What a run prints stays as it is. Without a network it ends none the less:
            # what was not sent is in its folder.
            settings=self._wandb.Settings(console="off", finish_timeout=300),
        )
        # A number of its own: wandb's only grows, and drops what a run writes again.
        self._run.define_metric("step", hidden=True)
        self._run.define_metric("*", step_metric="step")

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        self._run.log({**scalars, "step": step})

    def write_image(self, step: int, name: str, image: np.ndarray) -> None:
        self._run.log({name: self._wandb.Image(image), "step": step})

    def close(self) -> None:
        self._run.finish()


class MLflow(Logger):
    """The server of MLFLOW_TRACKING_URI; without one, the run's folder `mlruns`."""

    library: ClassVar[str] = "mlflow"

    def __init__(self, run: LoggedRun) -> None:
        self._mlflow: Any = importlib.import_module(self.library)
        server = os.environ.get("MLFLOW_TRACKING_URI")
        if not server:
            # Newer versions ask for it: databases need more than the skinny package.
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        folder = (run.folder / "mlruns").absolute().as_uri()
        self._client = self._mlflow.MlflowClient(tracking_uri=server or folder)
        if run.id:
            self.id = run.id
            self._client.update_run(self.id, status="RUNNING")
            return
        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        known = self._client.get_experiment_by_name(experiment)
        place = (
            known.experiment_id if known else self._client.create_experiment(experiment)
        )
        self.id = self._client.create_run(place, run_name=run.name).info.run_id
        params = [
            self._mlflow.entities.Param(name, str(value)[:_MOST_CHARACTERS])
            for name, value in _dotted(run.settings)
        ]
        for start in range(0, len(params), _MOST_PARAMS):
            part = params[start : start + _MOST_PARAMS]
            self._client.log_batch(self.id, params=part)

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)
        metric = self._mlflow.entities.Metric
        self._client.log_batch(
            self.id,
            metrics=[metric(name, value, now, step) for name, value in scalars.items()],
        )

    def write_image(self, step: int, name: str, image: np.ndarray) -> None:
        self._client.log_image(self.id, image, key=name, step=step, synchronous=True)

    def close(self) -> None:
        self._client.set_terminated(self.id)


class Trackio(Logger):
    """Trackio's database on this machine; its environment variables hold."""

    library: ClassVar[str] = "trackio"

    def __init__(self, run: LoggedRun) -> None:
        self._trackio: Any = importlib.import_module(self.library)
        self.id = run.id or f"{run.name}-{uuid.uuid4().hex[:8]}"
        self._run = self._trackio.init(
            project=PROJECT,
            name=self.id,
            resume="allow",
            config=dict(run.settings),
            embed=False,
        )

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        self._run.log(dict(scalars), step=step)

    def write_image(self, step: int, name: str, image: np.ndarray) -> None:
        self._run.log({name: self._trackio.Image(image)}, step=step)

    def close(self) -> None:
        self._trackio.finish()


LOGGERS: dict[str, type[Logger]] = {
    "tensorboard": TensorBoard,
    "wandb": Wandb,
    "mlflow": MLflow,
    "trackio": Trackio,
}


def check_loggers(names: Sequence[str]) -> None:
    """Raises ValueError where one of `log.to` is unknown, or lacks its library."""
    for name in names:
        if name not in LOGGERS:
            raise ValueError(
                f"log.to {name!r} is unknown; use some of {tuple(LOGGERS)}, as in "
                "--config.log.to=\"('tensorboard', 'wandb')\""
            )
        spec = importlib.util.find_spec(LOGGERS[name].library)
        # A folder of that name, as wandb leaves one, can be imported and is empty.
        if spec is None or spec.origin is None:
            raise ValueError(
                f"log.to {name!r} needs a package that is not installed; use pip "
                f'install "snclr_jax[{name}]", or leave it out'
            )


def _dotted(settings: Mapping[str, Any], start: str = "") -> Iterator[tuple[str, Any]]:
    """Yields every setting by its dotted name."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _dotted(value, f"{start}{name}.")
        else:
            yield f"{start}{name}", value
