"""Batch normalization over groups of images, and stochastic depth."""

from __future__ import annotations

import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import (
    arbitrary_variables,
    assert_trees_close,
    image_keys,
    random_images,
    small_model,
    with_two_stages,
)

from snclr_jax.devices.mesh import over_batch
from snclr_jax.models import Variables
from snclr_jax.models.heads import MLPHead
from snclr_jax.models.layers import (
    BatchNorm,
    batch_normalize,
    branch_scales,
    he_conv,
    scale_branch,
)


def test_projector_equals_a_numpy_oracle_with_its_running_statistics() -> None:
    model = small_model("patchnet")
    images = random_images(batch=6)
    params, batch_stats = arbitrary_variables(model)
    outputs, new_stats = jax.jit(model.online)(params, batch_stats, images)

    def normalize(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        mean, variance = x.mean(0), x.var(0)
        return (x - mean) / np.sqrt(variance + 1e-5), mean, x.var(0, ddof=1)

    head = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["projector"])
    x = np.asarray(outputs.feature, np.float64) @ head["dense_0"]["kernel"]
    x, mean, variance = normalize(x)
    x = np.maximum(x * head["bn_0"]["scale"] + head["bn_0"]["bias"], 0)
    x, _, _ = normalize(x @ head["dense_1"]["kernel"])

    np.testing.assert_allclose(outputs.projection, x, atol=1e-4)
    for name, moment in (("mean", mean), ("var", variance)):
        before, after = (
            stats["projector"]["bn_0"][name] for stats in (batch_stats, new_stats)
        )
        np.testing.assert_allclose(after, 0.9 * before + 0.1 * moment, rtol=1e-4)
    assert "bn_1" not in params["projector"]  # the last normalization has no affine
    assert "bn_1" not in params["predictor"]  # and the predictor here has none


@pytest.mark.parametrize("shape", [(8, 1, 4), (8, 1, 3, 4)])
def test_variance_survives_a_mean_a_thousand_deviations_away(
    shape: tuple[int, ...],
) -> None:
    """As in the first projector layer of a fresh ViT, where images look alike."""
    x = 1000.0 + np.random.default_rng(0).normal(size=shape).astype(np.float32)
    norm = BatchNorm(True, None, jnp.float32, affine=False)
    actual, _ = norm.init_with_output(jax.random.key(0), x)
    exact = x.astype(np.float64)
    every = tuple(range(len(shape) - 1))
    expected = (exact - exact.mean(every)) / np.sqrt(exact.var(every) + 1e-5)
    np.testing.assert_allclose(actual, expected, atol=1e-3)


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("shape", [(8, 2, 1, 3, 4), (8, 2, 4), (8, 1, 4)])
@pytest.mark.parametrize("bn_scope", [None, 1, 2, 4])
def test_batch_norm_equals_a_loop_over_groups_and_views(
    shape: tuple[int, ...], bn_scope: int | None, devices: int, mesh_of: Any
) -> None:
    """Of two values the running variance moves towards twice the biased one."""
    rng = np.random.default_rng(0)
    x = 3 + rng.normal(size=shape)
    scale, bias, old_mean, old_var = rng.uniform(0.5, 2, size=(4, 4))
    size = bn_scope or 8
    expected = np.empty(shape)
    new_mean, new_var = old_mean, old_var
    for view in range(shape[1]):
        moments = []
        for start in range(0, 8, size):
            group = x[start : start + size, view]
            pixels = group.reshape(-1, 4)
            mean, var = pixels.mean(0), pixels.var(0)
            squares = ((pixels - mean) ** 2).sum(0)
            # One value has no deviation; PyTorch refuses to train on it.
            moments.append((mean, squares / max(len(pixels) - 1, 1)))
            y = (group - mean) / np.sqrt(var + 1e-5)
            expected[start : start + size, view] = scale * y + bias
        mean, var = np.mean(moments, axis=0)
        new_mean, new_var = 0.9 * new_mean + 0.1 * mean, 0.9 * new_var + 0.1 * var

    variables = {
        "params": {"scale": scale, "bias": bias},
        "batch_stats": {"mean": old_mean, "var": old_var},
    }
    variables = jax.tree.map(jnp.float32, variables)
    norm = BatchNorm(True, bn_scope, jnp.float32)
    apply = jax.jit(functools.partial(norm.apply, mutable=["batch_stats"]))
    spread = jax.device_put(jnp.float32(x), over_batch(mesh_of(devices)))
    actual, moved = apply(variables, spread)
    np.testing.assert_allclose(actual, expected, atol=1e-4)
    for name, new in (("mean", new_mean), ("var", new_var)):
        np.testing.assert_allclose(moved["batch_stats"][name], new, rtol=1e-5)


