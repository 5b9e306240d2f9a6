"""Checkpoints: everything that the step reads, the position in the data, the config.

Orbax writes them in the background and renames them into place when whole, so a run
killed at any moment leaves the previous checkpoint intact.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import grain
import jax
import ml_collections
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from tqdm import tqdm

from snclr_jax.digest import digests
from snclr_jax.read_checkpoint import (
    FOLDER,
    Damaged,
    check_digests,
    check_same_arrays,
    damage,
    stored_arrays,
)
from snclr_jax.train_state import TrainState

CONFIG_FILE = "config.json"
DAMAGED = "damaged_checkpoints"  # where unreadable ones are moved to
# Sections that may change between a run and its continuation: they do not enter the
# training step.
FREE_SECTIONS = ("log", "checkpoint", "evaluate")


class Checkpoints:
    """The checkpoints of one workdir.

    Args:
      workdir: the run's folder; checkpoints lie in `workdir/checkpoints/<step>`.
      keep: how many of the newest stay.
    """

    def __init__(self, workdir: str | Path, *, keep: int = 1) -> None:
        self._folder = Path(workdir).absolute() / FOLDER
        self._manager = ocp.CheckpointManager(
            self._folder,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=keep, create=True, enable_async_checkpointing=True
            ),
        )

    @property
    def latest_step(self) -> int | None:
        """The newest whole checkpoint's step, or None."""
        return self._manager.latest_step()

    def save(
        self,
        state: TrainState,
        batches: grain.DatasetIterator,
        clock: dict[str, float],
        config: ml_collections.ConfigDict,
    ) -> None:
        """Starts saving `state`; returns once its arrays are copied off the device.

        Args:
          state: the state after a whole step.
          batches: the training batches, at the batch that comes next.
          clock: seconds and images spent on training so far.
          config: the run's: which network the arrays belong to, and how images are
            prepared for it, so that a checkpoint says what it is wherever it is moved.
        """
        step = int(state.step)
        if step == self.latest_step:
            return
        items = {
            "state": ocp.args.StandardSave(_without_probe(state)),
            # Grain's own handler keeps a file for each process, and so their number.
            "data": ocp.args.JsonSave(batches.get_state()),
            "clock": ocp.args.JsonSave(clock),
            "config": ocp.args.JsonSave(as_json(config)),
            "digest": ocp.args.JsonSave(digests(_without_probe(state))),
        }
        if state.probe is not None:
            items["probe"] = ocp.args.StandardSave(state.probe)
        self._manager.save(step, args=ocp.args.Composite(**items))

    def restore(
        self, state: TrainState, batches: grain.DatasetIterator
    ) -> tuple[TrainState, dict[str, float]]:
        """Returns the newest whole checkpoint's state and clock, and sets `batches`.

        A checkpoint that cannot be read, or has other bits than were saved, is moved to
        `workdir/damaged_checkpoints`, and the one before it is taken. A run may be
        continued with an online probe that it did not have: the probe then stays the
        one of `state`.

        Args:
          state: a state of the same shapes, types and shardings, to restore into.
          batches: moved to the checkpoint's position in the data.

        Raises:
          ValueError: where no checkpoint is whole, or the newest one that is does not
            fit the config's state.
        """
        damaged = ""
        while (step := self.latest_step) is not None:
            folder = self._folder / str(step)
            try:
                stored = stored_arrays(folder)
            except Damaged as error:
                damaged = self._move_away(folder, error)
                continue
            # Not damage: another network. It stays where it is.
            check_same_arrays(str(folder), stored, _without_probe(state))
            try:
                return self._restore(step, state, batches)
            except Damaged as error:
                damaged = self._move_away(folder, error)
        raise ValueError(
            damaged
            or f"no checkpoint in {self._folder}; train first, or name another workdir"
        )

    def _restore(
        self, step: int, state: TrainState, batches: grain.DatasetIterator
    ) -> tuple[TrainState, dict[str, float]]:
        folder = self._folder / str(step)
        items = {
            "state": ocp.args.StandardRestore(_abstract(_without_probe(state))),
            "data": ocp.args.JsonRestore(),
            "clock": ocp.args.JsonRestore(),
        }
        if state.probe is not None and (folder / "probe").exists():
            items["probe"] = ocp.args.StandardRestore(_abstract(state.probe))
        with damage(folder):
            restored = self._manager.restore(step, args=ocp.args.Composite(**items))
            check_digests(folder, restored.state)
        batches.set_state(restored.data)
        probe = restored.get("probe", state.probe)
        return state.replace(**restored.state, probe=probe), restored.clock

    def _move_away(self, folder: Path, error: Damaged) -> str:
        """Moves a damaged checkpoint out of the run's way, and says so."""
        target = self._folder.with_name(DAMAGED) / f"{folder.name}-{time.time_ns()}"
        if jax.process_index() == 0:
            target.parent.mkdir(exist_ok=True)
            folder.replace(target)
            tqdm.write(f"{error}; it was moved to {target}")
        multihost_utils.sync_global_devices("moved a damaged checkpoint away")
        self._manager.reload()
        return f"{error}; it was moved to {target}, and no other checkpoint is left"

    def wait(self) -> None:
        """Returns when what was saved is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits for a running save, then lets go of the folder."""
        self._manager.close()


def claim_workdir(config, workdir: str | Path) -> None:
    """Writes the config into the workdir, or checks it against the one there.

    Raises:
      ValueError: where the workdir holds a run of another or of an unknown config.
    """
    path = Path(workdir) / CONFIG_FILE
    ours = as_json(config)
    if path.exists():
        theirs = read_config(workdir)
        differing = [
            f"config.{field} is {ours_value!r}, the run has {theirs_value!r}"
            for field, ours_value, theirs_value in _differences(ours, theirs)
            if field.split(".")[0] not in FREE_SECTIONS
        ]
        if differing:
            raise ValueError(
                f"{workdir} holds a run of another config: {'; '.join(differing)}. Use "
                "the same config to continue it, or another --workdir"
            )
    elif any(path.parent.glob(f"{FOLDER}/[0-9]*")):
        raise ValueError(
            f"{workdir} holds checkpoints but no {CONFIG_FILE}, so what they belong to "
            "is unknown; restore that file, or use another --workdir"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(ours, indent=2))
    temporary.replace(path)


def as_json(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Returns a config as it reads when it comes back from a JSON file."""
    return json.loads(config.to_json())


def read_config(workdir: str | Path) -> dict[str, Any]:
    """Returns the config that the run in a workdir was started with.

    Raises:
      ValueError: where there is no run, or its config cannot be read.
    """
    path = Path(workdir) / CONFIG_FILE
    if not path.exists():
        raise ValueError(
            f"{workdir} holds no run: {path} does not exist; check --workdir"
        )
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged ({error}); restore it, or remove it and run train with "
            "the run's config"
        ) from error


def _differences(ours: Any, theirs: Any, prefix: str = "") -> list[tuple]:
    if not (isinstance(ours, dict) and isinstance(theirs, dict)):
        return [] if ours == theirs else [(prefix, ours, theirs)]
    fields = sorted(set(ours) | set(theirs))
    start = f"{prefix}." if prefix else ""
    return [
        difference
        for field in fields
        for difference in _differences(
            ours.get(field), theirs.get(field), f"{start}{field}"
        )
    ]


def _without_probe(state: TrainState) -> dict[str, Any]:
    """The probe is an item of its own, so that every run's state looks alike."""
    return {name: value for name, value in vars(state).items() if name != "probe"}


def _abstract(tree: Any) -> Any:
    return jax.tree.map(ocp.utils.to_shape_dtype_struct, tree)
