"""Checkpoints: everything that the step reads, the position in the data, the config.

Orbax writes them in the background and renames them into place when whole, so a run
killed at any moment leaves the previous checkpoint intact.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator
from typing import Any

import grain
import jax
import ml_collections
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils

from snclr_jax.devices.agreement import in_agreement
from snclr_jax.run.checkpoint_reader import Damaged, causes, saved_steps
from snclr_jax.run.digest import digest_of_json, digests
from snclr_jax.run.files import CHECKPOINTS, write_whole
from snclr_jax.run.metrics import say
from snclr_jax.run.restore import read_state, without_probe
from snclr_jax.run.workdir import as_json
from snclr_jax.settings.paths import storable
from snclr_jax.step.state import TrainState

DAMAGED = "damaged_checkpoints"  # where unreadable ones are moved to
# How long processes wait for one that cannot save, before all of them end. A save that
# takes longer fails.
SAVE_SECONDS = 300
# What a save lacks that fails, by what is said of it; else it is room on the disk.
_ROOM = "there is room and leave to write"
_IN_TIME = f"a save takes less than {SAVE_SECONDS // 60} minutes of a steady clock"
_LACKED = {
    "Too many open files": "more files may be open (ulimit -n)",
    "Timed out": _IN_TIME,
    "did not complete within": _IN_TIME,
    "can't start new thread": "more threads may be started (ulimit -u, ulimit -v)",
}


class Checkpoints:
    """The checkpoints of one workdir.

    Args:
      workdir: the run's folder; checkpoints lie in `workdir/checkpoints/<step>`.
      keep: how many of the newest stay.
      before_save: called by every process before anything is written; what it raises
        ends the save.

    Raises:
      ValueError: where processes see other checkpoints there.
    """

    def __init__(
        self,
        workdir: epath.PathLike,
        *,
        keep: int,
        before_save: Callable[[], None] = lambda: None,
    ) -> None:
        self._before_save = before_save
        self._folder = storable(workdir) / CHECKPOINTS
        self._proven = False  # whether a checkpoint here was read
        self._manager = ocp.CheckpointManager(
            self._folder,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=keep,
                create=True,
                enable_async_checkpointing=True,
                async_options=ocp.AsyncOptions(timeout_secs=SAVE_SECONDS),
            ),
        )
        # Folders of one name on several machines, or a file system that lags: each
        # process would continue from another step.
        in_agreement(
            lambda: sorted(self._manager.all_steps()),
            lambda steps: {f"steps in {self._folder}": steps},
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

        The first checkpoint of a run is waited for and read back: only then is it known
        that this folder keeps what it is given.

        Args:
          state: the state after a whole step.
          batches: the training batches, at the batch that comes next.
          clock: seconds and images spent on training so far.
          config: the run's: which network the arrays belong to, and how images are
            prepared for it, so that a checkpoint says what it is wherever it is moved.

        Raises:
          OSError: where it, or the one before it, cannot be written or read back.
        """
        step = int(state.step)
        if step == self.latest_step:
            return
        self._before_save()
        arrays = without_probe(state)
        if not _is_saved(state.objective):
            del arrays["objective"]
        # Grain's own handler keeps a file for each process, and so their number.
        texts = {
            "data": batches.get_state(),
            "clock": clock,
            "config": as_json(config),
        }
        items: dict[str, ocp.args.CheckpointArgs] = {
            "state": ocp.args.StandardSave(arrays)
        }
        digest = digests(arrays)
        if state.probe is not None:
            items["probe"] = ocp.args.StandardSave(state.probe)
            digest |= digests({"probe": state.probe})
        for name, value in texts.items():
            items[name] = ocp.args.JsonSave(value)
            digest[name] = digest_of_json(value)
        items["digest"] = ocp.args.JsonSave(digest)
        with self._saving():
            # Orbax would make it anew, without what else a workdir holds.
            if "://" not in str(self._folder) and not self._folder.exists():
                raise FileNotFoundError(f"{self._folder} does not exist")
            self._manager.save(step, args=ocp.args.Composite(**items))
        if not self._proven:
            self.wait()
            self._prove(step, state)

    def _prove(self, step: int, state: TrainState) -> None:
        """Reads a checkpoint as a continuation of the run would.

        Raises:
          OSError: where it has other bits than were saved, or cannot be read.
        """
        try:
            read_state(self._folder / str(step), state)
        except ValueError as error:
            raise OSError(
                f"what was just saved cannot be read back: {error}. Nothing can be "
                "continued from here; use another --workdir"
            ) from error
        self._proven = True

    def restore(
        self, state: TrainState, batches: grain.DatasetIterator
    ) -> tuple[TrainState, dict[str, Any]]:
        """Returns the newest whole checkpoint's state and clock, and sets `batches`.

        One that is damaged, or has other bits than were saved, gives way to the one
        before it, and is moved to `workdir/damaged_checkpoints` then. A run may be
        continued with an online probe that it did not have, or of other classes: the
        probe then stays the one of `state`; as does the objective's own state where the
        number or type of its rows changed, see `own_workdir`.

        Args:
          state: a state of the same shapes, types and shardings, to restore into.
          batches: moved to the checkpoint's position in the data.

        Raises:
          ValueError: where no checkpoint is whole, or the newest one that is does not
            fit the config's state.
          OSError: where one may be whole and cannot be read now.
        """
        damaged: list[tuple[epath.Path, str]] = []
        for step in sorted(self._manager.all_steps(), reverse=True):
            folder = self._folder / str(step)
            try:
                restored, items = read_state(folder, state)
            except Damaged as error:
                damaged.append((folder, str(error)))  # the error holds what was read
                continue
            self._proven = True
            self._move_away(damaged)
            batches.set_state(items["data"])
            return restored, items["clock"]
        if not damaged:
            raise ValueError(
                f"no checkpoint in {self._folder}; train first, or name another workdir"
            )
        raise ValueError(
            f"{damaged[0][1]}; no other checkpoint is left. Nothing was changed: put a "
            f"whole one into {self._folder}, or use another --workdir"
        )

    def _move_away(self, damaged: list[tuple[epath.Path, str]]) -> None:
        """Moves damaged checkpoints out of the run's way, and says so."""
        if not damaged:
            return
        if jax.process_index() == 0:
            for folder, error in damaged:
                name = f"{folder.name}-{time.time_ns()}"
                target = self._folder.with_name(DAMAGED) / name
                target.parent.mkdir(exist_ok=True)
                # On an object store a folder exists once something is in it.
                write_whole(target.with_name(f"{name}.txt"), error + "\n")
                folder.replace(target)
                say(f"{error}; it was moved to {target}")
        multihost_utils.sync_global_devices("moved damaged checkpoints away")
        self._manager.reload()

    def wait(self) -> None:
        """Returns when what was saved is on disk.

        Raises:
          OSError: where it cannot be written.
        """
        with self._saving():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits for a running save, then lets go of the folder."""
        with self._saving():
            self._manager.close()

    @contextlib.contextmanager
    def _saving(self) -> Generator[None]:
        """Says what an error of a save means, this one or the one before it."""
        try:
            yield
        except (OSError, ValueError, RuntimeError) as error:
            # The others follow from the first one, such as waiting in vain.
            *_, first = causes(error)
            said = str(first).partition("\n")[0]
            raise OSError(
                f"a checkpoint cannot be written to {self._folder} ({said}); "
                f"{self._left(said)}"
            ) from error

    def _left(self, said: str) -> str:
        """Says what there is to continue from when a save has failed, and what for."""
        steps = saved_steps(self._folder.parent)
        # Of those that there were, the last may be the one that failed. What was being
        # written may have made the folder anew.
        before = sorted(self._manager.all_steps())[:-1]
        if not self._folder.exists() or (before and not {*before} & {*steps}):
            return (
                "that folder was removed or renamed during the run: bring it back, and "
                "the same command continues from what it holds"
            )
        left = f"continues from step {max(steps)}" if steps else "begins anew"
        lacked = (need for name, need in _LACKED.items() if name in said)
        return f"the same command {left} once {next(lacked, _ROOM)}"


def _is_saved(objective: Any) -> bool:
    """Whether an objective has a state: Orbax saves no empty arrays."""
    leaves = jax.tree.leaves(objective)
    return bool(leaves) and all(leaf.size for leaf in leaves)
