from __future__ import annotations

import numpy as np

from objective_cases.case import (
    Case,
    Recorded,
    filled,
    load,
    log_sum,
    ring,
    rows_of,
    views,
)
from objective_cases.snclr import pushed
from snclr_jax.objectives.moco_v2 import MoCoV2
from snclr_jax.queue.settings import RingSettings


def loss(objective, params, state, rows, stopped, step):
    tau, losses = objective.temperature, []
    for v in (v for v in range(len(rows.projection)) if v != 1):
        for y, t in zip(rows.projection[v], rows.target[1], strict=True):
            logits = [y @ t / tau, *(y @ c / tau for c in filled(state))]
            losses.append(log_sum(logits) - logits[0])
    return objective.scale * np.mean(losses)


def state_after(objective, state, rows, step):
    return pushed(state, rows.target[1:2], rows.image_id, step)


def one_direction(name, objective_of):
    """Returns what was recorded of view 1 against the targets of view 2."""
    meta, arrays = load(name)
    projection = views(arrays, "proj1", "proj1")
    gradient = views(arrays, "grad_proj1", "grad_proj1") / meta["world"]
    return Recorded(
        objective=objective_of(meta, arrays),
        # The second view has a target alone, and no gradient.
        rows=rows_of(projection=projection, target=views(arrays, "target2", "target2")),
        loss=np.mean(arrays["loss12"]),
        gradients={"projection": gradient * np.array([1, 0])[:, None, None]},
        state=ring(arrays["bank_before"][0], meta["ptr"]),
        state_after={
            "keys": arrays["bank_after"][0],
            "cursor": arrays["ptr_after"][0],
        },
    )


def recorded():
    def objective_of(meta, arrays):
        queue = RingSettings(meta["bank"], "float64")
        return MoCoV2(temperature=meta["temperature"], queue=queue)

    return one_direction("mocov2_w1", objective_of)


CASES = [
    Case(
        # A device has 6 rows, and meets them in 3 blocks.
        MoCoV2(temperature=0.3, scale=1.7, queue=RingSettings(24, "float64", block=64)),
        loss,
        state_after,
        local_views=1,
        recorded=(recorded,),
    )
]
