from __future__ import annotations

import numpy as np
import oracle

from objective_cases.case import Case, log_sum
from objective_cases.simclr import pairs
from objective_cases.snclr import positiveness, pushed
from snclr_jax.objectives.soft_dcl import SoftDCL
from snclr_jax.objectives.soft_neighbors import Attention
from snclr_jax.queue.settings import QueueSettings


def fold_of(objective, params, dim):
    if objective.attention.kind == "linear":
        return params["w2"].T @ params["w1"]
    return np.eye(dim)


def nearest(objective, state, rows):
    """Returns the rows of the queue that are the neighbors of each image."""

    def allowed(i, r):
        filled = state.pushed_at[r] >= 0
        return filled and state.image_id[r] != rows.image_id[i]

    k = objective.queue.k
    return oracle.find_rows(state.keys, mean_of(rows.target), k, eligible=allowed)


def neighbors(objective, params, state, rows):
    fold = fold_of(objective, params, rows.projection.shape[-1])
    return [
        (near, positiveness(fold @ y, state.keys[near], objective.attention))
        for near, y in zip(
            nearest(objective, state, rows), rows.projection[0], strict=True
        )
    ]


def loss(objective, params, state, rows, stopped, step):
    y, tau, attention = rows.projection, objective.temperature, objective.attention
    fold = fold_of(objective, params, y.shape[-1])
    asked = stopped.projection if attention.stop_gradient else y
    # A warm-up of two epochs of four steps.
    weight = objective.neighbor_weight * min(step / 8, 1)
    found = nearest(objective, state, stopped)
    losses = []
    for v, w in pairs(rows):
        for i, anchor in enumerate(y[v]):
            near, query = state.keys[found[i]], fold @ asked[v, i]
            weights = weight * np.array(positiveness(query, near, attention))
            others = [*np.delete(y[v], i, axis=0), *np.delete(y[w], i, axis=0)]
            away = (1 + weights.sum()) * log_sum(anchor @ r / tau for r in others)
            pulls = [anchor @ y[w, i], *(weights * (near @ anchor))]
            losses.append(away - sum(pulls) / tau)
    return objective.scale * np.mean(losses)


def mean_of(views):
    total = np.sum(views, axis=0)
    return total / np.sqrt((total**2).sum(axis=1, keepdims=True))


def state_after(objective, state, rows, step):
    return pushed(state, mean_of(rows.target)[None], rows.image_id, step)


def case(attention, **fields):
    return Case(
        SoftDCL(
            temperature=0.3,
            scale=1.7,
            # With 7 of 8 steps of the warm-up it is a number of float32, as steps are.
            neighbor_weight=0.5,
            neighbor_warmup_epochs=2.0,
            attention=attention,
            queue=QueueSettings(size=24, k=3, dtype="float64", push="mean"),
        ),
        loss,
        state_after,
        neighbors=neighbors,
        **fields,
    )


CASES = [
    case(Attention("linear", 0.5, gamma=1.3), local_views=1),
    # Where some are cut, the sums of weights differ between views.
    case(Attention(temperature=0.5, threshold=0.3, stop_gradient=True), global_views=3),
]
