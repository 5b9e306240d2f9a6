"""The seed of a run reaches all that is drawn: weights, views and dropped paths."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import tiny

from snclr_jax.models import build_model
from snclr_jax.step.forward import Forward
from snclr_jax.step.views import random_views


def test_runs_of_other_seeds_start_from_other_weights(mesh_of):
    states = [tiny.build(tiny.config(seed=seed), mesh_of(1))[2] for seed in (0, 1, 1)]
    first, second, again = (
        jax.tree_util.tree_leaves_with_path(state.params) for state in states
    )
    kernels = 0
    for (path, one), (_, other), (_, same) in zip(first, second, again, strict=True):
        np.testing.assert_array_equal(other, same)
        if jax.tree_util.keystr(path).endswith("['kernel']"):
            assert np.mean(one == other) < 0.01, path
            kernels += 1
    assert kernels >= 6


def test_runs_of_other_seeds_see_other_views(mesh_of):
    mesh = mesh_of(1)
    of_seed = []
    for seed in (0, 1):
        config = tiny.config(seed=seed)
        draw = jax.jit(functools.partial(random_views, config=config, mesh=mesh))
        of_seed.append(draw(tiny.batch(config, mesh), jnp.int32(3)))
    for one, other in zip(*of_seed, strict=True):
        assert (np.abs(one - other).max(axis=(1, 2, 3)) > 0.1).all()


def test_runs_of_other_seeds_drop_other_paths(mesh_of, rng):
    # The first of two blocks drops nothing.
    sizes = dict(model__width=12, model__depth=2, model__patch_size=8)
    fields = dict(model__name="vit_ti", model__drop_path=0.5, **sizes)
    views = (jnp.asarray(rng.normal(size=(16, 32, 32, 3)), jnp.float32),)
    variables, predicted = None, []
    for seed in (0, 1, 0):
        config = tiny.config(seed=seed, **fields)
        model = build_model(config.model)
        variables = variables or model.init(jax.random.key(0), (32, 32, 3))
        forward = Forward(model, config, mesh_of(1), True)
        online, _ = jax.jit(forward.online)(*variables, views, jnp.int32(3))
        predicted.append(np.asarray(online.prediction))
    np.testing.assert_array_equal(predicted[0], predicted[2])
    assert np.abs(predicted[0] - predicted[1]).max() > 1e-3