@pytest.mark.parametrize("train", [False, True])
def test_a_variance_of_epsilon_halves_the_square(train: bool) -> None:
    """By its own or the running statistics: y = x / sqrt(1e-5 + 1e-5)."""
    x = np.float32(1e-5**0.5) * np.array([[[1.0]], [[-1.0]]], np.float32)
    stats = {"mean": jnp.zeros(1), "var": jnp.full(1, 1e-5)}
    norm = BatchNorm(train, None, jnp.float32, affine=False)
    y, _ = norm.apply({"batch_stats": stats}, x, mutable=["batch_stats"])
    np.testing.assert_allclose(y.ravel(), [0.5**0.5, -(0.5**0.5)], rtol=1e-5)


@pytest.mark.parametrize("shape", [(6, 2, 2, 3, 4), (6, 2, 4)])
@pytest.mark.parametrize("size", [6, 2])
def test_gradient_of_batch_norm_is_that_of_its_definition(
    shape: tuple[int, ...], size: int
) -> None:
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        x, weight = 3 + rng.normal(size=shape), jnp.asarray(rng.normal(size=shape))
        scale, bias = rng.uniform(0.5, 2, size=(2, 4))

        def by_definition(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
            groups = x.reshape(6 // size, size, *shape[1:])
            pixels = (1, *range(3, groups.ndim - 1))
            mean = groups.mean(pixels, keepdims=True)
            var = groups.var(pixels, keepdims=True)
            y = (groups - mean) / jnp.sqrt(var + 1e-5)
            return jnp.sum(jnp.sin(y.reshape(shape) * scale + bias) * weight)

        def by_layer(*arrays: jax.Array) -> jax.Array:
            y, *_ = batch_normalize(*arrays, size, jnp.float64)
            return jnp.sum(jnp.sin(y) * weight)

        arrays = jnp.asarray(x), jnp.asarray(scale), jnp.asarray(bias)
        expected, actual = (
            jax.grad(each, argnums=(0, 1, 2))(*arrays)
            for each in (by_definition, by_layer)
        )
        assert_trees_close(actual, expected, 1e-10)


@pytest.mark.parametrize("name", ["resnet18", "vit_ti", "patchnet"])
def test_views_in_one_pass_are_passes_of_their_own(name: str) -> None:
    model = small_model(name, drop_path=0.5 * (name != "patchnet"))
    if name == "resnet18":
        model = with_two_stages(model)
    params, batch_stats = arbitrary_variables(model)
    views = random_images(batch=8).reshape(4, 2, 16, 16, 3)
    keys = image_keys(8).reshape(4, 2)
    passes, stats = [], batch_stats
    for view in range(2):
        inputs = params, stats, views[:, view], keys[:, view]
        outputs, stats = jax.jit(model.online)(*inputs)
        passes.append(outputs)
    expected = jax.tree.map(lambda *each: jnp.stack(each, axis=1), *passes)
    outputs, moved = jax.jit(model.online)(params, batch_stats, views, keys)
    assert_trees_close(outputs, expected, 1e-4)
    assert_trees_close(moved, stats, 1e-4)


def test_groups_of_images_are_networks_of_their_own() -> None:
    images = random_images(batch=8)
    whole, grouped = (small_model("patchnet", bn_scope=scope) for scope in (None, 4))
    params, batch_stats = arbitrary_variables(whole)
    online = jax.jit(whole.online)
    halves = [online(params, batch_stats, half) for half in (images[:4], images[4:])]
    expected = jax.tree.map(
        lambda *both: jnp.concatenate(both), *(h[0] for h in halves)
    )
    stats = jax.tree.map(lambda *both: sum(both) / 2, *(h[1] for h in halves))
    outputs, moved = jax.jit(grouped.online)(params, batch_stats, images)
    assert_trees_close(outputs, expected, 1e-4)
    assert_trees_close(moved, stats)
    encode = [
        jax.jit(model.encode)(params, batch_stats, images[:3])
        for model in (whole, grouped)
    ]
    np.testing.assert_array_equal(*encode)


def test_a_scope_of_several_batches_is_refused() -> None:
    model = small_model("patchnet", bn_scope=3)
    params, batch_stats = arbitrary_variables(model)
    with pytest.raises(ValueError, match="model.bn_scope 3 .* batch of 4"):
        model.target(params, batch_stats, random_images(batch=4))


@pytest.mark.parametrize(
    ("bn_scope", "moves"),
    [(None, "all-reduce"), (2, None), (4, "all-reduce"), (16, "all-reduce")],
)
def test_scopes_are_places_in_the_batch_and_not_devices(
    bn_scope: int | None, moves: str | None, mesh_of: Any
) -> None:
    """Devices have two images each: groups of two need no communication."""
    model = small_model("patchnet", bn_scope=bn_scope, projector_last_bn=False)
    params, batch_stats = arbitrary_variables(model)
    images = random_images(batch=16)

    @jax.jit
    def project(images: jax.Array) -> jax.Array:
        return model.target(params, batch_stats, images)[0]

    spread = jax.device_put(images, over_batch(mesh_of(8)))
    assert_trees_close(project(spread), project(images), 1e-4)
    program = project.lower(spread).compile().as_text()
    collectives = re.findall(r" (all-\w+|collective-permute)\(", program)
    assert set(collectives) == ({moves} if moves else set())


# Stochastic depth


def test_depth_drops_more_often_the_deeper_the_block() -> None:
    count, rate = 4000, 0.6
    scales = branch_scales(image_keys(count), rate, blocks=4, branches=2)
    assert scales.shape == (4, 2, count)
    np.testing.assert_array_equal(scales[0], 1)
    for block, dropped in enumerate((0.0, 0.2, 0.4, 0.6)):
        for branch in scales[block]:
            kept = branch[branch != 0]
            np.testing.assert_allclose(kept, 1 / (1 - dropped), rtol=1e-6)
            deviation = np.sqrt(dropped * (1 - dropped) / count)
            assert abs(np.mean(branch == 0) - dropped) <= 5 * deviation
    both_dropped = np.mean((scales[3] == 0).all(axis=0))
    assert both_dropped == pytest.approx(rate**2, abs=0.05)  # independent draws


def test_a_draw_is_a_function_of_the_key_of_the_image() -> None:
    keys = image_keys(6)
    scales = branch_scales(keys, 0.5, blocks=3, branches=2)
    order = np.array([4, 1, 0])
    own = branch_scales(keys[order], 0.5, blocks=3, branches=2)
    np.testing.assert_array_equal(own, scales[..., order])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_scaled_branch_keeps_its_type(dtype: str) -> None:
    y = jnp.ones((2, 3, 4), dtype)
    scaled = scale_branch(y, jnp.array([0.0, 1 / 0.9]))
    assert scaled.dtype == y.dtype
    expected = jnp.asarray([[0.0], [1 / 0.9]], dtype) * jnp.ones((2, 12), dtype)
    np.testing.assert_array_equal(scaled.reshape(2, 12), expected)


def test_layers_start_as_they_were_published() -> None:
    """MoCo v3's heads are uniform, torchvision's convolutions normal by their outputs.

    A ViT's patches are uniform by both sides (Xavier), its class token nearly nothing.
    """
    x = jnp.zeros((1, 4, 4, 32))
    head = MLPHead((64,), 64, False, None, jnp.float32)
    conv = he_conv(64, 3, 1, jnp.float32, "conv")
    vit = small_model("vit_ti", width=48)

    @jax.jit
    def drawn(key: jax.Array) -> tuple[Variables, Variables, Variables]:
        of_head = head.init(key, jnp.zeros((4, 100)), train=True)["params"]
        of_conv = conv.init(key, x)["params"]
        return of_head, of_conv, vit.init(key, (32, 32, 3))[0]["encoder"]

    of_head, of_conv, encoder = drawn(jax.random.key(0))
    uniform = {
        (1 / 100) ** 0.5: of_head["dense_0"]["kernel"],
        (1 / 64) ** 0.5: of_head["dense_1"]["kernel"],
        (6 / (3 * 8 * 8 + 48)) ** 0.5: encoder["patch_embed"]["kernel"],
    }
    for limit, kernel in uniform.items():
        assert 0.99 * limit < np.abs(kernel).max() <= limit
        assert np.std(kernel) == pytest.approx(limit / 3**0.5, rel=0.03)
    kernel, deviation = of_conv["kernel"], (2 / (3 * 3 * 64)) ** 0.5
    assert np.std(kernel) == pytest.approx(deviation, rel=0.03)
    assert np.abs(kernel).max() > 3 * deviation  # not truncated
    assert np.std(encoder["cls_token"]) == pytest.approx(1e-6, rel=0.4)
