"""Attraction and repulsion, which CACR reports beside its loss."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import oracle
from objective_cases.case import load, views

from snclr_jax.objectives.cacr import CACR
from snclr_jax.step.objective import Now, Seen


def test_metrics_are_the_recorded_parts_of_the_loss(mesh_of):
    meta, arrays = load("cacr_batch_w1")
    objective = CACR(meta["t_positive"], meta["t_negative"], scale=3.0)
    rows = views(arrays, *(f"proj{number}" for number in range(1, meta["views"] + 1)))
    now = Now(jnp.int32(0), 1, mesh_of(1))
    with jax.enable_x64(True):
        y = jnp.asarray(oracle.unit(rows))
        seen = Seen(y, y, y[:2], jnp.arange(y.shape[1]))
        _, aux = objective.loss({}, (), seen, now)
    metrics = objective.metrics(aux, seen, None, now)
    assert {shown.metric for shown in objective.shown} == set(metrics)
    for name, value in metrics.items():
        np.testing.assert_allclose(value, arrays[f"loss_{name}"][0], rtol=1e-9)
