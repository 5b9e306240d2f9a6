from __future__ import annotations

import functools

import numpy as np

from objective_cases.case import Case, Recorded, filled, load, log_sum, ring, rows_of
from objective_cases.case import views as views_of
from objective_cases.moco_v2 import state_after
from objective_cases.ressl import entropy, softmax
from snclr_jax.objectives.sce import SCE
from snclr_jax.queue.settings import RingSettings


def candidates(objective, state, rows, u, i):
    others = filled(state)
    if objective.in_batch:
        others += [x for j, x in enumerate(rows.target[u]) if j != i]
    return others


def loss(objective, params, state, rows, stopped, step):
    lam, losses = objective.coefficient, []
    for u in range(len(rows.target)) if objective.symmetric else (1,):
        for v in (v for v in range(len(rows.prediction)) if v != u):
            for i, (z, t) in enumerate(
                zip(rows.prediction[v], rows.target[u], strict=True)
            ):
                others = candidates(objective, state, rows, u, i)
                relations = [t @ c / objective.target_temperature for c in others]
                if objective.positive_in_softmax:
                    share = softmax([0, *relations])
                elif others:
                    share = [0, *softmax(relations)]
                else:
                    share = [1]
                weights = (1 - lam) * np.array(share)
                weights[0] += lam
                logits = [x @ z / objective.temperature for x in (t, *others)]
                losses.append(log_sum(logits) - weights @ logits)
    return objective.scale * np.mean(losses)


def metrics(objective, params, state, rows, step):
    every = []
    for u in range(len(rows.target)) if objective.symmetric else (1,):
        for i in range(len(rows.image_id)):
            others = candidates(objective, state, rows, u, i)
            every.append(entropy(objective, rows.target[u][i], others))
    return {"target_entropy": np.mean(every)}


def recorded(variant):
    """The published code keeps the positive; its variants with keys do not."""
    meta, arrays = load("sce_w1")
    rows = 0 if variant == "_keys" else meta["bank"]
    return Recorded(
        objective=SCE(
            temperature=meta["temperature"],
            target_temperature=meta["target_temperature"],
            coefficient=meta["coefficient"],
            symmetric=True,
            in_batch="keys" in variant,
            positive_in_softmax=not variant,
            queue=RingSettings(rows, "float64"),
        ),
        rows=rows_of(
            prediction=views_of(arrays, "pred1", "pred2"),
            target=views_of(arrays, "target1", "target2"),
        ),
        loss=(arrays["loss12" + variant] + arrays["loss21" + variant])[0] / 2,
        gradients={
            "prediction": views_of(
                arrays, "grad_pred1" + variant, "grad_pred2" + variant
            )
        },
        state=ring(arrays["bank_before"][0][:rows]),
    )


def case(recorded=(), **settings):
    objective = SCE(
        temperature=0.3,
        target_temperature=0.15,
        scale=1.7,
        coefficient=0.4,
        queue=RingSettings(24, "float64", block=96),
        **settings,
    )
    return Case(
        objective,
        loss,
        state_after,
        metrics=metrics,
        local_views=1,
        recorded=recorded,
    )


CASES = [
    case(),
    case(
        tuple(
            functools.partial(recorded, variant)
            for variant in ("", "_keys", "_keys_queue")
        ),
        symmetric=True,
        in_batch=True,
        positive_in_softmax=True,
    ),
]
