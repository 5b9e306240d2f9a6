from __future__ import annotations

import numpy as np
import oracle

from objective_cases.case import Case, Recorded, load, log_sum, rows_of, views
from objective_cases.snclr import pushed
from snclr_jax.objectives.nnclr import NNCLR
from snclr_jax.queue.ring import NeighborQueue
from snclr_jax.queue.settings import QueueSettings


def loss(objective, params, state, rows, stopped, step):
    tau, k, directions = objective.temperature, objective.queue.k, []

    def allowed(i, r):
        filled = state.pushed_at[r] >= 0
        return filled and state.image_id[r] != rows.image_id[i]

    for u, target in enumerate(stopped.target):
        found = oracle.find_rows(state.keys, target, k, eligible=allowed)
        for v, prediction in enumerate(rows.prediction):
            if u == v:
                continue
            losses = []
            for i, each in enumerate(found):
                for n in state.keys[each]:
                    candidates = [
                        n @ z / tau
                        for j, z in enumerate(prediction)
                        if i != j or not objective.decoupled
                    ]
                    losses.append(log_sum(candidates) - n @ prediction[i] / tau)
            directions.append(np.mean(losses) if losses else 0.0)
    return objective.scale * np.mean(directions)


def state_after(objective, state, rows, step):
    places = {"first": slice(0, 1), "second": slice(1, 2), "both": slice(None)}
    remembered = rows.target[places[objective.queue.push]]
    return pushed(state, remembered, rows.image_id, step)


def queue_before(meta, arrays) -> NeighborQueue:
    """Returns the recorded queue, full of rows of no known image."""
    bank = arrays["bank_before"][0]
    rows = np.full(len(bank), -1, np.int32)
    return NeighborQueue(bank, rows, rows + 1, np.int32(meta["ptr"]))


def queue_after(arrays):
    return {"keys": arrays["bank_after"][0], "cursor": arrays["ptr_after"][0]}


def solo_learn():
    meta, arrays = load("nnclr_w1")
    gradient = views(arrays, "grad_pred1", "grad_pred2")
    return Recorded(
        objective=NNCLR(
            temperature=meta["temperature"],
            queue=QueueSettings(meta["bank"], "float64", k=1, push="first"),
        ),
        rows=rows_of(
            prediction=views(arrays, "pred1", "pred2"),
            projection=views(arrays, "proj1", "proj2"),
        ),
        loss=np.mean(arrays["loss"]),
        gradients={"prediction": gradient, "projection": 0 * gradient},
        state=queue_before(meta, arrays),
        state_after=queue_after(arrays),
    )


def case(recorded=(), **fields):
    return Case(
        NNCLR(temperature=0.3, scale=1.7, **fields),
        loss,
        state_after,
        local_views=1,
        recorded=recorded,
    )


CASES = [
    # Blocks of five anchors, of 16 in all.
    case(
        (solo_learn,),
        queue=QueueSettings(24, "float64", block=160, k=2, push="first"),
    ),
    case(decoupled=True, queue=QueueSettings(24, "float64", k=1, push="both")),
]
