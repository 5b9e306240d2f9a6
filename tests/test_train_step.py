"""One step: pure, traced once, the same on any number of devices."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from snclr_jax import train_step
from snclr_jax.neighbor_queue import NeighborQueue
from snclr_jax.partition import state_shardings
from snclr_jax.train_state import TrainState
from snclr_jax.train_step import (
    attention_query,
    push_views,
    unit,
)
from snclr_jax.views import random_views


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
            second_queue = jax.device_get(state.queue)
    return Steps(step, first_state, second_queue, state, metrics)


@pytest.fixture(scope="module")
def on_eight(mesh_of):
    return take_steps(tiny.config(), mesh_of(8))


def test_the_step_is_compiled_once(on_eight):
    assert on_eight.step._cache_size() == 1


def test_shardings_survive_the_step(on_eight, mesh_of):
    state = on_eight.state
    expected = state_shardings(state, mesh_of(8))
    for leaf, sharding in zip(
        jax.tree.leaves(state), jax.tree.leaves(expected), strict=True
    ):
        assert leaf.sharding.is_equivalent_to(sharding, leaf.ndim)
    assert state.queue.keys.addressable_shards[0].data.shape[0] == 32 // 8


def test_the_old_state_is_donated(on_eight):
    assert on_eight.first_state.queue.keys.is_deleted()
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
    np.testing.assert_array_equal(one.state.queue.image_id, many.state.queue.image_id)


def test_the_first_neighbors_come_from_the_first_push(on_eight):
    first, second, _ = on_eight.metrics
    assert first["neighbors_found"] == 0
    assert (on_eight.second_queue.pushed_at >= 0).sum() == 16
    assert second["neighbors_found"] == 1
    assert second["neighbor_age"] == 1


@pytest.mark.parametrize(
    "fields",
    [
        dict(accumulate=2, augment__global_views=3, augment__local_views=2),
        dict(model__name="vit_ti", model__depth=1, model__drop_path=0.5),
    ],
)
def test_views_that_pass_together_are_passes_of_their_own(mesh_of, monkeypatch, fields):
    """On CPUs they pass one by one; here also as on GPUs."""

    def two_steps():
        config = tiny.config(**fields, optim__name="sgd", optim__learning_rate=1e-3)
        mesh = mesh_of(8)
        _, step, state = tiny.build(config, mesh)
        for seed in range(2):
            batch = tiny.batch(config, mesh, seed=seed, resident=False)
            state, metrics = step(state, batch)
        return jax.device_get((metrics, state))

    expected = two_steps()
    together = lambda views, mesh: [views] if views else []  # noqa: E731
    monkeypatch.setattr(train_step, "passes", together)
    jax.tree.map(
        lambda actual, expected: np.testing.assert_allclose(
            actual, expected, rtol=1e-4, atol=1e-5
        ),
        two_steps(),
        expected,
    )


@pytest.mark.parametrize("which", ["second", "both"])
def test_pushed_views_are_view_major(mesh_of, which):
    config = tiny.config(queue__push=which)
    mesh = mesh_of(2)
    _, _, state = tiny.build(config, mesh)
    batch = tiny.batch(config, mesh)
    dim = config.model.embedding_dim
    target1 = jnp.full((config.batch_size, dim), 1.0)
    target2 = jnp.full((config.batch_size, dim), 2.0)
    queue = push_views(state, (target1, target2), batch, config=config, mesh=mesh)
    pushed = queue.keys[queue.pushed_at >= 0, 0].tolist()
    first = [1.0] * config.batch_size if which == "both" else []
    assert pushed == first + [2.0] * config.batch_size


def test_views_depend_on_seed_step_and_place_only(mesh_of):
    config = tiny.config()

    def views(mesh, step, resident=True):
        batch = tiny.batch(config, mesh, resident=resident)
        return np.stack(random_views(batch, jnp.int32(step), config=config, mesh=mesh))

    whole = views(mesh_of(8), 3)
    np.testing.assert_allclose(whole, views(mesh_of(1), 3), atol=1e-5)
    from_host = views(mesh_of(8), 3, resident=False)
    np.testing.assert_allclose(
        from_host, views(mesh_of(1), 3, resident=False), atol=1e-5
    )
    assert np.abs(whole - views(mesh_of(1), 4)).max() > 0.1
    assert np.abs(whole[0] - whole[1]).max() > 0.1


def test_the_gradient_switch_cuts_the_anchor_but_not_the_matrices(mesh_of):
    y = jnp.ones((2, 16)) / 4

    def gradients(stop):
        config = tiny.config(attention__kind="linear", attention__stop_gradient=stop)
        model, _, state = tiny.build(config, mesh_of(1))

        def total(params, y):
            return jnp.sum(attention_query(model, params, y, config.attention) ** 2)

        return jax.grad(total, (0, 1))(state.params, y)

    for stop in (False, True):
        params, into_y = gradients(stop)
        assert all(jnp.abs(leaf).max() > 0 for leaf in params["attention"].values())
        assert bool(jnp.abs(into_y).max() > 0) is not stop


def test_bfloat16_ends_where_parameters_and_metrics_begin(mesh_of):
    config = tiny.config(model__dtype="bfloat16", queue__dtype="bfloat16")
    _, step, state = tiny.build(config, mesh_of(1))
    after, metrics = jax.eval_shape(step, state, tiny.batch(config, mesh_of(1)))
    assert after.queue.keys.dtype == jnp.bfloat16
    trained = (after.params, after.batch_stats, after.opt_state, after.target_params)
    types = {leaf.dtype for leaf in jax.tree.leaves((trained, metrics))}
    assert types == {jnp.dtype("float32"), jnp.dtype("int32")}


def test_unit_rows():
    rows = unit(jnp.array([[3.0, 4.0], [0.0, 0.0]]))
    np.testing.assert_allclose(rows, [[0.6, 0.8], [0, 0]], rtol=1e-6)
