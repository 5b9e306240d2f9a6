"""Vision transformers: published sizes, positions, one loop over layers."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import (
    arbitrary_variables,
    assert_trees_close,
    encoder_parameters,
    image_keys,
    loss_and_gradient,
    make_config,
    random_images,
    small_model,
)

from snclr_jax.devices.mesh import over_batch
from snclr_jax.models import Variables, build_model
from snclr_jax.models.layers import split_patches
from snclr_jax.models.vit import TransformerBlock, sincos_positions


@pytest.mark.parametrize(
    ("name", "published", "width"),
    [
        # DeiT's published counts (vit_l: timm's) at 224 pixels and 1000 classes; less
        # the classifier, width * 1000 + 1000, and the learned positions,
        # (14 * 14 + 1) * width
        ("vit_ti", 5_717_416, 192),
        ("vit_s", 22_050_664, 384),
        ("vit_b", 86_567_656, 768),
        ("vit_l", 304_326_632, 1024),
    ],
)
@pytest.mark.parametrize("scan", [False, True])
def test_vits_have_the_published_number_of_parameters(
    name: str, published: int, width: int, scan: bool
) -> None:
    expected = published - (width * 1000 + 1000) - (14 * 14 + 1) * width
    assert encoder_parameters(name, 224, patch_size=16, scan=scan) == expected


def test_sincos_positions_equal_a_loop() -> None:
    rows, columns, width = 3, 5, 12
    expected = np.zeros((rows * columns, width))
    for r in range(rows):
        for c in range(columns):
            for i in range(width // 4):
                omega = 1 / 10000 ** (i / (width / 4))
                expected[r * columns + c, i] = math.sin(r * omega)
                expected[r * columns + c, 3 + i] = math.cos(r * omega)
                expected[r * columns + c, 6 + i] = math.sin(c * omega)
                expected[r * columns + c, 9 + i] = math.cos(c * omega)
    np.testing.assert_allclose(
        sincos_positions(rows, columns, width), expected, atol=1e-6
    )


def test_patches_keep_rows_columns_and_channels_in_order() -> None:
    images = np.arange(2 * 4 * 6 * 3).reshape(2, 4, 6, 3)
    patches = split_patches(jnp.asarray(images), 2)
    assert patches.shape == (2, 2, 3, 12)
    for r in range(2):
        for c in range(3):
            patch = images[1, 2 * r : 2 * r + 2, 2 * c : 2 * c + 2]
            np.testing.assert_array_equal(patches[1, r, c], patch.reshape(-1))


def test_gradient_of_a_frozen_patch_embedding_is_zero() -> None:
    model = small_model("vit_ti", freeze_patch_embed=True)
    params, batch_stats = arbitrary_variables(model)

    def loss(params: Variables) -> jax.Array:
        projection, _ = model.target(params, batch_stats, random_images())
        return jnp.sum(projection**3)

    gradient = jax.jit(jax.grad(loss))(params)["encoder"]
    assert not np.any(gradient["patch_embed"]["kernel"])
    assert not np.any(gradient["patch_embed"]["bias"])
    assert np.any(gradient["cls_token"])
    assert np.any(gradient["blocks_0"]["qkv"]["kernel"])


def test_query_key_and_value_start_as_three_square_matrices() -> None:
    block, tokens = TransformerBlock(heads=3, dtype=jnp.float32), jnp.zeros((1, 2, 48))
    kernel = jax.jit(lambda key: block.init(key, tokens)["params"]["qkv"]["kernel"])(
        jax.random.key(0)
    )
    limit = math.sqrt(6 / (48 + 48))  # of one wide matrix: sqrt(6 / (48 + 144))
    assert 0.98 * limit < np.abs(kernel).max() <= limit


def layer_norm(x: np.ndarray, norm: Variables) -> np.ndarray:
    x = (x - x.mean()) / math.sqrt(x.var() + 1e-6)
    return x * norm["scale"] + norm["bias"]


def linear(x: np.ndarray, dense: Variables) -> np.ndarray:
    return x @ dense["kernel"] + dense["bias"]


def gelu(x: np.ndarray) -> np.ndarray:
    return np.array([each * (1 + math.erf(each / math.sqrt(2))) / 2 for each in x])


def block_in_loops(tokens: list[np.ndarray], block: Variables, heads: int) -> Any:
    """Pre-norm attention, head by head and token by token, then the MLP."""
    width = len(tokens[0])
    d = width // heads
    qkv = [linear(layer_norm(x, block["norm1"]), block["qkv"]) for x in tokens]
    q, k, v = ([each[i * width : (i + 1) * width] for each in qkv] for i in range(3))
    after = []
    for i, x in enumerate(tokens):
        mixed = np.zeros(width)
        for head in range(heads):
            own = slice(head * d, (head + 1) * d)
            scores = np.exp([q[i][own] @ key[own] / math.sqrt(d) for key in k])
            for score, value in zip(scores / scores.sum(), v, strict=True):
                mixed[own] += score * value[own]
        x = x + linear(mixed, block["proj"])
        hidden = gelu(linear(layer_norm(x, block["norm2"]), block["fc1"]))
        after.append(x + linear(hidden, block["fc2"]))
    return after


def tokens_in_loops(image: np.ndarray, encoder: Variables) -> list[np.ndarray]:
    """The class token, and the 8 x 8 patches of a 16-pixel image with positions."""
    tokens = [encoder["cls_token"]]
    for r in range(2):
        for c in range(2):
            patch = image[8 * r : 8 * r + 8, 8 * c : 8 * c + 8]
            omega = [1, 10000 ** (-1 / 3), 10000 ** (-2 / 3)]
            position = [f(r * o) for f in (math.sin, math.cos) for o in omega]
            position += [f(c * o) for f in (math.sin, math.cos) for o in omega]
            token = linear(patch.reshape(-1), encoder["patch_embed"])
            tokens.append(token + np.array(position))
    return tokens


@pytest.mark.parametrize("scan", [False, True])
def test_attention_is_a_plain_softmax_of_the_last_block(scan: bool) -> None:
    params, batch_stats = arbitrary_variables(small_model("vit_ti", depth=2))
    encoder = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["encoder"])
    model = small_model("vit_ti", depth=2, scan=scan)
    given = stack_layers(params) if scan else params
    maps = jax.jit(model.maps)(given, batch_stats, random_images(2))
    assert list(maps) == ["attention"] and maps["attention"].shape == (2, 3, 2, 2)
    for image, of_image in zip(
        np.float64(random_images(2)), maps["attention"], strict=True
    ):
        tokens = block_in_loops(tokens_in_loops(image, encoder), encoder["blocks_0"], 3)
        block = encoder["blocks_1"]
        qkv = [linear(layer_norm(x, block["norm1"]), block["qkv"]) for x in tokens]
        for head in range(3):
            own = slice(4 * head, 4 * head + 4)
            scores = [np.exp(qkv[0][:12][own] @ x[12:24][own] / 2) for x in qkv]
            weights = np.array(scores[1:]) / sum(scores)
            np.testing.assert_allclose(of_image[head].ravel(), weights, atol=1e-5)
        assert np.ptp(of_image) > 0.05, "weights that differ"


def test_a_vit_is_the_loop_over_tokens_and_heads() -> None:
    """MoCo v3 and timm: GELU by erf, epsilon 1e-6, the class token as the feature.

    What is added to the class token is so small that its variance is near epsilon.
    """
    model = small_model("vit_ti")
    params, batch_stats = arbitrary_variables(model)
    encoder = params["encoder"]
    encoder["cls_token"] *= 3e-3
    for name in ("proj", "fc2"):
        encoder["blocks_0"][name] = jax.tree.map(
            lambda leaf: 1e-3 * leaf, encoder["blocks_0"][name]
        )
    inputs = params, batch_stats, random_images()
    dense, features = jax.jit(lambda *of: (model.dense(*of), model.encode(*of)))(
        *inputs
    )
    encoder = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), encoder)
    for image, patches, feature in zip(
        np.float64(random_images()), dense, features, strict=True
    ):
        tokens = tokens_in_loops(image, encoder)
        tokens = block_in_loops(tokens, encoder["blocks_0"], heads=3)
        for i, token in enumerate(tokens[1:]):  # row by row
            expected = layer_norm(token, encoder["norm"])
            np.testing.assert_allclose(patches[i // 2, i % 2], expected, atol=1e-4)
        assert 1e-7 < tokens[0].var() < 3e-5
        expected = layer_norm(tokens[0], encoder["norm"])
        np.testing.assert_allclose(feature, expected, atol=1e-4)


def test_a_block_is_the_loop_over_tokens_and_heads() -> None:
    """With large numbers before the GELU, whose two forms differ by up to 5e-4."""
    block = TransformerBlock(heads=2, dtype=jnp.float32)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1, 3, 4))
    shapes = jax.eval_shape(lambda: block.init(jax.random.key(0), jnp.float32(x)))
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), shapes)["params"]
    actual = jax.jit(block.apply)(
        {"params": jax.tree.map(jnp.float32, params)}, jnp.float32(x)
    )
    expected = block_in_loops(list(x[0]), params, heads=2)
    np.testing.assert_allclose(actual[0], expected, rtol=1e-4, atol=3e-5)


def test_vit_heads_changes_the_function_and_not_the_parameters() -> None:
    features = []
    for vit_heads in ("mocov3", "timm"):
        model = small_model("vit_ti", vit_heads=vit_heads)
        params, batch_stats = arbitrary_variables(model)
        features.append(jax.jit(model.encode)(params, batch_stats, random_images()))
    assert features[0].shape == features[1].shape
    assert np.abs(features[0] - features[1]).max() > 1e-3


def test_vit_large_has_16_heads_by_either_rule() -> None:
    for vit_heads in ("mocov3", "timm"):
        config = make_config(name="vit_l", width=None, vit_heads=vit_heads)
        encoder = build_model(config).network.encoder
        assert (encoder.depth, encoder.width, encoder.heads) == (24, 1024, 16)


# Stochastic depth, remat, scan


def stack_layers(params: Variables) -> Variables:
    """From the parameters of an unrolled network to those of a loop."""
    encoder = dict(params["encoder"])
    blocks = sum(name.startswith("blocks_") for name in encoder)
    layers = [encoder.pop(f"blocks_{i}") for i in range(blocks)]
    encoder["blocks"] = jax.tree.map(lambda *each: jnp.stack(each), *layers)
    return {**params, "encoder": encoder}


@pytest.fixture(scope="module")
def unrolled(request: pytest.FixtureRequest) -> SimpleNamespace:
    drop_path = request.param
    model = small_model("vit_ti", depth=3, drop_path=drop_path)
    params, batch_stats = arbitrary_variables(model)
    inputs = (batch_stats, random_images(), image_keys(4))
    result = loss_and_gradient(model, params, *inputs)
    return SimpleNamespace(**locals())


@pytest.mark.parametrize(
    ("unrolled", "remat", "scan"),
    [(0.5, True, False), (0.5, False, True), (0.5, True, True), (0.0, True, True)],
    indirect=["unrolled"],
)
def test_remat_and_scan_change_neither_values_nor_gradients(
    unrolled: SimpleNamespace, remat: bool, scan: bool
) -> None:
    model = small_model(
        "vit_ti", depth=3, drop_path=unrolled.drop_path, remat=remat, scan=scan
    )
    stack = stack_layers if scan else lambda params: params
    params = stack(unrolled.params)
    fresh, _ = jax.eval_shape(lambda: model.init(jax.random.key(0), (16, 16, 3)))
    assert jax.tree.map(jnp.shape, fresh) == jax.tree.map(jnp.shape, params)
    values, gradient = loss_and_gradient(model, params, *unrolled.inputs)
    assert_trees_close(values, unrolled.result[0], 1e-4)
    assert_trees_close(gradient, stack(unrolled.result[1]), 1e-4)
    program = str(jax.make_jaxpr(model.online)(params, *unrolled.inputs))
    blocks = 1 if scan else 3
    assert program.count("remat2[") == (blocks if remat else 0)
    assert program.count("scan[") == scan


def test_each_layer_of_a_loop_starts_from_its_own_key() -> None:
    model = small_model("vit_ti", depth=3, scan=True)
    blocks = jax.jit(lambda key: model.init(key, (16, 16, 3))[0]["encoder"]["blocks"])(
        jax.random.key(0)
    )
    kernel = blocks["qkv"]["kernel"]
    assert kernel.shape == (3, 12, 36)
    assert np.abs(kernel[0] - kernel[1]).max() > 0.1
    limit = math.sqrt(6 / (12 + 12))  # of one layer, whatever is stacked
    assert 0.9 * limit < np.abs(kernel).max() <= limit


def test_a_block_scales_attention_and_mlp_of_each_image() -> None:
    block = TransformerBlock(heads=3, dtype=jnp.float32)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 5, 12)), jnp.float32)
    variables = block.init(jax.random.key(0), x)
    scales = jnp.array([[0.0, 1.0, 0.0, 1.0], [0.0, 0.0, 1.0, 1.0]])
    y = block.apply(variables, x, scales)
    whole = block.apply(variables, x)
    np.testing.assert_array_equal(y[0], x[0])
    np.testing.assert_allclose(y[3], whole[3], atol=1e-6)
    attention = block.apply(variables, x, jnp.array([[1.0] * 4, [0.0] * 4]))
    np.testing.assert_allclose(y[1], attention[1], atol=1e-6)
    assert np.abs(y[2] - whole[2]).max() > 1e-3
    assert np.abs(y[2] - x[2]).max() > 1e-3


def test_dropped_paths_follow_the_image_whatever_batch_or_devices(mesh_of: Any) -> None:
    model = small_model("vit_ti", depth=2, drop_path=0.7)
    params, batch_stats = arbitrary_variables(model)
    images, keys = random_images(8), image_keys(8)

    @jax.jit
    def features(images: jax.Array, keys: jax.Array) -> jax.Array:
        return model.online(params, batch_stats, images, keys)[0].feature

    alike = jnp.repeat(images[:1], 8, axis=0)
    assert len(np.unique(features(alike, keys).round(3), axis=0)) > 1
    expected = features(images, keys)
    order = np.random.default_rng(0).permutation(8)
    actual = features(images[order], keys[order])
    np.testing.assert_allclose(actual, expected[order], atol=1e-5)
    spread = jax.device_put((images, keys), over_batch(mesh_of(8)))
    np.testing.assert_allclose(features(*spread), expected, atol=1e-5)
    assert "all-" not in features.lower(*spread).compile().as_text()
