"""Schedules at the steps where their value is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from snclr_jax.step.schedules import ema_momentum, linear_warmup


def test_target_momentum_rises_from_base_to_one():
    values = [float(ema_momentum(s, base=0.6, total_steps=100)) for s in range(120)]
    assert values[0] == pytest.approx(0.6)
    assert values[1] == pytest.approx(1 - 0.2 * (1 + math.cos(math.pi / 100)), abs=1e-6)
    assert values[25] == pytest.approx(1 - 0.2 * (1 + 0.5**0.5))
    assert values[50] == pytest.approx(0.8)
    assert values[99] == pytest.approx(1 - 0.2 * (1 - math.cos(math.pi / 100)))
    assert values[100:] == [1.0] * 20


def test_neighbor_weight_warms_up_linearly():
    values = [float(linear_warmup(step, peak=0.8, warmup_steps=4)) for step in range(7)]
    np.testing.assert_allclose(values, [0, 0.2, 0.4, 0.6, 0.8, 0.8, 0.8], rtol=1e-6)
    assert linear_warmup(0, peak=0.8, warmup_steps=0) == np.float32(0.8)
