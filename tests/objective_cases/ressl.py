from __future__ import annotations

import functools

import numpy as np

from objective_cases import moco_v2
from objective_cases.case import Case, filled, log_sum
from snclr_jax.objectives.ressl import ReSSL
from snclr_jax.queue.settings import RingSettings


def softmax(logits):
    return np.exp(np.array(logits) - log_sum(logits)) if len(logits) else []


def loss(objective, params, state, rows, stopped, step):
    tau, rows_of_queue, losses = objective.temperature, filled(state), []
    if not rows_of_queue:
        return 0.0
    for v in (v for v in range(len(rows.projection)) if v != 1):
        for y, t in zip(rows.projection[v], rows.target[1], strict=True):
            aim = softmax([t @ c / objective.target_temperature for c in rows_of_queue])
            shown = softmax([y @ c / tau for c in rows_of_queue])
            losses.append(-sum(p * np.log(q) for p, q in zip(aim, shown, strict=True)))
    return objective.scale * np.mean(losses)


def metrics(objective, params, state, rows, step):
    every = [entropy(objective, t, filled(state)) for t in rows.target[1]]
    return {"target_entropy": np.mean(every)}


def entropy(objective, target, candidates):
    """Returns that of the softmax of a target over the candidates."""
    aim = softmax([target @ c / objective.target_temperature for c in candidates])
    return -sum(p * np.log(p) for p in aim) if len(aim) else 0.0


def recorded(name):
    def objective_of(meta, arrays):
        return ReSSL(
            temperature=meta["temperature"],
            target_temperature=meta["target_temperature"],
            queue=RingSettings(meta["bank"], "float64"),
        )

    return moco_v2.one_direction(name, objective_of)


CASES = [
    Case(
        ReSSL(
            temperature=0.3,
            target_temperature=0.15,
            scale=1.7,
            queue=RingSettings(24, "float64", block=64),
        ),
        loss,
        moco_v2.state_after,
        metrics=metrics,
        local_views=1,
        recorded=tuple(
            functools.partial(recorded, name) for name in ("ressl_w1", "ressl_w2")
        ),
    )
]
