"""Exact top-K in blocks and groups, ties included."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

from snclr_jax.queue.ring import find_neighbors, init_queue, push
from snclr_jax.queue.search import nearest_rows, top_k


@pytest.mark.parametrize("count", [40, 2048, 2049, 4000])
def test_top_k_in_groups_is_top_k(rng, count):
    # Few different values: ties within groups and between them; -inf: masked rows.
    values = rng.integers(0, 60, (5, count)).astype(np.float32)
    values[values < 5] = -np.inf
    values[0] = 1.0
    values[1] = -np.inf
    for k in (1, 7):
        largest, place = jax.jit(top_k, static_argnums=1)(values, k)
        expected = np.argsort(-values, axis=1, kind="stable")[:, :k]
        np.testing.assert_array_equal(place, expected)
        np.testing.assert_array_equal(largest, np.take_along_axis(values, expected, 1))


def test_of_equal_values_in_other_groups_the_first_place_wins():
    """The group of the largest value holds a later one of the three that are equal."""
    values = np.zeros((1, 2048), np.float32)
    values[0, [3, 40, 100, 2000, 2001]] = [5, 7, 5, 9, 5]
    largest, place = top_k(values, 4)
    assert place.tolist() == [[2000, 40, 3, 100]]
    assert largest.tolist() == [[9, 7, 5, 5]]


@pytest.mark.parametrize("block", [1, 640, 5000, 10**6])
def test_blocks_of_queries_and_rows_find_what_the_plain_search_finds(rng, block):
    rows, batch, dim, k = 150, 70, 6, 5
    keys = oracle.unit(rng.normal(size=(rows - 10, dim))).astype(np.float32)
    keys[100:120] = keys[:20]
    image_id = jnp.asarray(rng.integers(0, 50, rows - 10), jnp.int32)
    queue = push(init_queue(rows, dim), keys, image_id=image_id, step=1)
    queries = jnp.asarray(keys[:batch] + 0.1 * rng.normal(size=(batch, dim)), "float32")
    query_id = jnp.arange(batch, dtype=jnp.int32)
    bank, row_bank = jnp.arange(batch) // 35, jnp.arange(rows) // 75
    expected = find_neighbors(queue, queries, k, image_id=query_id, banks=2)
    similarity, row = nearest_rows(
        queue, queries, query_id, bank, row_bank, k=k, block=block
    )
    np.testing.assert_array_equal(row, expected.row)
    np.testing.assert_allclose(similarity, expected.similarity, rtol=1e-6)
