"""Checkpoints: everything that the step reads, the position in the data, the config.

Orbax writes them in the background and renames them into place when whole, so a run
killed at any moment leaves the previous checkpoint intact.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import grain
import jax
import ml_collections
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils
from tqdm import tqdm

from snclr_jax.digest import by_path, digests
from snclr_jax.neighbor_queue import NeighborQueue
from snclr_jax.partition import placed_shapes
from snclr_jax.read_checkpoint import (
    FOLDER,
    Damaged,
    check_digests,
    check_same_arrays,
    damage,
    located,
    stored_arrays,
)
from snclr_jax.train_state import TrainState
from snclr_jax.workdir import as_json

DAMAGED = "damaged_checkpoints"  # where unreadable ones are moved to
# How long processes wait for one that cannot save, before all of them end. A save that
# takes longer fails.
SAVE_SECONDS = 300


class Checkpoints:
    """The checkpoints of one workdir.

    Args:
      workdir: the run's folder; checkpoints lie in `workdir/checkpoints/<step>`.
      keep: how many of the newest stay.
    """

    def __init__(self, workdir: epath.PathLike, *, keep: int = 1) -> None:
        self._folder = located(workdir) / FOLDER
        self._manager = ocp.CheckpointManager(
            self._folder,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=keep,
                create=True,
                enable_async_checkpointing=True,
                async_options=ocp.AsyncOptions(timeout_secs=SAVE_SECONDS),
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
        with self._saving():
            self._manager.save(step, args=ocp.args.Composite(**items))

    def restore(
        self, state: TrainState, batches: grain.DatasetIterator
    ) -> tuple[TrainState, dict[str, float]]:
        """Returns the newest whole checkpoint's state and clock, and sets `batches`.

        A checkpoint that cannot be read, or has other bits than were saved, is moved to
        `workdir/damaged_checkpoints`, and the one before it is taken. A run may be
        continued with an online probe that it did not have: the probe then stays the
        one of `state`; as does a queue whose size or type changed, see `own_workdir`.

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
            expected = _without_probe(state)
            expected["queue"] = _as_stored(stored.get("queue"), state.queue)
            # Not damage: another network. It stays where it is.
            check_same_arrays(str(folder), stored, expected)
            try:
                found, clock = self._restore(step, state.replace(**expected), batches)
            except Damaged as error:
                damaged = self._move_away(folder, error)
                continue
            if expected["queue"] is not state.queue:
                found = found.replace(queue=state.queue)
            return found, clock
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

    def _move_away(self, folder: epath.Path, error: Damaged) -> str:
        """Moves a damaged checkpoint out of the run's way, and says so."""
        target = self._folder.with_name(DAMAGED) / f"{folder.name}-{time.time_ns()}"
        if jax.process_index() == 0:
            target.parent.mkdir(exist_ok=True)
            # On an object store a folder exists once something is in it.
            target.with_name(f"{target.name}.txt").write_text(f"{error}\n")
            folder.replace(target)
            tqdm.write(f"{error}; it was moved to {target}")
        multihost_utils.sync_global_devices("moved a damaged checkpoint away")
        self._manager.reload()
        return f"{error}; it was moved to {target}, and no other checkpoint is left"

    def wait(self) -> None:
        """Returns when what was saved is on disk.

        Raises:
          OSError: where it cannot be written; what was saved before is whole.
        """
        with self._saving():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits for a running save, then lets go of the folder."""
        with self._saving():
            self._manager.close()

    @contextlib.contextmanager
    def _saving(self) -> Iterator[None]:
        """Says what an error of a save means, this one or the one before it."""
        try:
            yield
        except (OSError, ValueError, RuntimeError) as error:
            # The others follow from the first one, such as waiting in vain.
            first: BaseException = error
            while before := first.__cause__ or first.__context__:
                first = before
            raise OSError(
                f"a checkpoint cannot be written to {self._folder}; those before it "
                "are whole, and the same command continues from them once there is "
                "room and leave to write. Orbax says: " + str(first).partition("\n")[0]
            ) from error


def _as_stored(stored: Any, queue: NeighborQueue) -> NeighborQueue:
    """Returns the queue, or what to read where a checkpoint has one of another size."""
    found = by_path(stored)
    row, expected = (
        {name: (leaf.shape[1:], len(leaf.shape)) for name, leaf in arrays.items()}
        for arrays in (found, by_path(queue))
    )
    if row != expected:
        return queue
    read = NeighborQueue(**placed_shapes(found, queue.cursor.sharding))
    same = jax.tree.map(
        lambda a, b: (a.shape, a.dtype) == (b.shape, b.dtype), read, queue
    )
    return queue if all(jax.tree.leaves(same)) else read


def _without_probe(state: TrainState) -> dict[str, Any]:
    """The probe is an item of its own, so that every run's state looks alike."""
    return {name: value for name, value in vars(state).items() if name != "probe"}


def _abstract(tree: Any) -> Any:
    return jax.tree.map(ocp.utils.to_shape_dtype_struct, tree)
