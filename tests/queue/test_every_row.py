"""Sums over every row that counts, on 4 devices, against loops."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from snclr_jax.queue.every_row import (
    log_sum_over_rows,
    merged,
    softmax_entropy,
    softmax_over_rows,
)

V, B, D, TAU = 2, 8, 6, 0.2
# Which of the rows count: none, the last, every third, those of the second device, all.
COUNTED = {
    "none": lambda r, n: False,
    "last": lambda r, n: r == n - 1,
    "some": lambda r, n: r % 3 == 1,
    "one device": lambda r, n: n // 4 <= r < n // 2,
    "all": lambda r, n: True,
}


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@functools.cache
def compiled(mesh, block, but_own):
    settings = dict(temperature=TAU, block=block, mesh=mesh, but_own=but_own)

    @jax.jit
    def results(query, keys, counted, pull):
        def total(query):
            value = log_sum_over_rows(query, keys, counted, **settings)
            return jnp.sum(pull * jnp.where(jnp.isfinite(value), value, 0.0)), value

        (_, value), gradient = jax.value_and_grad(total, has_aux=True)(query)
        return value, gradient, *softmax_over_rows(query, keys, counted, **settings)

    return results


def expected(query, keys, counted, but_own):
    log_sum, mean = np.full((V, B), -np.inf), np.zeros((V, B, D))
    for v in range(V):
        for i in range(B):
            rows = [
                row
                for r, row in enumerate(keys)
                if counted[r] and not (but_own and r == i)
            ]
            if rows:
                logits = np.array([query[v, i] @ row / TAU for row in rows])
                top = logits.max()
                log_sum[v, i] = top + np.log(np.exp(logits - top).sum())
                mean[v, i] = np.exp(logits - log_sum[v, i]) @ np.array(rows)
    return log_sum, mean


@pytest.mark.parametrize("counts", COUNTED)
@pytest.mark.parametrize(
    ("rows", "block", "but_own"),
    # A device has 5 rows, in one block, or in three of which the last is not full; or
    # those of its 2 images.
    [(20, 10**6, False), (20, 4 * V * B, False), (B, 2 * V * B, True)],
    ids=["whole", "blocks", "but own"],
)
def test_sums_means_and_gradients_are_those_of_loops(
    rng, mesh_of, rows, block, but_own, counts
):
    mesh = mesh_of(4)
    query = oracle.unit(rng.normal(size=(V, B, D)))
    keys = oracle.unit(rng.normal(size=(rows, D)))
    counted = np.array([COUNTED[counts](r, rows) for r in range(rows)])
    pull = rng.normal(size=(V, B))
    put = lambda x, spec: jax.device_put(x, NamedSharding(mesh, spec))  # noqa: E731
    value, gradient, log_sum, mean = compiled(mesh, block, but_own)(
        put(query, P(None, "data")), put(keys, P("data")), counted, pull
    )
    of_loops, mean_of_loops = expected(query, keys, counted, but_own)
    np.testing.assert_allclose(value, of_loops, rtol=1e-12)
    np.testing.assert_allclose(log_sum, of_loops, rtol=1e-12)
    np.testing.assert_allclose(mean, mean_of_loops, atol=1e-14)
    pulled = pull[..., None] * mean_of_loops / TAU
    np.testing.assert_allclose(gradient, pulled, atol=1e-12)


def test_softmaxes_over_lists_are_merged_and_have_their_entropy(rng):
    query = oracle.unit(rng.normal(size=(V, B, D)))
    lists = oracle.unit(rng.normal(size=(3, 4, D)))
    parts = [expected(query, rows, np.ones(4, bool), False) for rows in lists]
    parts.append(expected(query, lists[0], np.zeros(4, bool), False))
    log_sum, mean = merged(*(jnp.stack(x) for x in zip(*parts, strict=True)))
    of_all, mean_of_all = expected(query, lists.reshape(-1, D), np.ones(12), False)
    np.testing.assert_allclose(log_sum, of_all, rtol=1e-12)
    np.testing.assert_allclose(mean, mean_of_all, atol=1e-14)
    shares = np.exp(query @ lists.reshape(-1, D).T / TAU - of_all[..., None])
    np.testing.assert_allclose(
        softmax_entropy(query, log_sum, mean, temperature=TAU),
        -np.sum(shares * np.log(shares), axis=-1),
        rtol=1e-9,
    )


def test_no_rows_in_any_list_are_minus_infinity_and_zeros(rng):
    query = oracle.unit(rng.normal(size=(V, B, D)))
    nothing = jnp.full((2, V, B), -jnp.inf), jnp.zeros((2, V, B, D))
    log_sum, mean = merged(*nothing)
    assert np.all(log_sum == -np.inf) and not np.any(mean)
    entropy = softmax_entropy(query, log_sum, mean, temperature=TAU)
    np.testing.assert_array_equal(entropy, 0.0)
