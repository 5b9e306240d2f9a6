from __future__ import annotations

import functools

import numpy as np

from objective_cases.case import Case, log_sum, of_projections
from snclr_jax.objectives.simclr import SimCLR


def loss(objective, params, state, rows, stopped, step):
    y, tau, losses = rows.projection, objective.temperature, []
    for v, w in pairs(rows):
        for i, anchor in enumerate(y[v]):
            found = [anchor @ r / tau for r in [*y[w], *np.delete(y[v], i, axis=0)]]
            losses.append(log_sum(found) - anchor @ y[w, i] / tau)
    return objective.scale * np.mean(losses)


def pairs(rows):
    """Returns all ordered pairs of different views that are not both local."""
    views, count = range(len(rows.projection)), len(rows.target)
    return [(v, w) for v in views for w in views if v != w and min(v, w) < count]


def lightly(name):
    return of_projections(name, lambda meta: SimCLR(meta["temperature"]))


def google():
    """Both directions are added."""
    objective = lambda meta: SimCLR(meta["temperature"], scale=2.0)  # noqa: E731
    return of_projections("simclr_w1", objective, suffix="_google")


CASES = [
    Case(
        SimCLR(temperature=0.3, scale=1.7),
        loss,
        local_views=2,
        recorded=(
            functools.partial(lightly, "simclr_w1"),
            functools.partial(lightly, "simclr_w2"),
            google,
        ),
    )
]
