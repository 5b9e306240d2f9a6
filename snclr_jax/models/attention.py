"""Self-attention: two products and a softmax, or cuDNN's fused kernel for them."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

# What cuDNN's kernel takes (jax.nn.dot_product_attention refuses the rest).
_DTYPES = (jnp.bfloat16, jnp.float16)
_HEAD_MULTIPLE, _WIDEST_HEAD = 8, 128


def self_attention(qkv: jax.Array, *, fused: bool) -> jax.Array:
    """Returns softmax(q k' / sqrt(h)) v of every head, the softmax in float32.

    Fused, the (tokens, tokens) weights stay on the chip, forward and backward (Dao et
    al., 2022, "FlashAttention"); plain, they go through memory.

    Args:
      qkv: (b, tokens, 3, heads, h): queries, keys and values.
      fused: let cuDNN compute it, which NVIDIA GPUs alone have. It takes 16-bit numbers
        and heads of a multiple of 8 and at most 128 features; others stay plain.

    Returns:
      (b, tokens, heads, h).
    """
    batch, tokens, *_, width = qkv.shape
    takes = width % _HEAD_MULTIPLE == 0 and width <= _WIDEST_HEAD
    if not (fused and takes and qkv.dtype in _DTYPES):
        return jax.nn.dot_product_attention(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2])
    # JAX refuses cuDNN's gradient for an odd number of tokens, such as 197: one that no
    # token sees makes it even.
    qkv = jnp.pad(qkv, ((0, 0), (0, tokens % 2), (0, 0), (0, 0), (0, 0)))
    seen = jnp.full(batch, tokens, jnp.int32) if tokens % 2 else None
    query, key, value = jnp.unstack(qkv, axis=2)
    y = jax.nn.dot_product_attention(
        query, key, value, key_value_seq_lengths=seen, implementation="cudnn"
    )
    return y[:, :tokens]


def class_attention(qkv: jax.Array) -> jax.Array:
    """Returns how much the class token attends to each patch: `self_attention`'s

        softmax(q k' / sqrt(h))

    of the first token's query, without its weight of itself, so that the rest sums to
    less than 1.

    Args:
      qkv: (b, tokens, 3, heads, h): queries, keys and values.

    Returns:
      float32 (b, heads, tokens - 1).
    """
    query, keys = qkv[:, 0, 0], qkv[:, :, 1]
    scores = jnp.einsum(
        "bnh,btnh->bnt", query, keys, preferred_element_type=jnp.float32
    )
    return jax.nn.softmax(scores / math.sqrt(qkv.shape[-1]))[..., 1:]
