"""Networks: published sizes, modes of normalization, and clear refusals."""

from __future__ import annotations

import dataclasses
import math
from types import SimpleNamespace
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snclr_jax.models import Model, Variables, build_model, target_subset
from snclr_jax.models.layers import batch_norm, split_patches
from snclr_jax.models.patchnet import local_contrast
from snclr_jax.models.resnet import ResidualBlock
from snclr_jax.models.vit import TransformerBlock, sincos_positions


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
        dtype="float32",
    )
    return SimpleNamespace(**(defaults | fields))


def small_model(name: str, attention: str = "cosine", **fields: Any) -> Model:
    sizes = {
        "resnet18": dict(width=4),
        "vit_ti": dict(width=12, depth=1, patch_size=8),
        "patchnet": dict(width=8, depth=1),
    }
    config = make_config(name=name, **(sizes[name] | fields))
    return build_model(config, attention=attention)


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


SMALL = ("resnet18", "vit_ti", "patchnet")


@pytest.fixture(scope="module", params=SMALL)
def trained(request: pytest.FixtureRequest) -> SimpleNamespace:
    """One online and one target pass of each small network, in one compilation."""
    model = small_model(request.param)
    if request.param == "resnet18":
        model = with_two_stages(model)
    params, batch_stats = arbitrary_variables(model)

    @jax.jit
    def passes(params: Variables, images: jax.Array) -> Any:
        def loss(params: Variables) -> Any:
            outputs, stats = model.online(params, batch_stats, images)
            return jnp.sum(outputs.prediction**3), (outputs, stats)

        gradients, online = jax.grad(loss, has_aux=True)(params)
        target = model.target(target_subset(params), target_subset(batch_stats), images)
        return gradients, *online, *target

    gradients, outputs, online_stats, projection, target_stats = passes(
        params, random_images()
    )
    return SimpleNamespace(**locals())


def test_target_of_equal_params_agrees_with_online(trained: SimpleNamespace) -> None:
    np.testing.assert_allclose(
        trained.projection, trained.outputs.projection, atol=1e-6
    )
    online_stats = target_subset(trained.online_stats)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6),
        online_stats,
        trained.target_stats,
    )


def test_structure_and_types_of_batch_stats_never_change(
    trained: SimpleNamespace,
) -> None:
    def shapes(tree: Variables) -> Variables:
        return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)

    assert shapes(trained.online_stats) == shapes(trained.batch_stats)
    assert shapes(trained.target_stats) == shapes(target_subset(trained.batch_stats))


def test_outputs_have_the_advertised_shapes(trained: SimpleNamespace) -> None:
    model, outputs = trained.model, trained.outputs
    assert outputs.feature.shape == (4, model.feature_dim)
    assert outputs.projection.shape == (4, model.embedding_dim)
    assert outputs.prediction.shape == (4, model.embedding_dim)


def test_gradient_reaches_every_parameter(trained: SimpleNamespace) -> None:
    silent = [
        jax.tree_util.keystr(path)
        for path, leaf in jax.tree.leaves_with_path(trained.gradients)
        if not np.any(leaf)
    ]
    assert silent == []


def test_param_tree_names_the_four_parts() -> None:
    for attention, parts in (
        ("cosine", {"encoder", "projector", "predictor"}),
        ("linear", {"encoder", "projector", "predictor", "attention"}),
    ):
        model = small_model("patchnet", attention)
        params, _ = jax.eval_shape(lambda m=model: m.init(jax.random.key(0), (8, 8, 3)))
        assert set(params) == parts


# Batch normalization


def test_online_uses_batch_statistics_and_encode_the_running_ones() -> None:
    model = small_model("patchnet")
    images = random_images()
    params, moved = arbitrary_variables(model)
    batch_stats = jax.tree.map(lambda leaf: leaf + 0.5, moved)

    online = jax.jit(model.online)
    before, _ = online(params, batch_stats, images)
    after, _ = online(params, moved, images)
    np.testing.assert_array_equal(before.prediction, after.prediction)

    encode = jax.jit(model.encode)
    whole = encode(params, moved, images)
    assert np.abs(whole - encode(params, batch_stats, images)).max() > 1e-3
    alone = jnp.concatenate(
        [encode(params, moved, images[i : i + 1]) for i in range(4)]
    )
    np.testing.assert_allclose(whole, alone, rtol=1e-4, atol=1e-6)


