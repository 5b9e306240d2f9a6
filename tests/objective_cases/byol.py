from __future__ import annotations

import numpy as np

from objective_cases.case import Case, Recorded, load, rows_of, views
from snclr_jax.objectives.byol import BYOL


def loss(objective, params, state, rows, stopped, step):
    directions = [
        np.mean([2 - 2 * z @ t for z, t in zip(prediction, target, strict=True)])
        for u, target in enumerate(rows.target)
        for v, prediction in enumerate(rows.prediction)
        if u != v
    ]
    return objective.scale * sum(directions)


def solo_learn():
    _, arrays = load("byol_w1")
    gradient = views(arrays, "grad_pred1", "grad_pred2", "grad_pred3")
    return Recorded(
        objective=BYOL(),
        rows=rows_of(
            prediction=views(arrays, "pred1", "pred2", "pred3"),
            target=views(arrays, "target1", "target2"),
        ),
        loss=np.mean(arrays["loss"]),
        gradients={"prediction": gradient, "projection": 0 * gradient},
    )


CASES = [Case(BYOL(scale=1.7), loss, local_views=1, recorded=(solo_learn,))]
