"""SNCLR as an objective: its attention, what learns from it, what it pushes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from snclr_jax.objectives.snclr import SNCLR
from snclr_jax.objectives.soft_neighbors import Attention
from snclr_jax.queue.ring import init_queue, push
from snclr_jax.queue.settings import QueueSettings
from snclr_jax.step.objective import Now, Seen

LINEAR = SNCLR(attention=Attention("linear"), queue=QueueSettings(size=8, k=2))


def test_linear_attention_starts_as_the_identity(rng):
    params, _ = LINEAR.init(jax.random.key(0), 8)
    y = rng.normal(size=(5, 8)).astype(np.float32)
    np.testing.assert_array_equal(LINEAR.anchor(params, y), y)


def test_cosine_attention_has_no_parameters_and_leaves_the_anchor_alone(rng):
    params, _ = SNCLR().init(jax.random.key(0), 8)
    assert params == {}
    y = rng.normal(size=(5, 8)).astype(np.float32)
    np.testing.assert_array_equal(SNCLR().anchor(params, y), y)


def test_linear_attention_folds_both_projections_into_the_query(rng):
    w1, w2 = rng.normal(size=(2, 8, 8))
    y, c = rng.normal(size=(2, 5, 8))
    params = {"w1": jnp.float32(w1), "w2": jnp.float32(w2)}
    query = np.asarray(LINEAR.anchor(params, jnp.float32(y)))
    for i in range(5):
        for j in range(5):
            expected = np.dot(w1 @ y[i], w2 @ c[j])
            assert np.dot(query[i], c[j]) == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_pushed_views_are_view_major(mesh_of):
    b, dim = 16, 4
    snclr = SNCLR(queue=QueueSettings(size=2 * b, push="both"))
    _, queue = snclr.init(jax.random.key(0), dim)
    targets = jnp.stack([jnp.full((b, dim), 1.0), jnp.full((b, dim), 2.0)])
    seen = Seen(None, None, targets, jnp.arange(b, dtype=jnp.int32))
    now = Now(jnp.int32(0), 1, mesh_of(2))
    queue = jax.jit(lambda seen: snclr.update(queue, seen, now))(seen)
    assert queue.keys[:, 0].tolist() == [1.0] * b + [2.0] * b


def test_a_queue_without_rows_goes_from_step_to_step(mesh_of):
    """Where jaxlib 0.11.2 crashed, or found the rows of its own result elsewhere."""
    mesh, snclr = mesh_of(8), SNCLR(queue=QueueSettings(size=0, k=0))
    _, queue = snclr.init(jax.random.key(0), 4)
    place = lambda leaf, spec: jax.device_put(leaf, jax.NamedSharding(mesh, spec))  # noqa: E731
    queue = jax.tree.map(place, queue, snclr.specs(queue))
    rows = jax.device_put(jnp.ones((2, 8, 4)), jax.NamedSharding(mesh, P(None, "data")))
    seen = Seen(rows, rows, rows, jnp.arange(8, dtype=jnp.int32))

    def update(queue, seen):
        return snclr.update(queue, seen, Now(jnp.int32(0), 1, mesh))

    compiled = jax.jit(update).lower(queue, seen).compile()
    assert compiled(compiled(queue, seen), seen).keys.shape == (0, 4)


def test_the_gradient_switch_cuts_the_anchor_but_not_the_matrices(mesh_of, rng):
    # No neighbor is as near as another: weights that are equal have no gradient.
    y = jnp.float32(rng.normal(size=(2, 8)) / 8**0.5)
    rows, image_id = jnp.eye(2, 8), jnp.array([8, 9])
    queue = push(init_queue(8, 8), jnp.eye(8), image_id=jnp.arange(8), step=0)
    now = Now(jnp.int32(1), 1, mesh_of(1))

    def gradients(stop):
        attention = Attention("linear", stop_gradient=stop)
        snclr = SNCLR(attention=attention, queue=QueueSettings(size=8, k=2))
        params, _ = snclr.init(jax.random.key(0), 8)

        def total(params, y):
            seen = Seen(y[None], rows[None], rows[None], image_id)
            return jnp.sum(snclr.loss(params, queue, _twice(seen), now)[0])

        return jax.jit(jax.grad(total, (0, 1)))(params, y)

    for stop in (False, True):
        params, into_y = gradients(stop)
        assert all(jnp.abs(leaf).max() > 1e-3 for leaf in params.values())
        assert jnp.abs(into_y).max() == 0 if stop else jnp.abs(into_y).max() > 1e-3


def _twice(seen):
    """One view as two."""
    return Seen(*(jnp.concatenate([x, x]) for x in seen[:3]), seen.image_id)
