"""Attention that cuDNN computes: what it is given, and that it is lowered for GPUs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snclr_jax.devices.mesh import has_cudnn_attention, make_mesh
from snclr_jax.models.attention import self_attention
from snclr_jax.models.vit import TransformerBlock


def qkv(heads: int, width: int, dtype: Any, tokens: int = 5) -> jax.Array:
    shape = (2, tokens, 3, heads, width)
    return jax.random.normal(jax.random.key(0), shape).astype(dtype)


@pytest.fixture
def asked(monkeypatch):
    """The implementations asked for; JAX's plain one takes the place of any."""
    made, original = [], jax.nn.dot_product_attention

    def attend(*arrays, implementation=None, **settings):
        made.append(implementation)
        return original(*arrays, **settings)

    monkeypatch.setattr(jax.nn, "dot_product_attention", attend)
    return made


@pytest.mark.parametrize(
    ("heads", "width", "dtype", "expected"),
    [
        (12, 32, jnp.bfloat16, "cudnn"),  # ViT-S
        (16, 64, jnp.bfloat16, "cudnn"),  # ViT-L
        (2, 128, jnp.float16, "cudnn"),
        (12, 32, jnp.float32, None),
        (12, 2, jnp.bfloat16, None),  # a debug variant
        (2, 136, jnp.bfloat16, None),
    ],
)
def test_what_cudnn_does_not_take_stays_plain(asked, heads, width, dtype, expected):
    arrays = qkv(heads, width, dtype)
    fused, plain = (self_attention(arrays, fused=fused) for fused in (True, False))
    assert asked == [expected, None]
    np.testing.assert_array_equal(fused, plain)


@pytest.mark.parametrize("tokens", [4, 5])
def test_the_gradient_is_that_of_plain_attention(asked, tokens):
    arrays = qkv(2, 8, jnp.bfloat16, tokens)

    def loss(arrays, fused):
        y = self_attention(arrays, fused=fused)
        assert y.shape == (2, tokens, 2, 8)
        return jnp.sum(jnp.sin(3 * y.astype(jnp.float32)))

    fused, plain = (jax.grad(loss)(arrays, fused) for fused in (True, False))
    assert asked == ["cudnn", None]
    np.testing.assert_allclose(
        fused.astype(jnp.float32), plain.astype(jnp.float32), rtol=0.02, atol=0.02
    )


def test_a_gpu_is_given_one_fused_kernel_each_way(monkeypatch):
    """Lowered for CUDA, where no GPU is."""
    module = "jax._src.cudnn.fused_attention_stablehlo"
    monkeypatch.setattr(f"{module}.check_cudnn_version", lambda: 91000)
    x = jnp.zeros((2, 197, 384), jnp.bfloat16)

    def lowered(*, fused: bool) -> str:
        block = TransformerBlock(12, jnp.bfloat16, fused)
        params = jax.eval_shape(block.init, jax.random.key(0), x)

        def loss(params, x):
            return jnp.sum(block.apply(params, x).astype(jnp.float32))

        traced = jax.jit(jax.grad(loss)).trace(params, x)
        return traced.lower(lowering_platforms=("cuda",)).as_text()

    fused, plain = lowered(fused=True), lowered(fused=False)
    assert fused.count("@__cudnn$fmhaSoftmax(") == 1
    assert fused.count("@__cudnn$fmhaSoftmaxBackward(") == 1
    assert "197x197" not in fused
    assert "197x197" in plain and "cudnn" not in plain


@pytest.mark.parametrize(
    ("capability", "has"),
    [("9.0", True), ("8.0", True), ("7.5", False), ("gfx942", False)],
)
def test_gpus_from_ampere_on_have_it(capability, has):
    device = SimpleNamespace(platform="gpu", compute_capability=capability)
    devices = SimpleNamespace(flat=[device])
    assert has_cudnn_attention(SimpleNamespace(devices=devices)) == has


def test_cpus_have_no_cudnn():
    assert not has_cudnn_attention(make_mesh())
