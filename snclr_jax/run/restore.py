"""A state out of a checkpoint: what the step reads, every bit of it, or nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec

from snclr_jax.run.checkpoint_reader import (
    Damaged,
    check_digests,
    check_same_arrays,
    damage,
    differences,
    read_json,
    stored_arrays,
)
from snclr_jax.run.digest import by_path, digest_of_json, digests
from snclr_jax.step.state import TrainState


def read_state(
    folder: epath.Path, state: TrainState
) -> tuple[TrainState, dict[str, Any]]:
    """Returns a checkpoint's state, and what it holds beside it.

    Args:
      folder: of a whole checkpoint.
      state: of the same shapes, types and shardings, to restore into.

    Raises:
      Damaged: on every process, where it has other bits than were saved.
      ValueError: where it does not fit the state.
      OSError: on every process, where it may be whole and cannot be read now.
    """
    with _together(folder):
        stored = stored_arrays(folder)
        saved = read_json(folder, "digest")
        has_probe = any(name.startswith("probe/") for name in saved)
        probe = stored_arrays(folder, "probe") if has_probe else None
    expected = without_probe(state)
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


def _read_arrays(folder: epath.Path, item: str, like: Any) -> Any:
    """Reads arrays without waiting for other processes, which may fail."""
    with damage(folder):
        shapes = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        return ocp.StandardCheckpointHandler().restore(
            folder / item, args=ocp.args.StandardRestore(shapes)
        )


@contextlib.contextmanager
def _together(folder: epath.Path) -> Generator[None]:
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


def without_probe(state: TrainState) -> dict[str, Any]:
    """The probe is an item of its own, so that every run's state looks alike."""
    return {name: value for name, value in vars(state).items() if name != "probe"}
