"""`Model.layers`: features of several depths, and training none the heavier for it."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.interpreters.partial_eval import dce_jaxpr
from networks import (
    arbitrary_variables,
    random_images,
    small_model,
    with_two_stages,
)
from programs import jaxprs

from snclr_jax.models import Model, Variables

NETWORKS = {
    "resnet18": {},
    "vit_ti": {"depth": 5},
    "vit_ti, scanned": {"depth": 5, "scan": True, "remat": True},
    "patchnet": {},
}


def make(network: str, **fields: Any) -> Model:
    model = small_model(network.split(",")[0], **NETWORKS[network], **fields)
    # Two stages compile in seconds; the first is then the one before the last.
    return with_two_stages(model) if network == "resnet18" else model


def inputs_of_modules(model: Model, *inputs: Any) -> dict[str, np.ndarray]:
    """What each module of the encoder is given while the images are encoded."""
    seen = {}

    def record(next_call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        if args and isinstance(context.module.name, str):
            seen[context.module.name] = args[0]
        return next_call(*args, **kwargs)

    def encode(*inputs: Any) -> dict[str, jax.Array]:
        with nn.intercept_methods(record):
            model.encode(*inputs)
        return seen

    return jax.tree.map(np.asarray, jax.jit(encode)(*inputs))


@pytest.mark.parametrize("network", NETWORKS)
def test_features_are_those_of_encode(network: str) -> None:
    model = make(network)
    inputs = (*arbitrary_variables(model), random_images())
    layers, dense, features = jax.jit(
        lambda *of: (model.layers(*of), model.dense(*of), model.encode(*of))
    )(*inputs)
    np.testing.assert_allclose(layers["features"], features, rtol=1e-6)
    sides = {"resnet18": (8, 8), "patchnet": (2, 2)}.get(network, (2, 2))
    assert dense.shape == (4, *sides, model.feature_dim)
    if not network.startswith("vit"):
        np.testing.assert_allclose(dense.mean((1, 2)), features, rtol=1e-5)
    widths = {name: rows.shape for name, rows in layers.items()}
    assert (
        widths
        == {
            "resnet18": {"stage1": (4, 4), "features": (4, 8)},
            "vit_ti": {"last4": (4, 48), "features": (4, 12)},
            "vit_ti, scanned": {"last4": (4, 48), "features": (4, 12)},
            "patchnet": {"fine": (4, 8), "features": (4, 16)},
        }[network]
    )
    dtypes = {rows.dtype for rows in (dense, *layers.values())}
    assert dtypes == {jnp.dtype("float32")}


def test_resnet_means_the_stage_before_the_last() -> None:
    model = make("resnet18")
    inputs = (*arbitrary_variables(model), random_images())
    pixels = inputs_of_modules(model, *inputs)["layer2_0"]
    layers = jax.jit(model.layers)(*inputs)
    np.testing.assert_allclose(layers["stage1"], pixels.mean((1, 2)), rtol=1e-5)


def test_the_whole_resnet_calls_it_stage3() -> None:
    model = small_model("resnet18")
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), (16, 16, 3)))
    layers = jax.eval_shape(model.layers, *variables, random_images())
    assert {name: rows.shape for name, rows in layers.items()} == {
        "stage3": (4, 16),
        "features": (4, 32),
    }


def test_patchnet_means_the_first_grid() -> None:
    model = make("patchnet")
    inputs = (*arbitrary_variables(model), random_images())
    # Four positions of 8 channels are joined into one.
    joined = inputs_of_modules(model, *inputs)["join"]
    expected = joined.reshape(4, -1, 8).mean(1)
    layers = jax.jit(model.layers)(*inputs)
    np.testing.assert_allclose(layers["fine"], expected, rtol=1e-5)


def stack_blocks(params: Variables, depth: int) -> Variables:
    encoder = dict(params["encoder"])
    blocks = [encoder.pop(f"blocks_{i}") for i in range(depth)]
    encoder["blocks"] = jax.tree.map(lambda *each: jnp.stack(each), *blocks)
    return {"encoder": encoder}


@pytest.mark.parametrize("depth", [2, 5])
def test_last4_are_normalized_class_tokens_with_or_without_scan(depth: int) -> None:
    model, scanned = (
        small_model("vit_ti", depth=depth, scan=scan) for scan in (False, True)
    )
    params, batch_stats = arbitrary_variables(model)
    images = random_images()
    seen = inputs_of_modules(model, params, batch_stats, images)
    after = [seen[f"blocks_{i}"][:, 0] for i in range(1, depth)] + [seen["norm"]]
    norm = params["encoder"]["norm"]
    expected = []
    for x in after[-4:]:
        x = x - x.mean(1, keepdims=True)
        x = x / np.sqrt((x**2).mean(1, keepdims=True) + 1e-6)
        expected.append(x * norm["scale"] + norm["bias"])
    assert np.abs(expected[-1] - expected[-2]).max() > 1e-2
    expected = np.concatenate(expected, axis=1)
    for network, weights in (
        (model, params),
        (scanned, stack_blocks(params, depth)),
    ):
        layers = jax.jit(network.layers)(weights, batch_stats, images)
        np.testing.assert_allclose(layers["last4"], expected, atol=1e-4)


@pytest.mark.parametrize("network", NETWORKS)
def test_training_computes_nothing_that_it_does_not_use(network: str) -> None:
    model = make(network)
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), (16, 16, 3)))
    program = jax.make_jaxpr(model.online)(*variables, random_images()).jaxpr
    useful, _ = dce_jaxpr(program, [True] * len(program.outvars))
    assert operations(useful) == operations(program)


def operations(program: Any) -> list[str]:
    """Returns what a program computes, inner programs included, without its names."""
    return [
        f"{each.primitive} {[str(of.aval) for of in (*each.invars, *each.outvars)]}"
        for jaxpr in jaxprs(program)
        for each in jaxpr.eqns
    ]
