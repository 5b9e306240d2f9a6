from __future__ import annotations

import functools
import itertools

import numpy as np

from objective_cases.case import Case, log_sum, of_projections
from snclr_jax.objectives.multi_view import MVDHEL, MVInfoNCE


def mv_infonce(objective, params, state, rows, stopped, step):
    y, tau, losses = rows.projection, objective.temperature, []
    views, images = range(y.shape[0]), range(y.shape[1])
    for i in images:
        met, positives = [], []
        for v, w, j in itertools.product(views, views, images):
            if (v, i) != (w, j):
                met.append(y[v, i] @ y[w, j] / tau)
            if v != w and i == j:
                positives.append(met[-1])
        losses.append(log_sum(met) - log_sum(positives))
    return objective.scale * np.mean(losses)


def mv_dhel(objective, params, state, rows, stopped, step):
    y, tau, losses = rows.projection, objective.temperature, []
    for i in range(y.shape[1]):
        others = [
            log_sum(view[i] @ row / tau for row in np.delete(view, i, axis=0))
            for view in y
        ]
        pairs = itertools.combinations(y[:, i], 2)
        losses.append(sum(others) - log_sum(a @ b / tau for a, b in pairs))
    return objective.scale * np.mean(losses)


def authors(cls, suffix):
    objective = lambda meta: cls(meta["temperature"])  # noqa: E731
    return of_projections("multiview2_w1", objective, suffix=suffix)


CASES = [
    Case(
        cls(temperature=0.3, scale=1.7),
        loss,
        local_views=1,
        recorded=(functools.partial(authors, cls, suffix),),
    )
    for cls, loss, suffix in (
        (MVInfoNCE, mv_infonce, "_mvinfonce"),
        (MVDHEL, mv_dhel, "_mvdhel"),
    )
]
