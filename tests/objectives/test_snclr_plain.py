"""The plain losses against the loops of `oracle.py`, and what they promise."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

from snclr_jax.objectives import snclr_plain as losses


def unit(rng, *shape):
    return oracle.unit(rng.normal(size=shape)).astype(np.float32)


@pytest.fixture
def inputs(rng):
    b, k, d = 6, 4, 8
    neighbor_keys = unit(rng, b, k, d)
    valid = rng.random((b, k)) < 0.7
    valid[2] = False  # an image without any neighbor
    return unit(rng, b, d), unit(rng, b, d), unit(rng, b, d), neighbor_keys, valid


def lists(neighbor_keys, valid):
    return [
        [c for c, ok in zip(row, oks, strict=True) if ok]
        for row, oks in zip(neighbor_keys, valid, strict=True)
    ]


@pytest.mark.parametrize("form", losses.FORMS)
@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("tau", [0.2, 0.02])
def test_loss_is_the_equation(inputs, form, decoupled, tau):
    z, t, y, neighbor_keys, valid = inputs
    weights = losses.positiveness(y, neighbor_keys, valid=valid, temperature=0.5)
    found = lists(neighbor_keys, valid)
    expected_weights = [
        oracle.positiveness(a, n, temperature=0.5)
        for a, n in zip(y, found, strict=True)
    ]
    for row, oks, expected in zip(weights, valid, expected_weights, strict=True):
        np.testing.assert_allclose(row[oks], expected, rtol=1e-5)
        assert not np.any(row[~oks])
    value = losses.soft_neighbor_loss(
        z,
        t,
        neighbor_keys,
        weights,
        temperature=tau,
        form=form,
        valid=valid,
        decoupled=decoupled,
    )
    expected = oracle.loss(
        *(x.astype(np.float64) for x in (z, t)),
        found,
        expected_weights,
        tau=tau,
        form=form,
        decoupled=decoupled,
    )
    np.testing.assert_allclose(value, expected, rtol=2e-5)


@pytest.mark.parametrize("form", losses.FORMS)
def test_without_neighbors_both_forms_are_info_nce(inputs, form):
    z, t, _, neighbor_keys, _ = inputs
    value = losses.soft_neighbor_loss(
        z, t, neighbor_keys[:, :0], jnp.zeros((6, 0)), temperature=0.2, form=form
    )
    logits = z.astype(np.float64) @ t.T / 0.2
    expected = np.mean(np.log(np.exp(logits).sum(1)) - np.diag(logits))
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_array_equal(value, losses.info_nce(z, t, temperature=0.2))


@pytest.mark.parametrize("form", losses.FORMS)
def test_gradients_are_finite_without_any_neighbor(inputs, form):
    z, t, y, neighbor_keys, _ = inputs
    none = np.zeros(neighbor_keys.shape[:2], bool)

    def value(z, y):
        weights = losses.positiveness(y, neighbor_keys, valid=none)
        return losses.soft_neighbor_loss(
            z, t, neighbor_keys, weights, temperature=0.2, form=form, valid=none
        )

    gradients = jax.grad(value, argnums=(0, 1))(z, y)
    assert all(np.isfinite(g).all() for g in gradients)
    np.testing.assert_allclose(value(z, y), losses.info_nce(z, t, temperature=0.2))


def test_positiveness_of_a_far_neighbor_can_be_cut(rng):
    y, keys = unit(rng, 5, 8), unit(rng, 5, 4, 8)
    weights = losses.positiveness(y, keys, threshold=0.25, gamma=2.0)
    for row, a, n in zip(weights, y, keys, strict=True):
        expected = oracle.positiveness(a, n, threshold=0.25, gamma=2.0)
        np.testing.assert_allclose(row, expected, rtol=1e-5)
    assert np.any(np.asarray(weights) == 0)


def test_attention_sends_gradient_into_the_anchor(inputs):
    _, _, y, neighbor_keys, _ = inputs

    def spread(y):
        return jnp.sum(losses.positiveness(y, neighbor_keys) ** 2)

    assert np.abs(jax.grad(spread)(y)).max() > 1e-3


@pytest.mark.parametrize(
    "change, message",
    [
        ({"form": "papr"}, "objective.form 'papr'"),
        ({"temperature": 0.0}, "objective.temperature 0.0"),
    ],
)
def test_bad_settings_are_named(inputs, change, message):
    z, t, _, neighbor_keys, _ = inputs
    settings = {"temperature": 0.2, "form": "paper"} | change
    with pytest.raises(ValueError, match=message):
        losses.soft_neighbor_loss(z, t, neighbor_keys, jnp.ones((6, 4)), **settings)


def test_decoupled_loss_of_one_image_is_refused(inputs):
    z, t, _, neighbor_keys, _ = (x[:1] for x in inputs)
    with pytest.raises(ValueError, match="batch of 1"):
        losses.soft_neighbor_loss(
            z, t, neighbor_keys, jnp.ones((1, 4)), temperature=0.2, decoupled=True
        )


def test_positiveness_rejects_a_temperature_of_zero(inputs):
    _, _, y, neighbor_keys, _ = inputs
    with pytest.raises(ValueError, match="objective.attention.temperature 0"):
        losses.positiveness(y, neighbor_keys, temperature=0)
    with pytest.raises(ValueError, match="objective.attention.gamma 0"):
        losses.positiveness(y, neighbor_keys, gamma=0)


def test_a_neighbor_without_weight_does_not_shift_the_exponents():
    """Its product is 100 above the positive's, where float32 ends at 87."""
    z, t = jnp.eye(2), jnp.array([[-1.0, 0.0], [0.0, 1.0]])
    neighbor_keys = jnp.eye(2)[:, None]

    def value(z, weights):
        return losses.soft_neighbor_loss(z, t, neighbor_keys, weights, temperature=0.02)

    found, gradients = jax.value_and_grad(value, (0, 1))(z, jnp.zeros((2, 1)))
    # Image 0: log(exp(-50) + exp(50) + 2) + 50. Image 1: log(2 exp(50) + 2) - 50.
    assert found == pytest.approx((100 + np.log(2)) / 2, rel=1e-6)
    # Image 0 is pushed from its neighbor, pulled to its positive; image 1 is at rest.
    np.testing.assert_allclose(gradients[0], [[50, 0], [0, 0]], atol=1e-4)
    np.testing.assert_array_equal(gradients[1], 0)


