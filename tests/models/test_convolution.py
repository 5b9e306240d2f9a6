"""The convolution and its gradients, against windows in numpy."""

from __future__ import annotations

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from snclr_jax.models import convolution as module
from snclr_jax.models.convolution import convolution

PLAIN = dict(lhs_dilation=(1, 1), rhs_dilation=(1, 1), feature_group_count=1)


def convolve(x, kernel, stride, pad):
    pads = ((pad, pad), (pad, pad))
    return convolution(x, kernel, (stride, stride), pads, **PLAIN)


def windows(x, kernel, stride, pad):
    return np.stack([oracle.convolve(image, kernel, stride, pad) for image in x])


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("at_once", ["all images", "a few images"])
@pytest.mark.parametrize(
    ("height", "size", "stride", "pad"),
    [
        (5, 3, 1, 1),
        (5, 3, 2, 1),
        (6, 3, 2, 1),
        (5, 1, 1, 0),
        (6, 1, 2, 0),
        (8, 4, 2, 1),
        (9, 7, 2, 3),
        (8, 3, 3, 0),
        (7, 2, 3, 1),
    ],
)
def test_values_and_gradients(height, size, stride, pad, at_once, rng, monkeypatch):
    if at_once == "a few images":
        limits = dict(PIXELS=1, IMAGES=2)
        for name, limit in limits.items():
            monkeypatch.setattr(module, name, limit)
    x = rng.normal(size=(6, height, height + 1, 2))
    kernel = rng.normal(size=(size, size, 2, 3))
    expected = windows(x, kernel, stride, pad)
    arrays = jnp.asarray(x), jnp.asarray(kernel)
    value, pull = jax.vjp(lambda x, w: convolve(x, w, stride, pad), *arrays)
    np.testing.assert_allclose(value, expected, atol=1e-12)
    dy = rng.normal(size=expected.shape)
    # Linear in x and in the kernel: a derivative is the value at a unit array.
    by_x, by_kernel = np.zeros_like(x), np.zeros_like(kernel)
    for place in np.ndindex(*x.shape[1:]):
        unit = np.zeros_like(x)
        unit[:, *place] = 1
        moved = windows(unit, kernel, stride, pad)
        by_x[:, *place] = np.sum(dy * moved, axis=(1, 2, 3))
    for place in np.ndindex(*kernel.shape):
        unit = np.zeros_like(kernel)
        unit[place] = 1
        by_kernel[place] = np.sum(dy * windows(x, unit, stride, pad))
    ours = pull(jnp.asarray(dy))
    np.testing.assert_allclose(ours[0], by_x, atol=1e-12)
    np.testing.assert_allclose(ours[1], by_kernel, atol=1e-12)


def gradient(x, kernel):
    return jax.grad(lambda w: jnp.sum(convolve(x, w, 1, 1) ** 2))(kernel)


def test_padding_by_name(rng):
    x, kernel = rng.normal(size=(2, 8, 8, 2)), rng.normal(size=(8, 8, 2, 3))
    same = convolution(jnp.asarray(x), jnp.asarray(kernel), (4, 4), "SAME", **PLAIN)
    np.testing.assert_allclose(same, windows(x, kernel, 4, 2), atol=1e-12)


def test_devices_share_a_batch(mesh_of, rng):
    kernel = rng.normal(size=(3, 3, 64, 4))
    x = rng.normal(size=(48, 16, 16, 64))
    assert module._images_at_once(x, x) == 8
    over_images = NamedSharding(mesh_of(8), PartitionSpec("data"))
    one, eight = (
        jax.jit(gradient)(each, kernel)
        for each in (jnp.asarray(x), jax.device_put(x, over_images))
    )
    np.testing.assert_allclose(one, eight, rtol=1e-10)


def test_other_devices_get_the_gradients_of_the_compiler():
    arrays = [jax.ShapeDtypeStruct(s, "f4") for s in ((64, 32, 32, 64), (3, 3, 64, 64))]
    traced = jax.jit(gradient).trace(*arrays)
    for platform, loops in (("cpu", True), ("tpu", False), ("cuda", False)):
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        assert ("stablehlo.while" in text) == loops, platform
        assert text.count("stablehlo.convolution") == 2


def test_what_it_cannot_do_is_refused():
    x, kernel = np.zeros((1, 4, 4, 2)), np.zeros((3, 3, 2, 2))
    for name, value in (("rhs_dilation", (2, 2)), ("feature_group_count", 2)):
        with pytest.raises(NotImplementedError, match=name):
            convolution(x, kernel, (1, 1), ((1, 1), (1, 1)), **PLAIN | {name: value})


PROGRAM = """
import jax, jax.numpy as jnp, snclr_jax
x, kernel = jnp.ones((8, 32, 32, 64)), jnp.ones((3, 3, 64, 64))
def convolve(x, kernel):
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=numbers
    )
print("__ynn_fusion" in jax.jit(convolve).lower(x, kernel).compile().as_text())
"""


@pytest.mark.parametrize(
    ("flags", "left"),
    [
        ("--xla_cpu_experimental_ynn_fusion_type=individual_convolution", True),
        ("", False),
    ],
)
def test_the_import_leaves_nothing_to_ynnpack_unless_asked(flags, left):
    """Its convolutions of 64 channels have one thread, and its sums made NaN."""
    told = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=os.environ | {"XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout == f"{left}\n"
