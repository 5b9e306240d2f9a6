"""Optimizers: the schedule, and who is decayed, scaled or frozen."""

from __future__ import annotations

import math

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from snclr_jax.configs import base

from snclr_jax.step.optim import ema_momentum, learning_rate, make_optimizer


def config_of(name, **settings):
    config = base.get_config()
    config.model.freeze_patch_embed = False
    config.optim.name = name
    config.optim.weight_decay = 0.1
    config.optim.update(settings)
    return config


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


@pytest.mark.parametrize("final", [1.0, 0.8, 0.6])
def test_target_momentum_goes_from_its_first_to_its_final_value(final):
    config = base.get_config()
    config.ema.momentum, config.epochs = 0.6, 20
    if final != 1.0:  # the default
        config.ema.final_momentum = final
    schedule = ema_momentum(config, steps_per_epoch=5)
    values = [float(schedule(step)) for step in range(120)]
    half = (final - 0.6) / 2
    assert values[0] == pytest.approx(0.6)
    one_step = math.cos(math.pi / 100)
    assert values[1] == pytest.approx(final - half * (1 + one_step), abs=1e-6)
    assert values[25] == pytest.approx(final - half * (1 + 0.5**0.5))
    assert values[50] == pytest.approx(final - half)
    assert values[99] == pytest.approx(final - half * (1 - one_step))
    assert values[100:] == [pytest.approx(final, abs=1e-7)] * 20


RATES = (0.1, 0.3, 0.2)


def by_hand(config, params, gradients):
    """Three steps of an optimizer in numpy, leaf by leaf; yields the parameters.

    SGD and LARS:  m <- momentum m + ratio (g + decay p),  p <- p - rate m
                   ratio = eta |p| / |g + decay p| of a matrix, clipped: at the rate
    AdamW:         p <- p - rate (m' / (sqrt(v') + 1e-8) + decay p), m' and v' unbiased
    """
    settings = config.optim
    first, second = [0.0] * len(params), [0.0] * len(params)
    for step, rate in enumerate(RATES):
        for i, (name, gradient) in enumerate(zip(params, gradients[step], strict=True)):
            param, is_matrix = params[name], name.endswith("kernel")
            if config.model.freeze_patch_embed and "patch_embed" in name:
                continue
            decayed = is_matrix or settings.decay_all
            decay = settings.weight_decay * param if decayed else 0.0
            if settings.name == "adamw":
                b1, b2 = settings.beta1, settings.beta2
                first[i] = b1 * first[i] + (1 - b1) * gradient
                second[i] = b2 * second[i] + (1 - b2) * gradient**2
                m = first[i] / (1 - b1 ** (step + 1))
                v = second[i] / (1 - b2 ** (step + 1))
                params[name] = param - rate * (m / (np.sqrt(v) + 1e-8) + decay)
                continue
            update = gradient + decay
            if settings.name == "lars" and is_matrix:
                ratio = np.linalg.norm(param) / np.linalg.norm(update)
                ratio *= settings.trust_coefficient
                if settings.trust_clip:
                    ratio = min(ratio / rate, 1)
                # A matrix of zeros could never move.
                update = update * (ratio if param.any() else 1)
            first[i] = settings.momentum * first[i] + update
            params[name] = param - rate * first[i]
        yield dict(params)


@pytest.mark.parametrize("others", [False, True])
@pytest.mark.parametrize(
    "settings",
    [
        dict(name="sgd", momentum=0.8),
        dict(name="adamw", beta1=0.7, beta2=0.95),
        dict(name="lars", momentum=0.8, trust_coefficient=0.05),
        # The clip binds for one kernel and not for the other.
        dict(name="lars", momentum=0.8, trust_coefficient=0.05, trust_clip=True),
    ],
    ids=["sgd", "adamw", "lars", "clipped lars"],
)
def test_three_steps_at_a_changing_rate(settings, others, rng):
    """`others`: vectors are decayed too, and the patch embedding is frozen."""
    shapes = {
        "encoder/patch_embed/kernel": (3, 2),
        "encoder/patch_embed/bias": (2,),
        "encoder/fc/kernel": (2, 4),
        "encoder/norm/scale": (1, 4),
        "projector/first/kernel": (4, 2),
        "projector/last/kernel": (2, 2),
    }
    params = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    params["projector/first/kernel"] *= 30
    params["projector/last/kernel"] *= 0
    gradients = [[rng.normal(size=shape) for shape in shapes.values()] for _ in RATES]

    def tree(leaves):
        flat = dict(zip(shapes, leaves, strict=True))
        nested = {tuple(name.split("/")): leaf for name, leaf in flat.items()}
        return flax.traverse_util.unflatten_dict(nested)

    config = config_of(**settings, decay_all=others)
    config.model.freeze_patch_embed = others
    rate = lambda step: jnp.asarray(RATES)[step]  # noqa: E731
    optimizer = make_optimizer(config, rate)
    found = tree([jnp.asarray(leaf) for leaf in params.values()])
    state = optimizer.init(found)
    expected = by_hand(config, params, gradients)
    for gradient, leaves in zip(gradients, expected, strict=True):
        updates, state = optimizer.update(tree(gradient), state, found)
        found = optax.apply_updates(found, updates)
        jax.tree.map(
            lambda ours, theirs: np.testing.assert_allclose(
                ours, theirs, rtol=1e-5, atol=1e-6
            ),
            found,
            tree(leaves.values()),
        )


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
