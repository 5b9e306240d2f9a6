"""The plain losses against the loops of `oracle.py`, and what they promise."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

from snclr_jax import losses


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
        ({"form": "papr"}, "loss.form 'papr'"),
        ({"temperature": 0.0}, "loss.temperature 0.0"),
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
    with pytest.raises(ValueError, match="attention.temperature 0"):
        losses.positiveness(y, neighbor_keys, temperature=0)
    with pytest.raises(ValueError, match="attention.gamma 0"):
        losses.positiveness(y, neighbor_keys, gamma=0)
