"""Positiveness at the edges: what is cut, and what is divided when."""

from __future__ import annotations

import numpy as np
import pytest

from snclr_jax.objectives.snclr_plain import positiveness

ANCHOR = np.array([[1.0, 0.0]], np.float32)
EQUAL = np.array([[[0.6, 0.8], [0.6, -0.8]]], np.float32)


@pytest.mark.parametrize(
    ("threshold", "gamma", "weight"),
    [
        (None, 1.0, 0.5),
        (0.5, 1.0, 0.0),  # at the threshold, which 1 / K of equal neighbors is
        (0.49, 1.0, 0.5),
        (0.4, 4.0, 0.125),  # compared before it is divided by gamma
    ],
)
def test_weights_at_or_below_the_threshold_are_cut(threshold, gamma, weight):
    weights = positiveness(ANCHOR, EQUAL, threshold=threshold, gamma=gamma)
    assert weights.tolist() == [[weight, weight]]


def test_what_is_left_is_not_renormalized():
    keys = np.array([[[1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]], np.float32)
    weights = positiveness(ANCHOR, keys, threshold=0.3)
    np.testing.assert_allclose(weights, [[np.e / (np.e + 2), 0, 0]], rtol=1e-6)


def test_a_missing_neighbor_takes_no_share():
    valid = np.array([[True, False]])
    assert positiveness(ANCHOR, EQUAL, valid=valid).tolist() == [[1, 0]]
