"""The features' part, whose recorded rows are not normalized."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import oracle
from objective_cases.case import load, views

from snclr_jax.objectives.all4one import feature_loss

VALUE_AND_GRADIENT = jax.jit(jax.value_and_grad(feature_loss, 1))


def test_the_part_of_features_is_the_recorded_one():
    meta, arrays = load("all4one_w1")
    assert meta["world"] == 1
    with jax.enable_x64(True):
        target = oracle.unit(views(arrays, "target1", "target2"))
        projection = jnp.asarray(views(arrays, "proj1", "proj2"))
        value, gradient = jax.device_get(VALUE_AND_GRADIENT(target, projection))
    np.testing.assert_allclose(10 * value, arrays["loss_feature"][0], rtol=1e-9)
    # Their total has half of it.
    expected = views(arrays, "grad_proj1", "grad_proj2")
    np.testing.assert_allclose(
        5 * gradient, expected, rtol=0, atol=1e-9 * abs(expected).max()
    )


def test_features_that_agree_or_are_missing_send_finite_gradients():
    same = jnp.broadcast_to(jnp.array([1.0, 0.0, 0.0]), (2, 4, 3))
    value, gradient = VALUE_AND_GRADIENT(same, same)
    # Of the nine products one is 1, and the others are 0.
    np.testing.assert_allclose(value, np.sqrt(2 / 3) / 2, rtol=1e-6)
    assert jnp.isfinite(gradient).all()
