"""The fused search and loss against the plain functions, on 1 and 8 devices."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from loss_settings import settings_of
from programs import jaxprs

from snclr_jax.objectives import snclr_plain as losses
from snclr_jax.objectives.snclr_fused import search_and_loss
from snclr_jax.queue.ring import find_neighbors, init_queue, push

B, Q, D = 16, 32, 8


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(1)

    def unit(*shape):
        return jnp.asarray(oracle.unit(rng.normal(size=shape)), jnp.float32)

    # Half filled, so that some devices own no eligible row; ids repeat, rows too.
    keys = unit(20, D)
    keys = keys.at[7].set(keys[3])
    image_id = jnp.asarray(rng.integers(0, 24, 20), jnp.int32)
    queue = push(init_queue(Q, D), keys, image_id=image_id, step=2)
    return queue, unit(B, D), unit(B, D), unit(B, D), jnp.arange(B, dtype=jnp.int32)


def plain(queue, z, y, t, image_id, settings, neighbor_weight):
    image_id = image_id if settings.queue.exclude_same_image else None
    neighbors = find_neighbors(
        queue, t, settings.queue.k, image_id=image_id, banks=settings.queue.banks
    )
    weights = losses.positiveness(
        y,
        neighbors.keys,
        valid=neighbors.valid,
        temperature=settings.attention.temperature,
        gamma=settings.attention.gamma,
        threshold=settings.attention.threshold,
    )
    value = losses.soft_neighbor_loss(
        z,
        t,
        neighbors.keys,
        neighbor_weight * weights,
        valid=neighbors.valid,
        form=settings.form,
        temperature=settings.temperature,
        decoupled=settings.decoupled,
    )
    return value, (weights, neighbors)


CASES = {
    "paper": settings_of(),
    "soft cross-entropy": settings_of(form="soft_cross_entropy"),
    "decoupled, same image allowed": settings_of(decoupled=True, exclude=False),
    "two banks": settings_of(k=9, banks=2, form="soft_cross_entropy"),
    "low temperature": settings_of(tau=0.01),
    "no neighbors": settings_of(k=0),
    "more than a device owns": settings_of(k=12),
    "smallest blocks": settings_of(block=1),
    "smallest blocks, decoupled": settings_of(block=1, decoupled=True, banks=2),
    "approximate": settings_of(search="approx"),
}


@pytest.mark.parametrize("devices, names", [(8, CASES), (1, ["two banks", "paper"])])
def test_fused_is_the_plain_form_on_any_mesh(inputs, mesh_of, devices, names):
    queue, z, y, t, image_id = inputs
    mesh = mesh_of(devices)
    for name in names:
        settings = CASES[name]

        def fused(z, y, settings=settings):
            direction = search_and_loss(
                *(queue, z, y, t, image_id),
                settings=settings,
                mesh=mesh,
                neighbor_weight=0.7,
            )
            return direction.value, (direction.weights, direction.neighbors)

        def expected(z, y, settings=settings):
            return plain(queue, z, y, t, image_id, settings, 0.7)

        (value, (weights, found)), gradients = jax.jit(
            jax.value_and_grad(fused, (0, 1), has_aux=True)
        )(z, y)
        (value0, (weights0, found0)), gradients0 = jax.jit(
            jax.value_and_grad(expected, (0, 1), has_aux=True)
        )(z, y)
        np.testing.assert_allclose(value, value0, rtol=1e-5, err_msg=name)
        np.testing.assert_allclose(weights, weights0, atol=1e-6, err_msg=name)
        for ours, theirs in zip(gradients, gradients0, strict=True):
            assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max(), name
        np.testing.assert_array_equal(found.valid, found0.valid, err_msg=name)
        np.testing.assert_array_equal(
            np.where(found.valid, found.row, -1),
            np.where(found0.valid, found0.row, -1),
            err_msg=name,
        )
        for field in ("image_id", "pushed_at"):
            np.testing.assert_array_equal(getattr(found, field), getattr(found0, field))


@pytest.mark.parametrize("devices", [1, 8])
def test_views_that_predict_one_target_are_averaged(inputs, mesh_of, devices):
    queue, z, y, t, image_id = inputs
    settings = settings_of(decoupled=True, banks=2, form="soft_cross_entropy")
    z, y = (jnp.stack([each, each[::-1], jnp.roll(each, 3, axis=1)]) for each in (z, y))

    def fused(z, y):
        direction = search_and_loss(
            queue, z, y, t, image_id, settings=settings, mesh=mesh_of(devices)
        )
        return direction.value, (direction.weights, direction.neighbors)

    def expected(z, y):
        each = [
            plain(queue, z[view], y[view], t, image_id, settings, 1.0)
            for view in range(3)
        ]
        value = sum(value for value, _ in each) / 3
        weights = jnp.stack([weights for _, (weights, _) in each])
        return value, (weights, each[0][1][1])

    (value, (weights, found)), gradients = jax.jit(
        jax.value_and_grad(fused, (0, 1), has_aux=True)
    )(z, y)
    (value0, (weights0, found0)), gradients0 = jax.jit(
        jax.value_and_grad(expected, (0, 1), has_aux=True)
    )(z, y)
    np.testing.assert_allclose(value, value0, rtol=1e-5)
    np.testing.assert_allclose(weights, weights0, atol=1e-6)
    np.testing.assert_array_equal(found.valid, found0.valid)
    for ours, theirs in zip(gradients, gradients0, strict=True):
        assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max()


def test_nothing_larger_than_a_block_exists(mesh_of):
    """Of all arrays in the program, loops included, none holds more than a block."""
    b, q, k, d, block = 128, 4096, 16, 32, 2**14
    settings = settings_of(k=k, block=block)
    queue = init_queue(q, d)

    def loss(z, y, queue, t, image_id):
        return search_and_loss(
            queue, z, y, t, image_id, settings=settings, mesh=mesh_of(1)
        ).value

    rows = jnp.zeros((b, d))
    program = jax.make_jaxpr(jax.grad(loss, (0, 1)))(
        rows, rows, queue, rows, jnp.zeros((b,), jnp.int32)
    )
    largest = max(
        variable.aval.size
        for jaxpr in jaxprs(program.jaxpr)
        for equation in jaxpr.eqns
        for variable in equation.outvars
        if variable.aval.shape != (q, d)
    )
    assert block // 4 <= largest <= block < min(b * q, b * b * k, b * k * d)
