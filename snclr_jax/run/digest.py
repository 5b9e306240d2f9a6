"""A number for each array that changes with any of its bits, wherever its parts lie."""

from __future__ import annotations

import json
import zlib
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array


def digests(tree: Any) -> dict[str, str]:
    """Returns eight hexadecimal digits for every array, by its path in the tree.

        digest(x) = sum_i mix(word_i XOR mix(i))  mod 2^32

    over the 32-bit words of the array in their order, computed where they lie: the sum
    is the same for every sharding. `mix` has an inverse, so any change of one word
    changes the sum for certain; of several words, all but one in 2^32 changes do.

    Args:
      tree: arrays of numbers, of at most 2^32 words each.
    """
    sums = {name: _digest(leaf) for name, leaf in by_path(tree).items()}
    return {name: f"{value:08x}" for name, value in jax.device_get(sums).items()}


def digest_of_json(value: Any) -> str:
    """Returns eight hexadecimal digits of what JSON can hold (CRC-32 of its text)."""
    return f"{zlib.crc32(json.dumps(value, sort_keys=True).encode()):08x}"


def by_path(tree: Any) -> dict[str, Any]:
    """Returns the leaves of a tree by their path, such as "params/encoder/kernel"."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


@jax.jit
def _digest(leaf: Array) -> Array:
    words = _words(leaf)
    index = jnp.zeros(words.shape, jnp.uint32)
    stride = 1
    for axis in reversed(range(words.ndim)):
        position = jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis)
        index += position * jnp.uint32(stride)
        stride *= words.shape[axis]
    return jnp.sum(_mix(words ^ _mix(index)), dtype=jnp.uint32)


def _words(leaf: Array) -> Array:
    """Returns the bits of an array as uint32; 8-byte numbers are two words."""
    if leaf.dtype == jnp.bool_:
        return leaf.astype(jnp.uint32)
    bits = 8 * min(leaf.dtype.itemsize, 4)
    words = jax.lax.bitcast_convert_type(leaf, jnp.dtype(f"uint{bits}"))
    return words.astype(jnp.uint32)


def _mix(words: Array) -> Array:
    """A permutation of the 32-bit numbers in which every bit moves every other.

    Shifts that are added and products with odd numbers can all be undone.
    """
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        words = (words ^ (words >> shift)) * jnp.uint32(factor)
    return words ^ (words >> 16)
