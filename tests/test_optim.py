"""Optimizers: the schedule, and who is decayed, scaled or frozen."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from snclr_jax.configs import base

from snclr_jax.optim import learning_rate, make_optimizer

PARAMS = {
    "encoder": {
        "patch_embed": {"kernel": jnp.full((3, 2), 2.0), "bias": jnp.ones(2)},
        "fc": {"kernel": jnp.full((2, 2), 2.0), "bias": jnp.full(2, 2.0)},
        "norm": {"scale": jnp.full((1, 2), 2.0)},
    }
}


def config_of(name, **settings):
    config = base.get_config()
    config.model.freeze_patch_embed = False
    config.optim.name = name
    config.optim.weight_decay = 0.1
    config.optim.update(settings)
    return config


def updates_of(config, gradients, rate=0.5):
    optimizer = make_optimizer(config, optax.constant_schedule(rate))
    updates, _ = optimizer.update(gradients, optimizer.init(PARAMS), PARAMS)
    return updates["encoder"]


ZERO = jax.tree.map(jnp.zeros_like, PARAMS)
ONES = jax.tree.map(jnp.ones_like, PARAMS)


def test_learning_rate_warms_up_and_falls_to_zero():
    config = base.get_config()
    config.batch_size, config.epochs = 512, 10
    config.optim.learning_rate, config.optim.warmup_epochs = 0.3, 2.0
    schedule = learning_rate(config, steps_per_epoch=5)
    assert schedule(0) == 0
    assert schedule(5) == pytest.approx(0.3)
    assert schedule(10) == pytest.approx(0.6)
    assert schedule(30) == pytest.approx(0.3)
    assert schedule(50) == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize("name", ["adamw", "sgd", "lars"])
def test_only_matrices_are_decayed(name):
    updates = updates_of(config_of(name), ZERO)
    assert (updates["fc"]["kernel"] < 0).all()
    for vector in (updates["fc"]["bias"], updates["norm"]["scale"]):
        assert not vector.any()


@pytest.mark.parametrize("name", ["adamw", "sgd", "lars"])
def test_decay_all_decays_vectors_too(name):
    updates = updates_of(config_of(name, decay_all=True), ZERO)
    assert all((leaf < 0).all() for leaf in jax.tree.leaves(updates))


def test_a_frozen_patch_embedding_does_not_move():
    config = config_of("adamw")
    config.model.freeze_patch_embed = True
    updates = updates_of(config, ONES)
    assert not updates["patch_embed"]["kernel"].any()
    assert not updates["patch_embed"]["bias"].any()
    assert updates["fc"]["kernel"].all()


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("eta", [0.02, 2.0])
def test_lars_trust_ratio_and_its_clip(clip, eta):
    rate, decay = 0.5, 0.1
    config = config_of("lars", trust_coefficient=eta, trust_clip=clip)
    updates = updates_of(config, ONES, rate)
    kernel = np.full((2, 2), 2.0)
    gradient = 1.0 + decay * kernel
    local_rate = eta * np.linalg.norm(kernel) / np.linalg.norm(gradient)
    local_rate = min(local_rate, rate) if clip else rate * local_rate
    np.testing.assert_allclose(
        updates["fc"]["kernel"], -local_rate * gradient, rtol=1e-5
    )
    np.testing.assert_allclose(updates["fc"]["bias"], -rate * np.ones(2), rtol=1e-6)


@pytest.mark.parametrize("name", ["adamw", "sgd", "lars", "clipped lars"])
@pytest.mark.parametrize("decay_all", [False, True])
def test_stacked_layers_move_as_layers_of_their_own(name, decay_all, rng):
    """`model.scan` stacks layers: a bias is still a vector, a ratio still a layer's."""
    scale = 10.0 ** np.arange(3)  # layers of very different norms
    layers = [
        {
            "fc": {
                "kernel": jnp.asarray(scale[i] * rng.normal(size=(4, 2))),
                "bias": jnp.asarray(rng.normal(size=2)),
            },
            "norm": {"scale": jnp.asarray(rng.normal(size=4))},
        }
        for i in range(3)
    ]
    unrolled = {"encoder": {f"blocks_{i}": layer for i, layer in enumerate(layers)}}
    gradients = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape)), unrolled)

    def stack(tree):
        layers = tree["encoder"].values()
        return {"encoder": {"blocks": jax.tree.map(lambda *x: jnp.stack(x), *layers)}}

    clip = name.startswith("clipped")
    config = config_of(name.split()[-1], trust_clip=clip, decay_all=decay_all)
    optimizer = make_optimizer(config, optax.constant_schedule(0.5))

    def two_steps(params, gradients):
        state = optimizer.init(params)
        for _ in range(2):
            updates, state = optimizer.update(gradients, state, params)
            params = optax.apply_updates(params, updates)
        return updates

    expected = stack(two_steps(unrolled, gradients))
    actual = two_steps(stack(unrolled), stack(gradients))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7),
        actual,
        expected,
    )


def test_a_warm_up_that_rounds_to_the_whole_run_leaves_a_step():
    config = base.get_config()
    config.epochs, config.optim.warmup_epochs = 1, 0.9
    rate = learning_rate(config, 4)
    assert float(rate(3)) == pytest.approx(config.optim.learning_rate)


def test_unknown_optimizer_is_named():
    with pytest.raises(ValueError, match="optim.name 'adam'"):
        make_optimizer(config_of("adam"), optax.constant_schedule(0.1))
