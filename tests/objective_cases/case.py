"""What `objectives/test_every_objective.py` needs to know about an objective."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from snclr_jax.queue.ring import NeighborQueue
from snclr_jax.step.objective import Objective

GOLDEN = Path(__file__).parents[1] / "golden_objectives"

# Parameters and state, as trees of numpy arrays.
Tree = Any
# Of the run, see `step.objective.Now`.
SEED = 11


class Rows(NamedTuple):
    """As `step.objective.Seen`, in numpy and float64; any rows, of any length.

    `params` are those of the objective where rows are given as `stopped`, see `Case`.
    """

    projection: np.ndarray
    prediction: np.ndarray
    target: np.ndarray
    image_id: np.ndarray
    params: Tree = None


class Recorded(NamedTuple):
    """What the code of others made of rows.

    Attributes:
      rows: as the networks gave them, not normalized.
      params: normalized where the objective would normalize.
      state: before the step.
      loss: on the scale of the objective.
      gradients: by "projection", "prediction" (not normalized) and the names of params;
        what is left out is not compared.
      state_after: arrays of the state by attribute, after the step.
    """

    objective: Objective
    rows: Rows
    loss: float
    gradients: Mapping[str, np.ndarray]
    params: Tree = {}
    state: Tree = ()
    state_after: Mapping[str, np.ndarray] = {}


@dataclasses.dataclass(frozen=True)
class Case:
    """One setting of an objective, and what is known about it.

    Attributes:
      objective: with settings that are not its defaults, so that each one counts.
      loss: (objective, params, state, rows, stopped, step) -> the loss, from loops in
        numpy that call nothing of the package. `stopped` are the same rows, with the
        same params: whatever sends no gradient is computed from them.
      state_after: (objective, state, rows, step) -> arrays of the state by attribute,
        of an objective that has a state.
      metrics: (objective, params, state, rows, step) -> metrics by name, those of the
        objective that are worth an oracle.
      neighbors: (objective, params, state, rows) -> for each image the rows of the
        queue that are shown as its neighbors, and their weights to the first view.
      global_views, local_views: how many it is tried with.
      recorded: functions that read what the code of others gave.
      stretched: fields at whose ends it has to stay finite, beside temperatures.
    """

    objective: Objective
    loss: Callable[..., float]
    state_after: Callable[..., Mapping[str, np.ndarray]] | None = None
    metrics: Callable[..., Mapping[str, Any]] | None = None
    neighbors: Callable[..., Sequence[tuple[Any, Any]]] | None = None
    global_views: int = 2
    local_views: int = 0
    recorded: tuple[Callable[[], Recorded], ...] = ()
    stretched: tuple[Mapping[str, Any], ...] = ()


def load(name: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Returns the settings and the arrays of a recorded file, see its README."""
    with np.load(GOLDEN / f"{name}.npz") as file:
        arrays = {key: file[key] for key in file.files}
    return json.loads(str(arrays.pop("meta"))), arrays


def whole(array: np.ndarray) -> np.ndarray:
    """Returns (process, rows, ...) as the rows of the global batch."""
    return array.reshape(-1, *array.shape[2:])


def views(arrays: Mapping[str, np.ndarray], *names: str) -> np.ndarray:
    """Returns the global rows of each of these arrays, (v, b, d)."""
    return np.stack([whole(arrays[name]) for name in names])


def rows_of(*, projection=None, prediction=None, target=None, image_id=None) -> Rows:
    """Returns rows with zeros for what was not recorded."""
    given = [x for x in (projection, prediction, target) if x is not None]
    like = np.ones_like(given[0])
    return Rows(
        like if projection is None else projection,
        like if prediction is None else prediction,
        like if target is None else target,
        np.full(like.shape[1], -1, np.int32) if image_id is None else image_id,
    )


def of_projections(name: str, objective_of: Callable, *, suffix: str = "") -> Recorded:
    """Returns what was recorded of a symmetric loss of all projections.

    Args:
      name: of the file.
      objective_of: from its settings to the objective, on the scale of the source.
      suffix: of the loss, or of its two directions, and of gradients.
    """
    meta, arrays = load(name)
    names = sorted(key for key in arrays if key.startswith("proj"))
    gradients = (f"grad_{projection}{suffix}" for projection in names)
    losses = [
        arrays[f"loss{direction}{suffix}"]
        for direction in ("", 12, 21)
        if f"loss{direction}{suffix}" in arrays
    ]
    return Recorded(
        objective=objective_of(meta),
        rows=rows_of(projection=views(arrays, *names)),
        loss=float(np.mean(sum(losses))),
        gradients={"projection": views(arrays, *gradients) / meta["world"]},
    )


def ring(keys: np.ndarray, cursor: int = 0) -> NeighborQueue:
    """Returns a queue whose rows (q, d) were all written, of unknown images."""
    number = np.zeros(len(keys), np.int32)
    return NeighborQueue(keys, number - 1, number, np.int32(cursor))


def filled(state: NeighborQueue) -> list[np.ndarray]:
    """Returns the rows of a queue that were written."""
    return [key for key, at in zip(state.keys, state.pushed_at, strict=True) if at >= 0]


def log_sum(values) -> float:
    """Returns log sum exp of numbers."""
    values = np.asarray(list(values), np.float64)
    top = values.max()
    return float(top + np.log(np.exp(values - top).sum()))
