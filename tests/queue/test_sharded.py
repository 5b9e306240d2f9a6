"""The queue over devices: what is pushed where, and how much a search missed."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from loss_settings import settings_of

from snclr_jax.objectives.snclr_fused import search_and_loss
from snclr_jax.queue import sharded as sharded_queue
from snclr_jax.queue.ring import init_queue, push


@pytest.mark.parametrize("banks, batch", [(1, 24), (2, 24), (1, 40), (2, 48)])
def test_pushes_of_both_views_are_those_of_the_loop(rng, mesh_of, banks, batch):
    queue = init_queue(32, 2)
    expected = {name: np.array(leaf) for name, leaf in vars(queue).items()}
    push_sharded = jax.jit(
        lambda queue, keys, image_id, step: sharded_queue.push_targets(
            queue, keys, image_id, step, banks=banks, mesh=mesh_of(8)
        )
    )
    for step in range(2):
        image_id = rng.integers(0, 99, batch).astype(np.int32)
        for _ in range(2):
            keys = rng.normal(size=(batch, 2)).astype(np.float32)
            queue = push_sharded(queue, keys, image_id, jnp.int32(step))
            oracle.push(expected, keys, image_id, step, banks=banks)
            jax.tree.map(np.testing.assert_array_equal, vars(queue), expected)


@pytest.mark.parametrize(
    ("devices", "queries", "recall"),
    [
        # 12 of 16 rows are filled. Each of 8 images has 6 candidates on 1 device; on 2
        # it has 6 and 4. Every other image loses one candidate on each device.
        (1, 64, 1 - 4 / 48),
        (2, 64, 1 - 8 / 80),
        (2, 3, 1 - 4 / 30),
    ],
)
def test_recall_is_the_share_of_candidates_that_were_found(
    rng, mesh_of, monkeypatch, devices, queries, recall
):
    def miss_the_best_of_every_other(similarity, k, *, recall_target):
        assert recall_target == 0.75
        rows = jnp.arange(similarity.shape[1])
        best = rows == jnp.argmax(similarity, axis=1)[:, None]
        missed = best & (jnp.arange(len(similarity)) % 2 == 0)[:, None]
        found, row = jax.lax.top_k(jnp.where(missed, -jnp.inf, similarity), k)
        return found, jnp.where(found > -jnp.inf, row, rows[-1])

    monkeypatch.setattr(jax.lax, "approx_max_k", miss_the_best_of_every_other)
    monkeypatch.setattr(sharded_queue, "RECALL_QUERIES", queries)
    rows = oracle.unit(rng.normal(size=(20, 4))).astype(np.float32)
    queue = push(init_queue(16, 4), rows[:12], image_id=np.arange(12), step=0)
    images = rows[12:]
    search = functools.partial(
        search_and_loss,
        image_id=np.arange(100, 108, dtype=np.int32),
        settings=settings_of(k=6, search="approx", recall=0.75),
        mesh=mesh_of(devices),
    )
    direction = jax.jit(search)(queue, images, images, images)
    np.testing.assert_allclose(direction.recall, recall, rtol=1e-6)
