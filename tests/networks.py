"""Small networks, and the variables and images to run them on."""

from __future__ import annotations

import dataclasses
import math
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from snclr_jax.models import Model, Variables, build_model


def make_config(**fields: Any) -> SimpleNamespace:
    """A small patchnet unless told otherwise."""
    defaults = dict(
        name="patchnet",
        stem="cifar",
        width=8,
        depth=None,
        patch_size=4,
        vit_heads="timm",
        freeze_patch_embed=False,
        projector_hidden=(16,),
        predictor_hidden=(16,),
        embedding_dim=8,
        projector_last_bn=True,
        predictor_last_bn=False,
        bn_scope=None,
        drop_path=0.0,
        remat=False,
        scan=False,
        dtype="float32",
    )
    return SimpleNamespace(**(defaults | fields))


def small_model(name: str, predictor: bool = True, **fields: Any) -> Model:
    sizes = {
        "resnet18": dict(width=4),
        "vit_ti": dict(width=12, depth=1, patch_size=8),
        "patchnet": dict(width=8, depth=1),
    }
    config = make_config(name=name, **(sizes[name] | fields))
    return build_model(config, predictor=predictor)


def with_two_stages(model: Model) -> Model:
    """A ResNet cut short, for compiling all of ResNet-18 takes ten seconds."""
    encoder = model.network.encoder.clone(stage_sizes=(1, 1))
    network = model.network.clone(encoder=encoder)
    return dataclasses.replace(model, network=network, feature_dim=2 * encoder.width)


def random_images(batch: int = 4, size: int = 16) -> jax.Array:
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.normal(size=(batch, size, size, 3)), jnp.float32)


def arbitrary_variables(model: Model, size: int = 16) -> tuple[Variables, Variables]:
    """Random parameters and statistics; no scale is one, no bias zero."""
    rng = np.random.default_rng(1)
    params, batch_stats = jax.eval_shape(
        lambda: model.init(jax.random.key(0), (size, size, 3))
    )
    fill = lambda leaf: jnp.asarray(rng.uniform(0.1, 0.5, leaf.shape), leaf.dtype)  # noqa: E731
    return jax.tree.map(
        lambda leaf: fill(leaf) * rng.choice([-1, 1], leaf.shape), params
    ), jax.tree.map(fill, batch_stats)


def encoder_parameters(
    name: str, size: int, width: int | None = None, **fields: Any
) -> int:
    model = build_model(make_config(name=name, width=width, **fields), predictor=True)
    params, _ = jax.eval_shape(lambda: model.init(jax.random.key(0), (size, size, 3)))
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params["encoder"]))


def image_keys(count: int) -> jax.Array:
    return jax.random.split(jax.random.key(5), count)


def loss_and_gradient(
    model: Model, params: Variables, batch_stats: Variables, images: jax.Array, *keys
) -> tuple[tuple[jax.Array, jax.Array], Variables]:
    """Returns a loss and the features of the online network, and its gradient."""

    @jax.jit
    def compute(params: Variables, images: jax.Array) -> Any:
        def loss(params: Variables) -> Any:
            outputs, _ = model.online(params, batch_stats, images, *keys)
            return jnp.sum(outputs.prediction**3), outputs.feature

        return jax.value_and_grad(loss, has_aux=True)(params)

    return compute(params, images)


def assert_trees_close(actual: Any, expected: Any, tolerance: float = 1e-5) -> None:
    """Compares leaf by leaf, by the largest number of the whole tree."""
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(
            a, b, rtol=tolerance, atol=tolerance * largest
        ),
        actual,
        expected,
    )
