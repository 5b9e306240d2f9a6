from __future__ import annotations

import functools

import numpy as np

from objective_cases.case import Case, Recorded, load, rows_of, views
from snclr_jax.objectives.groco import GroCo


def shares(x, steepness):
    """Returns the matrix (place, value) of what ends where, layer by layer."""
    x, matrix = np.array(x), np.eye(len(x))
    for layer in range(len(x)):
        for left in range(layer % 2, len(x) - 1, 2):
            pair = [left, left + 1]
            a = 0.5 + np.arctan(steepness * (x[left + 1] - x[left])) / np.pi
            mix = np.array([[a, 1 - a], [1 - a, a]])
            x[pair], matrix[pair] = mix @ x[pair], mix @ matrix[pair]
    return matrix


def loss(objective, params, state, rows, stopped, step):
    k, losses = objective.negatives, []
    for v, projection in enumerate(rows.projection):
        of_view = []
        for i, y in enumerate(projection):
            # Which rows are nearest is fixed, and so is their order.
            fixed = stopped.projection[v]
            others = [j for j in range(len(fixed)) if j != i]
            nearest = sorted(others, key=lambda j: fixed[i] @ fixed[j])[-k:]
            x = [y @ fixed[j] for j in nearest]
            positives = [t[i] for w, t in enumerate(stopped.target) if w != v]
            x += [y @ t for t in sorted(positives, key=lambda t: fixed[i] @ t)]
            matrix = shares(x, objective.steepness)
            of_view += [
                -np.log(matrix[:k, m].sum() if m < k else matrix[k:, m].sum())
                for m in range(len(x))
            ]
        losses.append(np.mean(of_view))
    return objective.scale * np.mean(losses)


def authors(variant, count, positives):
    meta, arrays = load("groco_w1")
    proj = [f"proj{v + 1}" for v in range(count)]
    gradients = views(arrays, *(f"grad_{name}_{variant}" for name in proj))
    rows = rows_of(
        projection=views(arrays, *proj), target=views(arrays, *proj[:positives])
    )
    return Recorded(
        objective=GroCo(meta["top_negatives"], float(meta["steepness"])),
        rows=rows,
        loss=arrays[f"loss_{variant}"].mean(),
        gradients={"projection": gradients},
    )


CASES = [
    Case(
        GroCo(negatives=3, steepness=2.5, scale=1.7),
        loss,
        local_views=1,
        recorded=(
            functools.partial(authors, "two_views", 2, 2),
            functools.partial(authors, "four_views", 4, 4),
            functools.partial(authors, "multicrop", 4, 2),
        ),
        stretched=({"steepness": 100.0, "negatives": 7},),
    )
]
