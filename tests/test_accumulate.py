"""A batch in parts: the loss of the whole batch, the memory of a part."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import tiny

from snclr_jax.preflight.report import Memory


def one_step(config, mesh):
    _, step, state = tiny.build(config, mesh)
    for seed in range(2):
        state, metrics = step(state, tiny.batch(config, mesh, seed=seed))
    return jax.device_get((metrics, state.params, state.batch_stats, state.queue.keys))


@pytest.mark.parametrize("devices", [1, 2])
def test_parts_leave_the_step_as_it_is(mesh_of, devices):
    """Loss, gradients, BatchNorm, dropped paths and queue: as without accumulation."""
    settings = {
        "model__name": "vit_ti",
        "model__depth": 2,
        "model__patch_size": 16,
        "model__drop_path": 0.5,
        "model__bn_scope": 4,
        "augment__local_views": 1,
        "augment__local_size": 16,
    }
    whole = one_step(tiny.config(**settings), mesh_of(devices))
    parts = one_step(tiny.config(accumulate=2, **settings), mesh_of(devices))
    for name, value in whole[0].items():
        np.testing.assert_allclose(
            parts[0][name], value, rtol=1e-4, atol=1e-6, err_msg=name
        )
    for ours, theirs in zip(parts[1:], whole[1:], strict=True):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
            ours,
            theirs,
        )


def test_parts_need_less_memory(mesh_of):
    def temporaries(parts):
        config = tiny.config(accumulate=parts, model__bn_scope=4)
        _, step, state = tiny.build(config, mesh_of(1))
        lowered = step.lower(state, tiny.batch(config, mesh_of(1)))
        return Memory.of(lowered.compile()).temporaries

    assert temporaries(4) < temporaries(1) / 2
