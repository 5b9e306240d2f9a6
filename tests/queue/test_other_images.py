"""Log-sum-exp over all other images, in blocks, against loops in numpy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from snclr_jax.queue.other_images import log_sum_over_other_images

B, D, TAU = 12, 5, 0.2


def compiled(mesh, block, shape):
    """Returns value and gradients, of rows of this shape, compiled."""
    rows = jax.ShapeDtypeStruct(
        shape, jnp.float32, sharding=NamedSharding(mesh, P(None, "data"))
    )

    def total(query, candidate, pull):
        out = log_sum_over_other_images(
            query, candidate, temperature=TAU, mesh=mesh, block=block
        )
        return jnp.sum(out * pull), out

    pull = jax.ShapeDtypeStruct((shape[0], shape[0], shape[1]), jnp.float32)
    function = jax.jit(jax.value_and_grad(total, argnums=(0, 1), has_aux=True))
    return function.lower(rows, rows, pull).compile()


# One image at a time; blocks of 2 of the 3 images of a device; all at once.
@pytest.mark.parametrize("block", [1, 2 * 4 * 2 * 2 * B, 10**6])
def test_log_sums_and_both_gradients_in_blocks_of_any_size(rng, mesh_of, block):
    query, candidate = (
        oracle.unit(rng.normal(size=(2, B, D))).astype(np.float32) for _ in range(2)
    )
    pull = rng.normal(size=(2, 2, B)).astype(np.float32)
    expected = np.zeros(pull.shape)
    gradients = np.zeros((2, *query.shape))
    for v, w, i in np.ndindex(*pull.shape):
        others = [j for j in range(B) if j != i]
        logits = np.float64(candidate[w, others]) @ query[v, i] / TAU
        expected[v, w, i] = logits.max() + np.log(np.exp(logits - logits.max()).sum())
        share = pull[v, w, i] * np.exp(logits - expected[v, w, i]) / TAU
        gradients[0, v, i] += share @ candidate[w, others]
        gradients[1, w, others] += share[:, None] * query[v, i]
    (_, out), ours = compiled(mesh_of(4), block, query.shape)(query, candidate, pull)
    np.testing.assert_allclose(out, expected, rtol=1e-5)
    np.testing.assert_allclose(np.stack(ours), gradients, atol=1e-5)


def test_similarities_of_all_images_never_exist_at_once(mesh_of):
    batch, block = 512, 2**14
    program = compiled(mesh_of(1), block, (2, batch, D))
    used = program.memory_analysis().temp_size_in_bytes
    assert used < 4 * (2 * batch) ** 2 / 4
