"""Gradient accumulation: the whole batch's loss, a micro-batch's memory."""

from __future__ import annotations

import jax
import numpy as np
import tiny

from snclr_jax.preflight.report import Memory


def two_steps(config, mesh):
    _, step, state = tiny.build(config, mesh)
    for seed in range(2):
        batch = tiny.batch(config, mesh, seed=seed, resident=False)
        state, metrics = step(state, batch)
    return jax.device_get((metrics, state))


def test_micro_batches_leave_the_step_as_it_is(mesh_of):
    """Loss, gradients, BatchNorm, dropped paths and queue: as without accumulation."""
    settings = {
        "model__name": "vit_ti",
        "model__depth": 2,
        "model__scan": True,
        "model__drop_path": 0.5,
        "model__bn_scope": 4,
        "augment__local_views": 1,
        "augment__local_size": 16,
        # Drawing takes longer to compile than all the rest.
        **tiny.NOTHING_DRAWN,
        # AdamW would turn rounding errors of vanishing gradients into whole steps.
        "optim__name": "sgd",
    }
    whole = two_steps(tiny.config(**settings), mesh_of(2))
    split = two_steps(tiny.config(accumulate=2, **settings), mesh_of(2))
    for name, value in whole[0].items():
        np.testing.assert_allclose(
            split[0][name], value, rtol=1e-4, atol=1e-6, err_msg=name
        )
    # Relative to each array's largest number: small ones are sums of large ones.
    for ours, theirs in zip(*map(jax.tree.leaves, (split[1], whole[1])), strict=True):
        assert np.abs(ours - theirs).max() <= 1e-4 * np.abs(theirs).max() + 1e-6


def test_micro_batches_need_less_memory(mesh_of):
    def temporaries(micro_batches):
        # Many layers and tokens, so that activations are most of it.
        config = tiny.config(
            accumulate=micro_batches,
            batch_size=48,
            model__name="vit_ti",
            model__depth=8,
            model__patch_size=4,
            model__scan=True,
            model__bn_scope=4,
            # What is kept of the networks does not depend on neighbors.
            objective__queue__k=0,
            **tiny.NOTHING_DRAWN,
        )
        _, step, state = tiny.build(config, mesh_of(1))
        lowered = step.lower(state, tiny.batch(config, mesh_of(1), resident=False))
        return Memory.of(lowered.compile()).temporaries

    assert temporaries(4) < temporaries(1) / 2
