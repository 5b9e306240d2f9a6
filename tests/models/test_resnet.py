"""ResNets: published sizes, PyTorch's padding."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
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
    random_images,
    small_model,
    with_two_stages,
)
from oracle import convolve

from snclr_jax.models.layers import BatchNorm
from snclr_jax.models.resnet import ResidualBlock, ResNet


@pytest.mark.parametrize(
    ("name", "published", "features"),
    [
        # torchvision's published count less its classifier, features * 1000 + 1000
        ("resnet18", 11_689_512, 512),
        ("resnet34", 21_797_672, 512),
        ("resnet50", 25_557_032, 2048),
        ("resnet101", 44_549_160, 2048),
        ("resnet152", 60_192_808, 2048),
    ],
)
def test_resnets_have_the_published_number_of_parameters(
    name: str, published: int, features: int
) -> None:
    expected = published - (features * 1000 + 1000)
    assert encoder_parameters(name, 64, stem="imagenet") == expected


def test_double_width_has_the_parameters_of_simclr() -> None:
    """Chen et al. (2020), Table 6: ResNet-50 (2x) has 94M."""
    count = encoder_parameters("resnet50", 64, width=128, stem="imagenet")
    assert round(count / 1e6) == 94


@pytest.mark.parametrize(("stem", "side"), [("cifar", 4), ("imagenet", 1)])
def test_stem_sets_the_resolution_of_the_last_stage(stem: str, side: int) -> None:
    model = small_model("resnet18", stem=stem)
    sizes = []

    def record(next_call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        y = next_call(*args, **kwargs)
        if isinstance(context.module, ResidualBlock):
            sizes.append(y.shape[-3:-1])
        return y

    with nn.intercept_methods(record):
        jax.eval_shape(lambda: model.init(jax.random.key(0), (32, 32, 3)))
    assert sizes[-1] == (side, side)
    assert len(sizes) == 8


def small_block(**fields: Any) -> ResidualBlock:
    norm = functools.partial(BatchNorm, False, None, jnp.float32)
    return ResidualBlock(4, norm=norm, dtype=jnp.float32, **fields)


@pytest.mark.parametrize("bottleneck", [False, True])
def test_strided_block_pads_both_sides_alike(bottleneck: bool) -> None:
    block = small_block(stride=2, bottleneck=bottleneck)
    images = random_images(batch=1, size=6)
    rng = np.random.default_rng(1)
    variables = jax.tree.map(
        lambda leaf: jnp.asarray(rng.uniform(0.1, 0.5, leaf.shape), leaf.dtype),
        jax.eval_shape(lambda: block.init(jax.random.key(0), images)),
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
    actual = block.apply(variables, images)[0]
    np.testing.assert_allclose(actual, expected, atol=1e-4)


@pytest.mark.parametrize("bottleneck", [False, True])
def test_a_block_starts_as_its_shortcut(bottleneck: bool) -> None:
    """MoCo v3's zero_init_residual: the scale of the last normalization is 0."""
    block = small_block(stride=1, bottleneck=bottleneck)
    x = random_images(batch=1, size=2)
    params = jax.jit(block.init)(jax.random.key(0), x)["params"]
    last = "bn3" if bottleneck else "bn2"
    scales = {
        name: set(of["scale"].tolist()) for name, of in params.items() if "bn" in name
    }
    assert scales == {name: {0.0 if name == last else 1.0} for name in scales}
    assert {"bn1", "bn2", "downsample_bn"} <= set(scales)
    assert not any(np.any(params[name]["bias"]) for name in scales)


@pytest.mark.parametrize("stem", ["imagenet", "cifar"])
def test_stems_pad_both_sides_alike_and_features_are_means(stem: str) -> None:
    encoder = ResNet(
        stage_sizes=(),
        bottleneck=False,
        width=4,
        stem=stem,
        bn_scope=None,
        drop_path=0.0,
        remat=False,
        dtype=jnp.float32,
    )
    images = random_images(batch=1, size=16)
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(
        lambda: encoder.init(jax.random.key(0), images, train=False)
    )
    variables = jax.tree.map(lambda leaf: rng.uniform(0.1, 0.5, leaf.shape), shapes)
    conv, bn = (variables["params"][name] for name in ("conv1", "bn1"))
    stats = variables["batch_stats"]["bn1"]
    kernel, stride = (7, 2) if stem == "imagenet" else (3, 1)
    image = np.asarray(images[0], np.float64)
    assert conv["kernel"].shape[:2] == (kernel, kernel)
    x = convolve(image, conv["kernel"], stride, pad=kernel // 2)
    x = (x - stats["mean"]) / np.sqrt(stats["var"] + 1e-5) * bn["scale"] + bn["bias"]
    x = np.maximum(x, 0)
    if stem == "imagenet":
        side = x.shape[0]
        assert side == 8  # where "SAME" would pad on one side only
        pooled = np.zeros((4, 4, 4))
        for r in range(4):
            for c in range(4):
                rows = [i for i in range(2 * r - 1, 2 * r + 2) if 0 <= i < side]
                columns = [i for i in range(2 * c - 1, 2 * c + 2) if 0 <= i < side]
                pooled[r, c] = np.max([x[i, j] for i in rows for j in columns], axis=0)
        x = pooled
    expected = x.sum((0, 1)) / (x.shape[0] * x.shape[1])
    float32 = jax.tree.map(jnp.float32, variables)
    actual, sown = encoder.apply(float32, images, train=False, mutable=["maps"])
    np.testing.assert_allclose(actual[0], expected, rtol=1e-5)
    np.testing.assert_allclose(sown["maps"]["dense"][0][0], x, atol=1e-6)


@pytest.mark.parametrize("bottleneck", [False, True])
def test_a_dropped_branch_leaves_the_shortcut(bottleneck: bool) -> None:
    block = small_block(stride=1, bottleneck=bottleneck)
    channels = 16 if bottleneck else 4
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 2, 2, channels)))
    variables = jax.tree.map(
        lambda leaf: jnp.full(leaf.shape, 0.3, leaf.dtype),
        jax.eval_shape(lambda: block.init(jax.random.key(0), x)),
    )
    shortcut = np.maximum(x, 0)
    # The shortcut is large enough for the ReLU to be the identity.
    whole = block.apply(variables, x + 100) - (x + 100)
    scaled = block.apply(variables, x + 100, jnp.array([[1.0, 2.0, 0.5]])) - (x + 100)
    expected = whole * np.array([1.0, 2.0, 0.5]).reshape(3, 1, 1, 1)
    np.testing.assert_allclose(scaled, expected, rtol=1e-4, atol=1e-4)
    dropped = block.apply(variables, x, jnp.zeros((1, 3)))
    np.testing.assert_array_equal(dropped, shortcut)


@pytest.mark.parametrize("drop_path", [0.0, 0.5])
def test_remat_changes_neither_values_nor_gradients(drop_path: float) -> None:
    plain, remat = (
        with_two_stages(small_model("resnet18", remat=remat, drop_path=drop_path))
        for remat in (False, True)
    )
    variables = arbitrary_variables(plain)
    assert jax.tree.structure(variables) == jax.tree.structure(
        arbitrary_variables(remat)
    )
    inputs = (*variables, random_images(), image_keys(4))
    assert_trees_close(
        loss_and_gradient(remat, *inputs), loss_and_gradient(plain, *inputs)
    )
    counts = [
        str(jax.make_jaxpr(model.online)(*inputs)).count("remat2[")
        for model in (plain, remat)
    ]
    assert counts == [0, 2]
