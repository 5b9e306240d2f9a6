"""One number an array: any bit changes it, no sharding does."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from snclr_jax.run.digest import digests


def mix(word: int) -> int:
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        word = ((word ^ (word >> shift)) * factor) % 2**32
    return word ^ (word >> 16)


def oracle(array: np.ndarray) -> str:
    """The sum in Python's integers, word by word."""
    if array.dtype == bool:
        array = array.astype(np.uint32)
    size = min(array.dtype.itemsize, 4)
    words = np.ascontiguousarray(array).reshape(-1).view(f"uint{8 * size}")
    total = sum(mix(int(word) ^ mix(place)) for place, word in enumerate(words))
    return f"{total % 2**32:08x}"


ARRAYS = {
    "float32": np.random.default_rng(0).normal(size=(8, 3, 5)).astype(np.float32),
    "int32": np.arange(-6, 10, dtype=np.int32),
    "uint8": np.arange(24, dtype=np.uint8).reshape(8, 3),
    "bfloat16": np.asarray(jnp.linspace(-1, 1, 16, dtype=jnp.bfloat16)),
    "bool": np.array([True, False, True]),
    "scalar": np.float32(2.5),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_it_is_the_sum_over_words(name):
    array = ARRAYS[name]
    assert digests({"a": {"b": array}}) == {"a/b": oracle(np.asarray(array))}


def test_sharding_does_not_change_it(mesh_of):
    array = ARRAYS["float32"]
    expected = oracle(array)
    for devices in (1, 2, 8):
        for spec in (P(), P("data")):
            placed = jax.device_put(array, NamedSharding(mesh_of(devices), spec))
            assert digests([placed]) == {"0": expected}


def test_every_flipped_bit_and_every_swap_changes_it():
    array = ARRAYS["int32"]
    expected = digests([array])
    for place in range(len(array)):
        for bit in range(32):
            flipped = array.view(np.uint32).copy()
            flipped[place] ^= np.uint32(1 << bit)
            assert digests([flipped.view(np.int32)]) != expected
    assert digests([array[::-1]]) != expected
    assert digests([np.zeros(4, np.float32)]) != digests([np.zeros(5, np.float32)])
