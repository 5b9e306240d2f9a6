from __future__ import annotations

import numpy as np

from objective_cases.case import Case, log_sum
from objective_cases.simclr import pairs
from objective_cases.soft_dcl import mean_of
from snclr_jax.objectives.memory_dcl import MemoryDCL
from snclr_jax.queue.memory_bank import BankSettings


def searching(objective, state, rows):
    """Returns what each image becomes in the memory, and searches with."""
    momentum, asked = objective.queue.momentum, []
    for image, mean in zip(rows.image_id, mean_of(rows.target), strict=True):
        row = image % len(state.keys)
        if state.image_id[row] == image:
            mean = momentum * state.keys[row] + (1 - momentum) * mean
        asked.append(mean / np.sqrt(mean @ mean))
    return np.array(asked)


def neighbors(objective, params, state, rows):
    """Returns the nearest rows of each image, and their weights."""
    queue, found, nearer = objective.queue, [], []
    for image, asked in zip(
        rows.image_id, searching(objective, state, rows), strict=True
    ):
        others = [
            r
            for r in range(len(state.keys))
            if state.pushed_at[r] >= 0 and state.image_id[r] != image
        ]
        others.sort(key=lambda r: (-(state.keys[r] @ asked), r))
        found.append(others[: queue.k])
        near = state.keys[found[-1]] @ asked
        if len(others) >= queue.rank:
            nearer.append(near - state.keys[others[queue.rank - 1]] @ asked)
        else:
            nearer.append(0 * near)
    mean = np.mean([each.sum() for each in nearer])
    return [
        (near, each / mean if mean else each)
        for near, each in zip(found, nearer, strict=True)
    ]


def loss(objective, params, state, rows, stopped, step):
    y, tau = rows.projection, objective.temperature
    # A warm-up of two epochs of four steps.
    weight = objective.neighbor_weight * min(step / 8, 1)
    found = neighbors(objective, params, state, stopped)
    losses = []
    for v, w in pairs(rows):
        for i, anchor in enumerate(y[v]):
            near, weights = found[i]
            weights = weight * weights
            others = [*np.delete(y[v], i, axis=0), *np.delete(y[w], i, axis=0)]
            away = (1 + weights.sum()) * log_sum(anchor @ r / tau for r in others)
            pulls = [anchor @ y[w, i], *(weights * (state.keys[near] @ anchor))]
            losses.append(away - sum(pulls) / tau)
    return objective.scale * np.mean(losses)


def state_after(objective, state, rows, step):
    after = {
        name: np.array(getattr(state, name))
        for name in ("keys", "image_id", "pushed_at", "cursor")
    }
    for image, row in zip(
        rows.image_id, searching(objective, state, rows), strict=True
    ):
        place = image % len(after["keys"])
        after["keys"][place] = row
        after["image_id"][place] = image
        after["pushed_at"][place] = step
    return after


def case(size, *, k, rank, momentum, **fields):
    return Case(
        MemoryDCL(
            temperature=0.3,
            scale=1.7,
            # With 7 of 8 steps of the warm-up it is a number of float32, as steps are.
            neighbor_weight=2.0,
            neighbor_warmup_epochs=2.0,
            queue=BankSettings(
                size=size, dtype="float64", k=k, rank=rank, momentum=momentum
            ),
        ),
        loss,
        state_after,
        neighbors=neighbors,
        **fields,
    )


CASES = [
    case(24, k=3, rank=5, momentum=0.6, local_views=1),
    # Images share rows.
    case(12, k=2, rank=3, momentum=0.3, global_views=3),
    # A batch is fewer rows than the rank.
    case(24, k=2, rank=10, momentum=0.5),
]
