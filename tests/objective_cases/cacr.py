from __future__ import annotations

import itertools

import numpy as np

from objective_cases.case import Case, of_projections
from snclr_jax.objectives.cacr import CACR


def loss(objective, params, state, rows, stopped, step):
    parts = metrics(objective, params, state, rows, step)
    return objective.scale * (parts["attraction"] + parts["repulsion"])


def metrics(objective, params, state, rows, step):
    y, pulled, pushed = rows.projection, [], []
    views = range(len(y))
    for v, i in itertools.product(views, range(y.shape[1])):
        far = [distance(y[v, i], y[w, i]) for w in views if w != v]
        pulled.append(expected(far, objective.t_positive))
        for w in views[v + 1 :]:
            near = [distance(y[v, i], row) for row in np.delete(y[w], i, axis=0)]
            pushed.append(expected(near, -objective.t_negative))
    return {"attraction": np.mean(pulled), "repulsion": -np.mean(pushed)}


def distance(a, b):
    return 2 - 2 * (a @ b)


def expected(distances, sharpness):
    weights = [np.exp(sharpness * distance) for distance in distances]
    return np.dot(weights, distances) / np.sum(weights)


def authors():
    def objective(meta):
        assert meta["alpha"] == meta["beta"] == 1
        return CACR(meta["t_positive"], meta["t_negative"])

    return of_projections("cacr_batch_w1", objective)


CASES = [
    Case(
        CACR(t_positive=1.3, t_negative=0.8, scale=1.7),
        loss,
        metrics=metrics,
        local_views=1,
        recorded=(authors,),
        stretched=(dict.fromkeys(("t_positive", "t_negative"), 1e6),),
    )
]
