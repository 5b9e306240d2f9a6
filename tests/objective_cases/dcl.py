from __future__ import annotations

import functools

import numpy as np

from objective_cases.case import Case, log_sum, of_projections
from objective_cases.simclr import pairs
from snclr_jax.objectives.dcl import DCL, DCLW


def loss(objective, params, state, rows, stopped, step):
    y, tau, losses = rows.projection, objective.temperature, []
    for v, w in pairs(rows):
        weights = np.ones(len(y[v]))
        if isinstance(objective, DCLW):
            weights = weights_of(*stopped.projection[[v, w]], objective)
        for i, anchor in enumerate(y[v]):
            others = [*np.delete(y[v], i, axis=0), *np.delete(y[w], i, axis=0)]
            pull = weights[i] * (anchor @ y[w, i]) / tau
            losses.append(log_sum(anchor @ r / tau for r in others) - pull)
    return objective.scale * np.mean(losses)


def weights_of(anchors, positives, objective):
    alike = np.sum(anchors * positives, axis=1) / objective.weight_temperature
    return 2 - len(alike) * np.exp(alike - log_sum(alike))


def dcl(suffix):
    return of_projections("dcl_w1", of_meta(DCL, suffix), suffix=suffix)


def dclw(suffix):
    """One source stops the gradient of the weights, the other does not."""
    objective = of_meta(DCLW, suffix, weight_gradient=bool(suffix))
    return of_projections("dclw_w1", objective, suffix=suffix)


def of_meta(cls, suffix, **fields):
    """One source takes the mean of both directions, the other adds them."""
    fields["scale"] = 2.0 if suffix else 1.0
    return lambda meta: cls(temperature=meta["temperature"], **fields)


CASES = [
    Case(
        DCL(temperature=0.3, scale=1.7),
        loss,
        local_views=2,
        recorded=tuple(functools.partial(dcl, suffix) for suffix in ("", "_nakhli")),
    ),
    Case(
        DCLW(temperature=0.3, scale=1.7, weight_temperature=0.4),
        loss,
        recorded=tuple(functools.partial(dclw, suffix) for suffix in ("", "_nakhli")),
    ),
]