def test_projector_equals_a_numpy_oracle_with_its_running_statistics() -> None:
    model = small_model("patchnet")
    images = random_images(batch=6)
    params, batch_stats = arbitrary_variables(model)
    outputs, new_stats = jax.jit(model.online)(params, batch_stats, images)

    def normalize(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        mean, variance = x.mean(0), x.var(0)
        return (x - mean) / np.sqrt(variance + 1e-5), mean, variance

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


def test_variance_survives_a_mean_a_thousand_deviations_away() -> None:
    """As in the first projector layer of a fresh ViT, where images look alike."""
    x = 1000.0 + np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    norm = batch_norm(train=True, dtype=jnp.float32, affine=False, name="norm")
    actual, _ = norm.init_with_output(jax.random.key(0), x)
    exact = x.astype(np.float64)
    expected = (exact - exact.mean(0)) / np.sqrt(exact.var(0) + 1e-5)
    np.testing.assert_allclose(actual, expected, atol=1e-3)


# ResNet


def encoder_parameters(
    name: str, size: int, width: int | None = None, **fields: Any
) -> int:
    model = build_model(
        make_config(name=name, width=width, **fields), attention="cosine"
    )
    params, _ = jax.eval_shape(lambda: model.init(jax.random.key(0), (size, size, 3)))
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params["encoder"]))


@pytest.mark.parametrize(
    ("name", "published", "features"),
    [
        # torchvision's published count less its classifier, features * 1000 + 1000
        ("resnet18", 11_689_512, 512),
        ("resnet34", 21_797_672, 512),
        ("resnet50", 25_557_032, 2048),
    ],
)
def test_resnets_have_the_published_number_of_parameters(
    name: str, published: int, features: int
) -> None:
    expected = published - (features * 1000 + 1000)
    assert encoder_parameters(name, 64, stem="imagenet") == expected


