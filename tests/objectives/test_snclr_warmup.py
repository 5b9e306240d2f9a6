"""The weight of all neighbors at the steps where its value is known."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from snclr_jax.objectives.snclr import SNCLR
from snclr_jax.step.objective import Now

NO_MESH: Any = None


def weights(epochs):
    objective = SNCLR(neighbor_weight=0.8, neighbor_warmup_epochs=epochs)
    steps = [Now(jnp.int32(step), 8, NO_MESH) for step in range(7)]
    return [objective.weight_now(now) for now in steps]


def test_neighbor_weight_warms_up_linearly():
    expected = [0, 0.2, 0.4, 0.6, 0.8, 0.8, 0.8]
    np.testing.assert_allclose(weights(0.5), expected, rtol=1e-6)
    assert weights(0.0) == [np.float32(0.8)] * 7
