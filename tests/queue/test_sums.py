"""Products and log-sum-exp in blocks, against loops and against JAX's own gradients."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

from snclr_jax.queue.sums import RowList, log_sum_exp, products_with_rows

B, R, D, K = 6, 20, 8, 5
BLOCKS = (1, 200, 10**6)


@pytest.fixture
def arrays(rng):
    def unit(*shape):
        return jnp.asarray(oracle.unit(rng.normal(size=shape)), jnp.float32)

    return unit(B, D), unit(B, D), unit(R, D)


def row_list(multiplicity, excluded=None):
    """Lists rows 3, 4, ... with these multiplicities, filled up by two places."""
    count = len(multiplicity)
    filled = [*multiplicity, 0, 0]
    row = [*range(3, 3 + count), 0, 0]
    return RowList(
        jnp.asarray(row, jnp.int32),
        jnp.asarray(filled, jnp.float32),
        jnp.int32(count),
        None if excluded is None else jnp.asarray(excluded, jnp.int32),
    )


@pytest.mark.parametrize("block", BLOCKS)
def test_products_and_gradients_are_those_of_gathered_rows(rng, arrays, block):
    z, y, keys = arrays
    row = jnp.asarray(rng.integers(0, R, (B, K)), jnp.int32)
    # One image has all K neighbors, and the last block of two holds the fifth alone.
    count = jnp.asarray([0, 1, K, 2, 0, 3], jnp.int32)
    pull = jnp.asarray(rng.normal(size=(2, B, K)), jnp.float32)

    def blockwise(z, y):
        out = products_with_rows((z, y), keys, row, count, block)
        return sum(jnp.vdot(p, each) for p, each in zip(pull, out, strict=True)), out

    def gathered(z, y):
        inside = jnp.arange(K) < count[:, None]
        out = [
            jnp.where(inside, jnp.einsum("bd,bkd->bk", each, keys[row]), 0.0)
            for each in (z, y)
        ]
        return sum(jnp.vdot(p, each) for p, each in zip(pull, out, strict=True)), out

    results = [
        jax.value_and_grad(each, (0, 1), has_aux=True)(z, y)
        for each in (blockwise, gathered)
    ]
    jax.tree.map(
        lambda ours, theirs: np.testing.assert_allclose(ours, theirs, atol=2e-6),
        (results[0][0][0], tuple(results[0][0][1]), results[0][1]),
        (results[1][0][0], tuple(results[1][0][1]), results[1][1]),
    )


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("temperature", [0.2, 0.004])
@pytest.mark.parametrize("excludes", [False, True])
def test_log_sum_exp_and_gradient(rng, arrays, block, temperature, excludes):
    z, _, keys = arrays
    multiplicity = np.array([2.0, 1.0, 3.0, 1.0, 1.0])
    excluded = np.stack([[-1, 1], [0, 2], [4, 3], [-1, -1], [0, 1], [2, 4]])
    listed = row_list(multiplicity, excluded if excludes else None)
    counts = np.tile(multiplicity, (B, 1))
    for image, places in enumerate(excluded if excludes else []):
        for place in places[places >= 0]:
            counts[image, place] -= 1

    def blockwise(z):
        value = log_sum_exp(z, keys, listed, temperature, block)
        return jnp.sum(value * jnp.arange(B)), value

    gradient, value = jax.jit(jax.grad(blockwise, has_aux=True))(z)
    expected, mean = np.zeros(B), np.zeros((B, D))
    for i in range(B):
        logits = np.float64(z[i]) @ np.float64(keys[3:8]).T / temperature
        terms = counts[i] * np.exp(logits - logits.max())
        expected[i] = logits.max() + np.log(terms.sum())
        mean[i] = terms / terms.sum() @ np.float64(keys[3:8])
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    mean *= np.arange(B)[:, None] / temperature
    assert np.abs(gradient - mean).max() <= 1e-5 * np.abs(mean).max()


def test_an_empty_list_is_minus_infinity_without_gradient(arrays):
    z, _, keys = arrays

    def total(z):
        # As the caller adds the parts of several devices.
        return jnp.sum(jnp.exp(log_sum_exp(z, keys, row_list([]), 0.2, 100))) + 1.0

    value, gradient = jax.value_and_grad(total)(z)
    assert value == 1.0
    np.testing.assert_array_equal(gradient, 0.0)