@pytest.mark.parametrize(("stem", "side"), [("cifar", 4), ("imagenet", 1)])
def test_stem_sets_the_resolution_of_the_last_stage(stem: str, side: int) -> None:
    model = small_model("resnet18", stem=stem)
    sizes = []

    def record(next_call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        y = next_call(*args, **kwargs)
        if isinstance(context.module, ResidualBlock):
            sizes.append(y.shape[1:3])
        return y

    with nn.intercept_methods(record):
        jax.eval_shape(lambda: model.init(jax.random.key(0), (32, 32, 3)))
    assert sizes[-1] == (side, side)
    assert len(sizes) == 8


def convolve(x: np.ndarray, kernel: np.ndarray, stride: int, pad: int) -> np.ndarray:
    """PyTorch's convolution: the same padding on both sides, then windows."""
    side = kernel.shape[0]
    x = np.pad(x, ((pad, pad), (pad, pad), (0, 0)))
    rows = (x.shape[0] - side) // stride + 1
    columns = (x.shape[1] - side) // stride + 1
    y = np.zeros((rows, columns, kernel.shape[-1]))
    for r in range(rows):
        for c in range(columns):
            top, left = r * stride, c * stride
            window = x[top : top + side, left : left + side]
            y[r, c] = np.einsum("hwi,hwio->o", window, kernel)
    return y


@pytest.mark.parametrize("bottleneck", [False, True])
def test_strided_block_pads_both_sides_alike(bottleneck: bool) -> None:
    block = ResidualBlock(4, stride=2, bottleneck=bottleneck, dtype=jnp.float32)
    images = random_images(batch=1, size=6)
    rng = np.random.default_rng(1)
    variables = jax.tree.map(
        lambda leaf: jnp.asarray(rng.uniform(0.1, 0.5, leaf.shape), leaf.dtype),
        jax.eval_shape(lambda: block.init(jax.random.key(0), images, train=False)),
    )
    params, stats = (
        jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables[name])
        for name in ("params", "batch_stats")
    )

    def layer(x: np.ndarray, conv: str, bn: str, stride: int) -> np.ndarray:
        kernel = params[conv]["kernel"]
        x = convolve(x, kernel, stride, pad=kernel.shape[0] // 2)
        x = (x - stats[bn]["mean"]) / np.sqrt(stats[bn]["var"] + 1e-5)
        return x * params[bn]["scale"] + params[bn]["bias"]

    image = np.asarray(images[0], np.float64)
    strides = [1, 2, 1] if bottleneck else [2, 1]  # v1.5: on the 3x3
    y = image
    for i, stride in enumerate(strides, start=1):
        y = layer(y, f"conv{i}", f"bn{i}", stride)
        if i < len(strides):
            y = np.maximum(y, 0)
    shortcut = layer(image, "downsample_conv", "downsample_bn", 2)
    expected = np.maximum(y + shortcut, 0)
    actual = block.apply(variables, images, train=False)[0]
    np.testing.assert_allclose(actual, expected, atol=1e-4)


# Vision transformer


@pytest.mark.parametrize(
    ("name", "published", "width"),
    [
        # DeiT's published counts at 224 pixels and 1000 classes; less the classifier,
        # width * 1000 + 1000, and the learned positions, (14 * 14 + 1) * width
        ("vit_ti", 5_717_416, 192),
        ("vit_s", 22_050_664, 384),
        ("vit_b", 86_567_656, 768),
    ],
)
def test_vits_have_the_published_number_of_parameters(
    name: str, published: int, width: int
) -> None:
    expected = published - (width * 1000 + 1000) - (14 * 14 + 1) * width
    assert encoder_parameters(name, 224, patch_size=16) == expected


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


def test_vit_heads_changes_the_function_and_not_the_parameters() -> None:
    features = []
    for vit_heads in ("mocov3", "timm"):
        model = small_model("vit_ti", vit_heads=vit_heads)
        params, batch_stats = arbitrary_variables(model)
        features.append(jax.jit(model.encode)(params, batch_stats, random_images()))
    assert features[0].shape == features[1].shape
    assert np.abs(features[0] - features[1]).max() > 1e-3


# Types, attention, errors


@pytest.mark.parametrize("name", SMALL)
def test_bfloat16_keeps_float32_params_statistics_and_outputs(name: str) -> None:
    model = small_model(name, "linear", dtype="bfloat16")
    images = random_images()

    def init_and_apply(key: jax.Array) -> Any:
        params, batch_stats = model.init(key, images.shape[1:])
        return (
            params,
            batch_stats,
            model.online(params, batch_stats, images),
            model.target(target_subset(params), target_subset(batch_stats), images),
            model.encode(params, batch_stats, images),
        )

    leaves = jax.tree.leaves(jax.eval_shape(init_and_apply, jax.random.key(0)))
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float32")}
    assert "bf16" in str(jax.make_jaxpr(init_and_apply)(jax.random.key(0)))


def test_bfloat16_computes_the_same_function_roughly() -> None:
    exact, rounded = (
        small_model("patchnet", dtype=dtype) for dtype in ("float32", "bfloat16")
    )
    params, batch_stats = arbitrary_variables(exact)
    expected, actual = (
        jax.jit(model.encode)(params, batch_stats, random_images())
        for model in (exact, rounded)
    )
    error = np.abs(actual - expected).max()
    assert 0 < error < 0.05 * np.abs(expected).max()


def test_linear_attention_starts_as_the_identity() -> None:
    model = small_model("patchnet", "linear")
    params = jax.jit(
        lambda key: {"attention": model.init(key, (8, 8, 3))[0]["attention"]}
    )(jax.random.key(0))
    y = random_images().reshape(-1, 8)[:5]
    np.testing.assert_array_equal(model.attend(params, y), y)


def test_cosine_attention_leaves_the_anchor_alone() -> None:
    y = random_images().reshape(-1, 8)[:5]
    np.testing.assert_array_equal(small_model("patchnet").attend({}, y), y)


def test_linear_attention_folds_both_projections_into_the_query() -> None:
    model = small_model("patchnet", "linear")
    rng = np.random.default_rng(0)
    w1, w2 = rng.normal(size=(2, 8, 8))
    y, c = rng.normal(size=(2, 5, 8))
    params = {"attention": {"w1": jnp.float32(w1), "w2": jnp.float32(w2)}}
    query = np.asarray(model.attend(params, jnp.float32(y)))
    for i in range(5):
        for j in range(5):
            expected = np.dot(w1 @ y[i], w2 @ c[j])
            assert np.dot(query[i], c[j]) == pytest.approx(expected, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(name="resnet19"), r"model.name 'resnet19'.*resnet18"),
        (dict(name="resnet18", stem="tiny"), r"model.stem 'tiny'.*cifar"),
        (dict(name="resnet18", depth=3), r"model.depth 3.*None"),
        (dict(name="vit_s", vit_heads="12"), r"model.vit_heads '12'.*mocov3"),
        (dict(name="vit_s", width=100), r"model.width 100.*such as 108"),
        (dict(dtype="float16"), r"model.dtype 'float16'.*bfloat16"),
        (dict(dtype="float64"), r"model.dtype 'float64'.*JAX_ENABLE_X64"),
    ],
)
def test_bad_fields_are_refused_by_name(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_model(make_config(**fields), attention="cosine")


def test_unknown_attention_is_refused() -> None:
    with pytest.raises(ValueError, match=r"attention.kind 'dot'.*linear"):
        build_model(make_config(), attention="dot")


@pytest.mark.parametrize(
    ("name", "fits"), [("vit_ti", r"\[2, 4, 8"), ("patchnet", "multiples of 10")]
)
def test_patch_size_must_divide_the_image(name: str, fits: str) -> None:
    model = small_model(name, patch_size=5)
    with pytest.raises(ValueError, match=f"model.patch_size 5.*32x32.*{fits}"):
        jax.eval_shape(lambda: model.init(jax.random.key(0), (32, 32, 3)))


def test_patchnet_sees_neither_a_smooth_ground_nor_contrast() -> None:
    rng = np.random.default_rng(0)
    shape = np.zeros((1, 32, 32, 3), np.float32)
    shape[0, 8:20, 14:18] = 1.0
    ground = np.linspace(0, 1, 32, dtype=np.float32)[None, :, None, None]
    ground = ground * rng.normal(size=3).astype(np.float32)
    seen = local_contrast(jnp.asarray(shape), 4.0)
    other = local_contrast(jnp.asarray(5 * shape + ground), 4.0)
    inner = np.s_[:, 8:-8, 8:-8]  # at the border the Gaussian is cut
    assert jnp.abs(seen - other)[inner].max() < 0.1 * jnp.abs(seen).max()
    np.testing.assert_allclose(jnp.mean(seen**2), 1, atol=0.05)
