"""One step: pure, traced once, the same on any number of devices."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from snclr_jax.models import build_model
from snclr_jax.objectives.snclr import SNCLR
from snclr_jax.queue.ring import NeighborQueue
from snclr_jax.step.objective import Objective, unit
from snclr_jax.step.state import TrainState, state_shardings, train_state_shapes
from snclr_jax.step.train_step import make_train_step
from snclr_jax.step.views import random_views


class Steps(NamedTuple):
    """Three steps of a run: the compiled step, its states and metrics."""

    step: Callable
    first_state: TrainState
    second_queue: NeighborQueue
    state: TrainState
    metrics: list[dict]


def take_steps(config, mesh):
    _, step, state = tiny.build(config, mesh)
    first_state, metrics = state, []
    for number in range(3):
        state, latest = step(state, tiny.batch(config, mesh, seed=number))
        metrics.append(jax.device_get(latest))
        if number == 0:
            second_queue = jax.device_get(state.objective)
    return Steps(step, first_state, second_queue, state, metrics)


@pytest.fixture(scope="module")
def on_eight(mesh_of):
    return take_steps(tiny.config(), mesh_of(8))


def test_an_objective_sees_the_seed_of_the_run(mesh_of):
    seen = []

    class Recording(Objective):
        def loss(self, params, state, seen_views, now):
            seen.append(now.seed)
            return jnp.sum(seen_views.projection), ()

    config, mesh, objective = tiny.config(seed=7), mesh_of(1), Recording()
    parts = (build_model(config.model), objective, optax.identity(), config, mesh)
    step = make_train_step(*parts, steps_per_epoch=1)
    jax.eval_shape(step, train_state_shapes(*parts), tiny.batch(config, mesh))
    assert seen == [7]


def test_the_step_is_compiled_once(on_eight):
    assert on_eight.step._cache_size() == 1


def test_shardings_survive_the_step(on_eight, mesh_of):
    state = on_eight.state
    expected = state_shardings(state, SNCLR(), mesh_of(8))
    for leaf, sharding in zip(
        jax.tree.leaves(state), jax.tree.leaves(expected), strict=True
    ):
        assert leaf.sharding.is_equivalent_to(sharding, leaf.ndim)
    assert state.objective.keys.addressable_shards[0].data.shape[0] == 32 // 8


def test_the_old_state_is_donated(on_eight):
    assert on_eight.first_state.objective.keys.is_deleted()
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(on_eight.first_state))


def test_one_and_eight_devices_agree(on_eight, mesh_of):
    one = take_steps(tiny.config(), mesh_of(1))
    many = on_eight
    # Rounding differences grow from step to step; the first step is held to 1e-5.
    for number, tolerance in enumerate((1e-5, 1e-4, 1e-3)):
        assert many.metrics[number].keys() == one.metrics[number].keys()
        for name, value in one.metrics[number].items():
            np.testing.assert_allclose(
                many.metrics[number][name],
                value,
                rtol=tolerance,
                atol=1e-6,
                err_msg=f"{name} in step {number}",
            )
    np.testing.assert_allclose(one.second_queue.keys, many.second_queue.keys, atol=1e-5)
    np.testing.assert_array_equal(
        one.state.objective.image_id, many.state.objective.image_id
    )


def test_the_first_neighbors_come_from_the_first_push(on_eight):
    first, second, _ = on_eight.metrics
    assert first["neighbors_found"] == 0
    assert (on_eight.second_queue.pushed_at >= 0).sum() == 16
    assert second["neighbors_found"] == 1
    assert second["neighbor_age"] == 1


def test_views_depend_on_seed_step_and_place_only(mesh_of):
    config = tiny.config()

    def views(devices, *steps, resident=True):
        mesh = mesh_of(devices)
        batch = tiny.batch(config, mesh, resident=resident)
        draw = jax.jit(functools.partial(random_views, config=config, mesh=mesh))
        return [np.stack(draw(batch, jnp.int32(step))) for step in steps]

    (whole,), (same, other) = views(8, 3), views(1, 3, 4)
    np.testing.assert_allclose(whole, same, atol=1e-5)
    (from_host,), (same,) = (views(each, 3, resident=False) for each in (8, 1))
    np.testing.assert_allclose(from_host, same, atol=1e-5)
    assert np.abs(whole - other).max() > 0.1
    assert np.abs(whole[0] - whole[1]).max() > 0.1


def test_bfloat16_ends_where_parameters_and_metrics_begin(mesh_of):
    config = tiny.config(model__dtype="bfloat16", objective__queue__dtype="bfloat16")
    _, step, state = tiny.build(config, mesh_of(1))
    after, metrics = jax.eval_shape(step, state, tiny.batch(config, mesh_of(1)))
    assert after.objective.keys.dtype == jnp.bfloat16
    trained = (after.params, after.batch_stats, after.opt_state, after.target_params)
    types = {leaf.dtype for leaf in jax.tree.leaves((trained, metrics))}
    assert types == {jnp.dtype("float32"), jnp.dtype("int32")}


def test_unit_rows():
    rows = unit(jnp.array([[3.0, 4.0], [0.0, 0.0]]))
    np.testing.assert_allclose(rows, [[0.6, 0.8], [0, 0]], rtol=1e-6)
