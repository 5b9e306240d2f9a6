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
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec
from tqdm import tqdm

from snclr_jax.run.checkpoint_reader import (
    Damaged,
    causes,
    check_digests,
    check_same_arrays,
    damage,
    differences,
    located,
    read_json,
    stored_arrays,
)
from snclr_jax.run.digest import by_path, digest_of_json, digests
from snclr_jax.run.files import CHECKPOINTS
from snclr_jax.run.workdir import as_json
from snclr_jax.step.state import TrainState

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

    def __init__(self, workdir: epath.PathLike, *, keep: int) -> None:
        self._folder = located(workdir) / CHECKPOINTS
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
        arrays = _without_probe(state)
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
            self._manager.save(step, args=ocp.args.Composite(**items))

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
                restored, items = self._read(step, folder, state)
            except Damaged as error:
                damaged.append((folder, str(error)))  # the error holds what was read
                continue
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

    def _read(
        self, step: int, folder: epath.Path, state: TrainState
    ) -> tuple[TrainState, dict[str, Any]]:
        """Returns a checkpoint's state, and what it holds beside it."""
        with _together(folder):
            stored = stored_arrays(folder)
            saved = read_json(folder, "digest")
            has_probe = any(name.startswith("probe/") for name in saved)
            probe = stored_arrays(folder, "probe") if has_probe else None
        expected = _without_probe(state)
        if "objective" in stored or any(n.startswith("objective/") for n in saved):
            expected["objective"] = _as_stored(stored.get("objective"), state.objective)
        else:
            del expected["objective"]
        # Not damage: another network. It stays where it is.
        check_same_arrays(str(folder), stored, expected)
        with _together(folder):
            arrays = {"state": _read_arrays(folder, "state", expected)}
            if has_probe and not differences(probe, state.probe):
                arrays["probe"] = _read_arrays(folder, "probe", state.probe)
            texts = {name: read_json(folder, name) for name in ("data", "clock")}
            check_digests(folder, {name: digest_of_json(texts[name]) for name in texts})
        # Computed by all processes, and so the same on all of them.
        check_digests(folder, digests(arrays["state"]))
        restored = state.replace(**arrays["state"])
        if "probe" in arrays:
            check_digests(folder, digests({"probe": arrays["probe"]}))
            restored = restored.replace(probe=arrays["probe"])
        if expected.get("objective") is not state.objective:
            restored = restored.replace(objective=state.objective)
        return restored, texts

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
                target.with_name(f"{name}.txt").write_text(error + "\n")
                folder.replace(target)
                tqdm.write(f"{error}; it was moved to {target}")
        multihost_utils.sync_global_devices("moved damaged checkpoints away")
        self._manager.reload()

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
            *_, first = causes(error)
            raise OSError(
                f"a checkpoint cannot be written to {self._folder}; those before it "
                "are whole, and the same command continues from them once there is "
                "room and leave to write. Orbax says: " + str(first).partition("\n")[0]
            ) from error


def _read_arrays(folder: epath.Path, item: str, like: Any) -> Any:
    """Reads arrays without waiting for other processes, which may fail."""
    with damage(folder):
        return ocp.StandardCheckpointHandler().restore(
            folder / item, args=ocp.args.StandardRestore(_abstract(like))
        )


@contextlib.contextmanager
def _together(folder: epath.Path) -> Iterator[None]:
    """Raises Damaged or OSError on every process where one raises it."""
    failed = None
    try:
        yield
    except (Damaged, OSError) as error:
        failed = error
    if jax.process_count() > 1:
        here = np.array([isinstance(failed, kind) for kind in (OSError, Damaged)])
        for kind, on in zip(
            (OSError, Damaged), multihost_utils.process_allgather(here).T, strict=True
        ):
            if failed is None and on.any():
                failed = kind(f"{folder} cannot be read by process {on.argmax()}")
    if failed is not None:
        raise failed


def _is_saved(objective: Any) -> bool:
    """Whether an objective has a state: Orbax saves no empty arrays."""
    leaves = jax.tree.leaves(objective)
    return bool(leaves) and all(leaf.size for leaf in leaves)


def _as_stored(stored: Any, objective: Any) -> Any:
    """Returns the objective's state, or what to read where a checkpoint has other rows.

    Those are of another number or type, and of the same shape but for that.
    """
    saved, expected = by_path(stored), by_path(objective)
    row, wanted = (
        {name: (leaf.shape[1:], len(leaf.shape)) for name, leaf in arrays.items()}
        for arrays in (saved, expected)
    )
    if row != wanted or not differences(stored, objective):
        return objective
    read = [
        jax.ShapeDtypeStruct(
            saved[name].shape,
            saved[name].dtype,
            sharding=NamedSharding(leaf.sharding.mesh, PartitionSpec()),
        )
        for name, leaf in expected.items()
    ]
    return jax.tree.unflatten(jax.tree.structure(objective), read)


def _without_probe(state: TrainState) -> dict[str, Any]:
    """The probe is an item of its own, so that every run's state looks alike."""
    return {name: value for name, value in vars(state).items() if name != "probe"}


def _abstract(tree: Any) -> Any:
    return jax.tree.map(ocp.utils.to_shape_dtype_struct, tree)