def rows_about(rng, direction, spread, *shape):
    """Unit rows near a direction, so that products reach 1 and -1."""
    rows = direction + spread * rng.normal(size=(*shape, direction.shape[-1]))
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("form", losses.FORMS)
@pytest.mark.parametrize("tau", [0.005, 0.01])
@pytest.mark.parametrize("temperature, threshold", [(0.01, None), (0.1, 0.9)])
def test_low_temperatures_keep_the_exact_value(form, tau, temperature, threshold):
    """Positives far below neighbors whose weights vanish, or are cut."""
    settings = {"temperature": temperature, "threshold": threshold}
    for seed in range(4):
        rng = np.random.default_rng(seed)
        axis = np.eye(8)[0]
        z = rows_about(rng, axis, 0.1, 4)
        t = rows_about(rng, -axis, 0.4, 4)
        y = rows_about(rng, -axis, 0.4, 4)
        neighbor_keys = rows_about(rng, axis, 0.5, 4, 3)
        neighbor_keys[:, 1:] *= -1
        lists = list(neighbor_keys.astype(np.float64))

        def value(z, y, neighbor_keys=neighbor_keys, t=t):
            weights = losses.positiveness(y, neighbor_keys, **settings)
            return losses.soft_neighbor_loss(
                z, t, neighbor_keys, weights, temperature=tau, form=form
            )

        found, (by_z, by_y) = jax.value_and_grad(value, (0, 1))(z, y)
        weights, jacobians = [], []
        for anchor, neighbors in zip(y.astype(np.float64), lists, strict=True):
            w, rows = oracle.weights_and_jacobian(anchor, neighbors, **settings)
            # Float32 holds no smaller weight.
            kept = np.asarray(w) >= np.finfo(np.float32).tiny
            weights.append(kept * w)
            jacobians.append(kept[:, None] * rows)
        expected, expected_by_z, by_weights = oracle.loss_and_gradients(
            z.astype(np.float64),
            t.astype(np.float64),
            lists,
            weights,
            tau=tau,
            form=form,
        )
        expected_by_y = [
            g @ rows for g, rows in zip(by_weights, jacobians, strict=True)
        ]
        np.testing.assert_allclose(found, expected, rtol=1e-5)
        # Gradients are differences of means of unit rows, over tau and temperature.
        np.testing.assert_allclose(by_z, expected_by_z, atol=1e-5 / tau)
        np.testing.assert_allclose(by_y, expected_by_y, atol=1e-5 / tau / temperature)
