"""Every objective in a whole step: resumed, and in micro-batches."""

from __future__ import annotations

import contextlib

import jax
import numpy as np
import pytest
import tiny
from saved import CLOCK, batches
from snclr_jax.configs.objectives import choose_objective

from snclr_jax.objectives import OBJECTIVES
from snclr_jax.run.checkpoint import Checkpoints
from snclr_jax.settings.check import check_config

# Parameters, queues and a predictor with a target network; each takes seconds.
FAST = ("info_nce", "swav")
SETTINGS = {
    "model__dtype": "float64",
    "model__bn_scope": 4,
    # A warm-up starts at a rate of 0.
    "optim__name": "sgd",
    "optim__warmup_epochs": 0.0,
    # Drawing takes longer to compile than all the rest.
    **tiny.NOTHING_DRAWN,
}
every_objective = pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in FAST else pytest.mark.slow)
        for name in OBJECTIVES
    ],
)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def built(name, mesh, **fields):
    """Returns the config, the step and its first state, all in float64."""
    config = tiny.override(choose_objective(tiny.config(), name), **SETTINGS, **fields)
    if "queue" in config.objective:
        config.objective.queue.dtype = "float64"
        # Chosen from the images, by a run, where it is open.
        config.objective.queue.size = config.objective.queue.size or 32
    check_config(config, devices=mesh.size)
    _, step, state = tiny.build(config, mesh)
    return config, step, state


def steps(step, state, config, mesh, numbers):
    for number in numbers:
        batch = tiny.batch(config, mesh, seed=number, resident=False)
        state, _ = step(state, batch)
    return state


@every_objective
def test_a_step_is_resumed_and_accumulated(name, mesh_of, tmp_path):
    mesh = mesh_of(2)
    config, step, state = built(name, mesh)
    objective = OBJECTIVES[name]
    assert ("predictor" in state.params) == objective.predictor
    assert ("predictor" in state.batch_stats) == objective.predictor
    assert bool(state.target_params) == objective.target
    assert bool(state.target_batch_stats) == objective.target

    half = steps(step, state, config, mesh, (0, 1))
    with contextlib.closing(Checkpoints(tmp_path, keep=1)) as checkpoints:
        checkpoints.save(half, batches(), CLOCK, config)
        checkpoints.wait()
        blank = jax.tree.map(lambda leaf: leaf * 0, half)
        resumed, _ = checkpoints.restore(blank, batches())
    after = steps(step, half, config, mesh, (2, 3))
    resumed = steps(step, resumed, config, mesh, (2, 3))
    jax.tree.map(np.testing.assert_array_equal, resumed, after)

    config, step, state = built(name, mesh, accumulate=2)
    accumulated = steps(step, state, config, mesh, range(4))
    trees = jax.device_get((after, accumulated))
    for one, other in zip(*map(jax.tree.leaves, trees), strict=True):
        assert np.abs(other - one).max() <= 1e-9 * np.abs(one).max() + 1e-12
