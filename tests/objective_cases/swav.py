from __future__ import annotations

import functools

import numpy as np

from objective_cases.case import Case, Recorded, load, log_sum, rows_of, views
from objective_cases.snclr import pushed
from snclr_jax.objectives.swav import SwAV
from snclr_jax.queue.ring import NeighborQueue
from snclr_jax.queue.settings import RingSettings


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def codes_of(scores, batch, iterations):
    """Sinkhorn's algorithm as it is written down, on numbers that are no logarithms."""
    q = np.exp(scores)
    q /= q.sum()
    samples, prototypes = q.shape
    for _ in range(iterations):
        for k in range(prototypes):
            q[:, k] /= q[:, k].sum() * prototypes
        for i in range(samples):
            q[i] /= q[i].sum() * samples
    return (q * samples)[:batch]


def codes_of_views(objective, prototypes, state, targets, step):
    codes = []
    for v, target in enumerate(targets):
        others = np.zeros((0, target.shape[1]))
        if objective.queue.size and step >= 4 * objective.queue_from_epoch:
            if (state[v].pushed_at >= 0).all():
                others = state[v].keys
        scores = np.concatenate([target, others]) @ prototypes.T / objective.epsilon
        codes.append(codes_of(scores, len(target), objective.iterations))
    return codes


def metrics(objective, params, state, rows, step):
    prototypes = unit(params["prototypes"])
    codes = codes_of_views(objective, prototypes, state, rows.target, step)
    each = [
        -sum(p * np.log(p) for p in code if p > 0) for view in codes for code in view
    ]
    return {"code_entropy": np.mean(each)}


def loss(objective, params, state, rows, stopped, step):
    fixed = unit(stopped.params["prototypes"])
    # Four steps are an epoch.
    frozen = step < 4 * objective.freeze_epochs
    prototypes = fixed if frozen else unit(params["prototypes"])
    losses = []
    every = codes_of_views(objective, fixed, state, stopped.target, step)
    for v, codes in enumerate(every):
        for w, projection in enumerate(rows.projection):
            if w != v:
                for code, y in zip(codes, projection, strict=True):
                    logits = prototypes @ y / objective.temperature
                    losses.append(-code @ (logits - log_sum(logits)))
    return objective.scale * np.mean(losses)


def state_after(objective, state, rows, step):
    return {
        f"{number}/{name}": array
        for number, queue in enumerate(state)
        for name, array in pushed(
            queue, rows.target[number : number + 1], rows.image_id, step
        ).items()
    }


def authors(name):
    meta, arrays = load(name)
    world = meta["world"]
    proj = [f"proj{v + 1}" for v in range(sum(meta["crops"]))]
    gradients = {"projection": views(arrays, *(f"grad_{x}" for x in proj)) / world}
    prototypes = arrays["prototypes_normalized"][0]
    of_prototypes = arrays["grad_prototypes"].mean(axis=0)
    # Theirs is by the unit rows, ours by what is normalized to them.
    radial = np.sum(of_prototypes * prototypes, axis=1, keepdims=True)
    gradients["prototypes"] = of_prototypes - radial * prototypes
    state, after = empty_queues(), {}
    if meta["bank"]:
        # They shift all rows to write the newest first; a ring overwrites the oldest.
        oldest = meta["bank"] - meta["batch"]
        state = tuple(
            NeighborQueue(
                keys=keys,
                image_id=np.full(meta["bank"], -1, np.int32),
                pushed_at=np.zeros(meta["bank"], np.int32),
                cursor=np.int32(oldest),
            )
            for keys in arrays["bank_before"][0]
        )
        for number, keys in enumerate(arrays["bank_after"][0]):
            after[f"{number}/keys"] = np.roll(keys, -meta["batch"], axis=0)
            after[f"{number}/cursor"] = np.int32(0)
    rows = rows_of(projection=views(arrays, *proj), target=views(arrays, *proj[:2]))
    return Recorded(
        objective=SwAV(
            prototypes=meta["prototypes"],
            temperature=meta["temperature"],
            epsilon=meta["epsilon"],
            iterations=meta["iterations"],
            queue_from_epoch=1.0,
            queue=RingSettings(size=meta["bank"], dtype="float64"),
        ),
        rows=rows,
        loss=arrays["loss"].mean(),
        gradients=gradients,
        params={"prototypes": prototypes},
        state=state,
        state_after=after,
    )


def empty_queues():
    nothing = np.zeros(0, np.int32)
    queue = NeighborQueue(np.zeros((0, 16)), nothing, nothing, np.int32(0))
    return queue, queue


COMMON = dict(
    prototypes=10,
    temperature=0.3,
    epsilon=0.2,
    scale=1.7,
    queue=RingSettings(size=24, dtype="float64"),
)
CASES = [
    Case(
        SwAV(iterations=3, freeze_epochs=1.75, queue_from_epoch=1.75, **COMMON),
        loss,
        state_after,
        metrics=metrics,
        local_views=1,
        stretched=({"epsilon": 1e-3},),
        recorded=tuple(
            functools.partial(authors, name)
            for name in ("swav_w1", "swav_w2", "swav_queue_multicrop_w1")
        ),
    ),
    # One turn, the prototypes are still frozen and the queue is not yet due.
    Case(
        SwAV(iterations=1, freeze_epochs=2.0, queue_from_epoch=2.0, **COMMON),
        loss,
        state_after,
        metrics=metrics,
    ),
]
