"""Runs and encoders on disk that no training made, and queues that none filled."""

from __future__ import annotations

import contextlib

import jax
import numpy as np
import tiny
from jax.sharding import NamedSharding
from oracle import unit

from snclr_jax.data.pipeline import train_batches
from snclr_jax.data.split import Split
from snclr_jax.encoder.stored import assemble_encoder, expected_tensors
from snclr_jax.export.run import FORMATS
from snclr_jax.queue.ring import NeighborQueue
from snclr_jax.queue.sharded import QUEUE_SPEC
from snclr_jax.run.checkpoint import Checkpoints

IMAGES = 40
CLOCK = {"train_seconds": 1.0, "images": 4}
SMALL = {
    "patchnet": dict(),
    "resnet18": dict(model__width=4, model__depth=None),
    "vit_ti": dict(model__width=12, model__depth=2, model__patch_size=8),
}


def batches():
    split = Split(lambda indices: np.zeros((len(indices), 4, 4, 3), np.uint8), size=20)
    return train_batches(
        split, order="random", batch_size=4, seed=0, num_workers=0, views=None
    )


def save_run(workdir, mesh, **fields):
    """Saves the state of step 0 with a target of its own; returns (state, config)."""
    config = tiny.config(**fields)
    _, _, state = tiny.build(config, mesh)
    state = state.replace(
        target_params=jax.tree.map(lambda leaf: leaf + 1, state.target_params),
        target_batch_stats=jax.tree.map(
            lambda leaf: leaf + 2, state.target_batch_stats
        ),
    )
    with contextlib.closing(Checkpoints(workdir, keep=1)) as checkpoints:
        checkpoints.save(state, batches(), CLOCK, config)
    return state, config


def random_encoder(name, mesh, **fields):
    """Returns (encoder, config): no scale is one, no bias or mean zero."""
    config = tiny.config(model__name=name, **SMALL.get(name, {}) | fields)
    rng = np.random.default_rng(3)
    tensors = {}
    for ours, leaf in expected_tensors(config).items():
        values = rng.normal(size=leaf.shape) / max(np.prod(leaf.shape[:-1]), 1) ** 0.5
        if ours.endswith(("/scale", "/var")):
            values = rng.uniform(0.5, 1.5, leaf.shape)
        tensors[ours] = values.astype(np.float32)
    encoder = assemble_encoder(
        tensors, config, network="target", step=7, source="a test", mesh=mesh
    )
    return encoder, config


def save_random_encoder(path, name, mesh, **fields):
    """Writes such an encoder in the package's own format; returns the encoder."""
    encoder, _ = random_encoder(name, mesh, **fields)
    FORMATS["safetensors"].save(path, encoder)
    return encoder


def filled_queue(rng, config, mesh, *, step):
    """A queue of random rows of the training images, four of them not yet filled."""
    size, dim = config.objective.queue.size, config.model.embedding_dim
    pushed_at = rng.integers(0, step, size).astype(np.int32)
    pushed_at[[1, 9, 17, 30]] = -1
    queue = NeighborQueue(
        keys=unit(rng.normal(size=(size, dim))).astype(np.float32),
        image_id=rng.integers(0, IMAGES, size).astype(np.int32),
        pushed_at=pushed_at,
        cursor=np.int32(0),
    )
    shardings = jax.tree.map(lambda spec: NamedSharding(mesh, spec), QUEUE_SPEC)
    return jax.device_put(queue, shardings)
