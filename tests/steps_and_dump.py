"""Takes steps on any mesh and keeps everything they leave behind.

python steps_and_dump.py OUTPUT.npz PROCESS PORT

does so as one process of two, and writes it.
"""

from __future__ import annotations

import sys
from typing import Any

import jax
import numpy as np
import pytest
import tiny
from jax.experimental.multihost_utils import process_allgather
from share_and_dump import shared

from snclr_jax.devices.mesh import make_mesh, place_batch, place_everywhere
from snclr_jax.devices.processes import start
from snclr_jax.objectives.snclr import SNCLR
from snclr_jax.queue.sharded import push_targets
from snclr_jax.settings.objective import build_objective
from snclr_jax.step.state import TrainState, state_shardings
from snclr_jax.step.views import Batch

FILLED = 24  # rows of the queue before the first step, whose 48 then wrap
STEPS = 10
FIELDS = dict(
    model__dtype="float64",
    batch_size=48,
    objective__queue__size=64,
    objective__queue__dtype="float64",
    objective__queue__banks=2,
    objective__queue__push="both",
    objective__attention__kind="linear",
    objective__form="soft_cross_entropy",
    objective__decoupled=True,
    # With neither momentum nor decay, what SGD remembers is the gradient. (Adam would
    # also divide a gradient that is zero but for rounding by its own size.)
    optim__name="sgd",
    optim__momentum=0.0,
    optim__weight_decay=0.0,
    optim__learning_rate=1.0,
    # But for the crop: the rest takes as long to compile as the whole step.
    **tiny.NOTHING_DRAWN,
)


def metrics_and_neighbors(snclr, aux, seen, labels, now, metrics=SNCLR.metrics):
    """Returns the metrics of a step, and the neighbors that they describe."""
    neighbors = [direction.neighbors for direction in aux]
    return metrics(snclr, aux, seen, labels, now) | {"neighbors": neighbors}


def place_own(rows: Any, mesh) -> jax.Array:
    """Returns the global array; of `rows`, process p keeps [p b/P, (p + 1) b/P)."""
    own = np.split(np.asarray(rows), jax.process_count())[jax.process_index()]
    return place_batch(own, mesh)


def place_tiny_batch(config, mesh, *, seed: int) -> Batch:
    """Returns `tiny.batch` over the devices of all processes."""
    whole = tiny.batch(config, make_mesh(jax.local_devices()), seed=seed)
    return Batch(
        image_id=place_own(whole.image_id, mesh),
        resident=place_everywhere(np.asarray(whole.resident), mesh),
        labels=place_everywhere(np.asarray(whole.labels), mesh),
    )


def fill(state: TrainState, config, mesh) -> TrainState:
    """Pushes random unit rows, so that the first step already finds neighbors."""
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(FILLED, config.model.embedding_dim))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    image_id = rng.permutation(tiny.IMAGES)[:FILLED].astype(np.int32)

    @jax.jit
    def push(queue, rows, image_id, step):
        banks = config.objective.queue.banks
        return push_targets(queue, rows, image_id, step, banks=banks, mesh=mesh)

    rows = place_own(rows.astype(config.objective.queue.dtype), mesh)
    queue = push(state.objective, rows, place_own(image_id, mesh), state.step)
    # Collectives that another program starts meanwhile would meet those of this one.
    return jax.block_until_ready(state.replace(objective=queue))


def moved(state: TrainState, config, mesh) -> list[str]:
    """Returns the leaves that are not where `state_shardings` says."""
    expected = jax.tree.leaves(state_shardings(state, build_objective(config), mesh))
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return [
        jax.tree_util.keystr(path)
        for (path, leaf), sharding in zip(leaves, expected, strict=True)
        if not leaf.sharding.is_equivalent_to(sharding, leaf.ndim)
    ]


def dumped(mesh) -> dict[str, Any]:
    """Returns the state and metrics after every step, by name, and `shared`."""
    config = tiny.config(**FIELDS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SNCLR, "metrics", metrics_and_neighbors)
        _, step, state = tiny.build(config, mesh)
        state = fill(state, config, mesh)
        steps = []
        for number in range(STEPS):
            state, metrics = step(state, place_tiny_batch(config, mesh, seed=number))
            # Also waits for the step: processes on CPUs hang where one runs ahead.
            steps.append(
                process_allgather({"state": state, "metrics": metrics}, tiled=True)
            )
    leaves = jax.tree_util.tree_leaves_with_path({"step": steps})
    arrays = {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in leaves
    }
    owned_rows = state.objective.keys.addressable_shards[0].data.shape[0]
    return arrays | {
        **shared(mesh),
        "moved": np.array(moved(state, config, mesh), str),
        "owned_rows": owned_rows,
    }


if __name__ == "__main__":
    output, process, port = sys.argv[1:]
    start(coordinator=f"127.0.0.1:{port}", processes=2, process=int(process))
    with jax.enable_x64(True):
        np.savez(output, **dumped(make_mesh()))
