from __future__ import annotations

import functools

import numpy as np

from objective_cases.case import Case, Recorded, load, log_sum, rows_of, views
from snclr_jax.objectives.info_nce import InfoNCE


def loss(objective, params, state, rows, stopped, step):
    tau, losses = objective.temperature, []
    for u, target in enumerate(rows.target):
        for v, prediction in enumerate(rows.prediction):
            if u != v:
                for i, z in enumerate(prediction):
                    everyone = log_sum(z @ t / tau for t in target)
                    losses.append(everyone - z @ target[i] / tau)
    return objective.scale * np.mean(losses)


def mocov3(name):
    meta, arrays = load(name)
    tau, world = meta["temperature"], meta["world"]
    gradient = views(arrays, "grad_pred1", "grad_pred2") / world
    return Recorded(
        objective=InfoNCE(temperature=tau, scale=4 * tau),
        rows=rows_of(
            prediction=views(arrays, "pred1", "pred2"),
            target=views(arrays, "target1", "target2"),
        ),
        loss=np.mean(arrays["loss12"] + arrays["loss21"]),
        gradients={"prediction": gradient, "projection": 0 * gradient},
    )


CASES = [
    Case(
        InfoNCE(temperature=0.3, scale=1.7),
        loss,
        local_views=1,
        recorded=(
            functools.partial(mocov3, "mocov3_w1"),
            functools.partial(mocov3, "mocov3_w2"),
        ),
    )
]
