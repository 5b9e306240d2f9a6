"""Several steps in one call: what as many calls compute."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from snclr_jax.devices.mesh import place_batch, place_batches, place_everywhere
from snclr_jax.step.train_step import several_steps
from snclr_jax.step.views import Batch


def test_two_calls_of_two_steps_are_four_calls(mesh_of, rng):
    """Of a step whose state depends on the order and the images of every batch."""
    mesh = mesh_of(2)
    pixels = place_everywhere(rng.integers(0, 256, (48, 2, 2, 3), dtype=np.uint8), mesh)
    ids = rng.integers(0, 48, (4, 16), dtype=np.int32)

    @jax.jit
    def step(state, batch):
        assert batch.image_id.shape == (16,)
        seen = jnp.sum(batch.resident[batch.image_id].astype(jnp.int32))
        return state * 3 + seen, {"seen": seen, "first": batch.image_id[0]}

    state, one_by_one = jnp.int32(1), []
    for row in ids:
        state, metrics = step(state, Batch(place_batch(row, mesh), resident=pixels))
        one_by_one.append(metrics)
    again, of_calls = jnp.int32(1), []
    for rows in (ids[:2], ids[2:]):
        batch = Batch(place_batches(rows, mesh), resident=pixels)
        again, metrics = several_steps(step)(again, batch)
        of_calls.append(metrics)
    assert again == state
    for name in ("seen", "first"):
        np.testing.assert_array_equal(
            np.concatenate([metrics[name] for metrics in of_calls]),
            np.stack([metrics[name] for metrics in one_by_one]),
        )
