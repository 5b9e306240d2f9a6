"""Both forms; objectives/test_snclr*.py and step/ look at SNCLR much closer."""

from __future__ import annotations

import numpy as np
import oracle

from objective_cases.case import Case
from snclr_jax.objectives.snclr import SNCLR
from snclr_jax.objectives.soft_neighbors import Attention
from snclr_jax.queue.settings import QueueSettings


def loss(objective, params, state, rows, stopped, step):
    attention, queue, losses = objective.attention, objective.queue, []
    fold = np.eye(rows.target.shape[-1])
    if attention.kind == "linear":
        fold = params["w2"].T @ params["w1"]
    # A warm-up of two epochs of four steps.
    weight = objective.neighbor_weight * min(step / 8, 1)

    def allowed(i, r):
        filled = state.pushed_at[r] >= 0
        return filled and state.image_id[r] != rows.image_id[i]

    for u, target in enumerate(stopped.target):
        found = oracle.find_rows(state.keys, target, queue.k, eligible=allowed)
        neighbors = [[state.keys[r] for r in each] for each in found]
        for v, z in enumerate(rows.prediction):
            if u != v:
                weights = [
                    weight * np.array(positiveness(fold @ y, each, attention))
                    for y, each in zip(rows.projection[v], neighbors, strict=True)
                ]
                settings = dict(
                    tau=objective.temperature,
                    form=objective.form,
                    decoupled=objective.decoupled,
                )
                losses.append(oracle.loss(z, target, neighbors, weights, **settings))
    return objective.scale * np.mean(losses)


def positiveness(anchor, neighbors, attention):
    if not len(neighbors):
        return []
    settings = dict(
        temperature=attention.temperature,
        gamma=attention.gamma,
        threshold=attention.threshold,
    )
    return oracle.positiveness(anchor, neighbors, **settings)


def state_after(objective, state, rows, step):
    return pushed(state, rows.target[1:2], rows.image_id, step)


def pushed(state, targets, image_id, step):
    """Returns the arrays of a queue after rows (n, b, d) were pushed, one by one."""
    queue = {
        name: np.array(getattr(state, name))
        for name in ("keys", "image_id", "pushed_at", "cursor")
    }
    for target in targets:
        oracle.push(queue, target, image_id, step)
    return queue


CASES = [
    Case(
        SNCLR(
            form=form,
            temperature=0.3,
            scale=1.7,
            decoupled=decoupled,
            # With 7 of 8 steps of the warm-up it is a number of float32, as steps are.
            neighbor_weight=0.5,
            neighbor_warmup_epochs=2.0,
            attention=Attention(kind, temperature=0.5, gamma=1.3),
            queue=QueueSettings(size=24, k=3, dtype="float64"),
        ),
        loss,
        state_after,
        local_views=1,
    )
    for form, kind, decoupled in (
        ("paper", "linear", False),
        ("soft_cross_entropy", "cosine", True),
    )
]
