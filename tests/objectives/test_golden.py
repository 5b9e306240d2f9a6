"""The values recorded from the authors' own code are reproduced.

tests/golden/README.md says what each array is. Their losses include 2 tau.
"""

from __future__ import annotations

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snclr_jax.devices.mesh import make_mesh
from snclr_jax.objectives import snclr_plain as losses
from snclr_jax.objectives.snclr import SNCLR
from snclr_jax.objectives.snclr_fused import search_and_loss
from snclr_jax.objectives.soft_neighbors import Attention
from snclr_jax.queue.ring import NeighborQueue, find_neighbors, push
from snclr_jax.queue.settings import QueueSettings
from snclr_jax.queue.sharded import push_targets

GOLDEN = sorted((Path(__file__).parents[1] / "golden").glob("*.npz"))


def normalize(x):
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


def load(path):
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    return json.loads(str(arrays.pop("meta"))), arrays


def global_rows(array):
    """(process, rows, ...) -> (process * rows, ...): processes are banks."""
    return jnp.asarray(array.reshape(-1, *array.shape[2:]))


def queue_before(meta, arrays):
    keys = normalize(global_rows(arrays["bank_before"]))
    rows = keys.shape[0]
    return NeighborQueue(
        keys=keys,
        image_id=jnp.full((rows,), -1, jnp.int32),
        pushed_at=jnp.zeros((rows,), jnp.int32),
        cursor=jnp.asarray(meta["ptr"], jnp.int32),
    )


def authors_settings(meta):
    return SNCLR(
        form="soft_cross_entropy",
        temperature=meta["temperature"],
        attention=Attention(threshold=1 / meta["k"] if meta["threshold"] else None),
        queue=QueueSettings(k=meta["k"], banks=meta["world"], block=2**21),
    )


def plain_direction(queue, prediction, projection, target, settings):
    neighbors = find_neighbors(
        queue, target, settings.queue.k, banks=settings.queue.banks
    )
    weights = losses.positiveness(
        projection, neighbors.keys, threshold=settings.attention.threshold
    )
    value = losses.soft_neighbor_loss(
        prediction,
        target,
        neighbors.keys,
        weights,
        temperature=settings.temperature,
        form=settings.form,
    )
    return value, neighbors


def fused_direction(queue, prediction, projection, target, settings):
    mesh = make_mesh(jax.devices()[:4])
    image_id = jnp.full((prediction.shape[0],), -1, jnp.int32)
    found = search_and_loss(
        queue, prediction, projection, target, image_id, settings=settings, mesh=mesh
    )
    return found.value, found.neighbors._replace(keys=queue.keys[found.neighbors.row])


def both_directions(direction, queue, arrays, settings):
    """Value and gradients of L_12 + L_21 from the recorded, not normalized arrays."""
    names = ("pred1", "pred2", "proj1", "proj2")
    inputs = tuple(global_rows(arrays[name]) for name in names)
    target1, target2 = (
        normalize(global_rows(arrays[name])) for name in ("target1", "target2")
    )

    def total(inputs):
        pred1, pred2, proj1, proj2 = (normalize(x) for x in inputs)
        loss12, neighbors2 = direction(queue, pred1, proj1, target2, settings)
        loss21, neighbors1 = direction(queue, pred2, proj2, target1, settings)
        return loss12 + loss21, (loss12, loss21, neighbors1, neighbors2)

    (_, aux), gradients = jax.jit(jax.value_and_grad(total, has_aux=True))(inputs)
    return aux, gradients


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
@pytest.mark.parametrize("direction", [plain_direction, fused_direction])
def test_losses_gradients_and_neighbors_of_the_authors(path, direction):
    meta, arrays = load(path)
    settings = authors_settings(meta)
    queue = queue_before(meta, arrays)
    (loss12, loss21, neighbors1, neighbors2), gradients = both_directions(
        direction, queue, arrays, settings
    )
    scale = 2 * meta["temperature"]
    np.testing.assert_allclose(scale * loss12, arrays["loss12"].mean(), rtol=1e-5)
    np.testing.assert_allclose(scale * loss21, arrays["loss21"].mean(), rtol=1e-5)
    for neighbors, name in ((neighbors1, "neighbors1"), (neighbors2, "neighbors2")):
        recorded = normalize(global_rows(arrays[name]))
        np.testing.assert_allclose(neighbors.keys, recorded, atol=1e-6)
    names = ("grad_pred1", "grad_pred2", "grad_proj1", "grad_proj2")
    for name, gradient in zip(names, gradients, strict=True):
        recorded = global_rows(arrays[name])
        # They differentiate the mean over each process's own images.
        ours = scale * meta["world"] * gradient
        assert jnp.max(jnp.abs(ours - recorded)) <= 1e-5 * jnp.max(jnp.abs(recorded))


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
@pytest.mark.parametrize("sharded", [False, True], ids=["plain", "sharded"])
def test_queue_after_the_step_of_the_authors(path, sharded):
    meta, arrays = load(path)
    queue = queue_before(meta, arrays)
    target2 = normalize(global_rows(arrays["target2"]))
    image_id = jnp.arange(target2.shape[0], dtype=jnp.int32)
    if sharded:
        mesh = make_mesh(jax.devices()[:4])
        after = push_targets(
            queue, target2, image_id, jnp.int32(7), banks=meta["world"], mesh=mesh
        )
    else:
        after = push(queue, target2, image_id=image_id, step=7, banks=meta["world"])
    recorded = normalize(global_rows(arrays["bank_after"]))
    np.testing.assert_allclose(after.keys, recorded, atol=1e-6)
    assert (arrays["ptr_after"] == int(after.cursor)).all()
