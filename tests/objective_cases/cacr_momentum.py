from __future__ import annotations

import functools

import numpy as np

from objective_cases.case import Case, Recorded, load, log_sum, rows_of, views
from snclr_jax.objectives.cacr_momentum import CACRMomentum


def loss(objective, params, state, rows, stopped, step):
    tau, losses = objective.temperature, []
    costs = {"rbf": rbf, "euclidean": euclidean}
    for u, target in enumerate(rows.target):
        others = [v for v in range(len(rows.prediction)) if v != u]
        for i, t in enumerate(target):
            far = [-2 * stopped.prediction[v, i] @ t / tau for v in others]
            shares = np.exp(np.array(far) - log_sum(far))
            each = [
                costs[objective.cost](
                    rows.prediction[v, i], stopped.prediction[v, i], target, i, tau
                )
                for v in others
            ]
            losses.append(shares @ each)
    return objective.scale * np.mean(losses)


def rbf(z, stopped, target, i, tau):
    return log_sum(z @ t / tau for t in target) - z @ target[i] / tau


def euclidean(z, stopped, target, i, tau):
    others = np.delete(target, i, axis=0)
    near = -(1 - others @ stopped) / tau
    return (1 - z @ target[i]) - np.exp(near - log_sum(near)) @ (1 - others @ z)


def authors(name, variant, targets, count=4):
    """Reads a loss of some targets, of `count` views."""
    meta, arrays = load(name)
    world, tau = meta["world"], meta["temperature"]
    # Their Euclidean form adds over the images of a process.
    scale = 2 * tau if meta["cost"] == "rbf" else meta["batch"]
    numbers = range(1, count + 1)
    names = [f"grad_pred{v}_{variant}" for v in numbers]
    gradient = views(arrays, *names) / world
    return Recorded(
        objective=CACRMomentum(cost=meta["cost"], temperature=tau, scale=scale),
        rows=rows_of(
            prediction=views(arrays, *(f"pred{v}" for v in numbers)),
            target=views(arrays, *(f"target{v}" for v in range(1, targets + 1))),
        ),
        loss=np.mean(arrays[f"loss_{variant}"]),
        gradients={"prediction": gradient, "projection": 0 * gradient},
    )


def case(cost, *recorded):
    return Case(
        CACRMomentum(cost=cost, temperature=0.3, scale=1.7),
        loss,
        local_views=1,
        recorded=tuple(functools.partial(authors, *each) for each in recorded),
    )


CASES = [
    case(
        "rbf",
        ("cacr_rbf_w1", "light", 2),
        ("cacr_rbf_w1", "full", 4),
        ("cacr_rbf_w1", "two_views", 2, 2),
    ),
    case(
        "euclidean",
        ("cacr_euclidean_w1", "light", 2),
        ("cacr_euclidean_w1", "full", 4),
        ("cacr_euclidean_w2", "light", 2),
    ),
]
