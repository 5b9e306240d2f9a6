"""Barlow Twins and VICReg, whose rows are not normalized."""

from __future__ import annotations

import functools

import numpy as np

from objective_cases.case import Case, Recorded, load, rows_of, views
from snclr_jax.objectives.covariance import BarlowTwins, VICReg


def mean_over_pairs(objective, rows, of_pair):
    losses = [
        of_pair(rows.projection[u], rows.projection[v])
        for u in range(len(rows.target))
        for v in range(len(rows.projection))
        if u != v
    ]
    return objective.scale * np.mean(losses)


def barlow_loss(objective, params, state, rows, stopped, step):
    def normalized(column):
        return (column - column.mean()) / np.sqrt(column.var() + 1e-5)

    def of_pair(y, z):
        total = 0.0
        for d, left in enumerate(y.T):
            for e, right in enumerate(z.T):
                correlation = np.mean(normalized(left) * normalized(right))
                if d == e:
                    total += (correlation - 1) ** 2
                else:
                    total += objective.off_diagonal * correlation**2
        return total

    return mean_over_pairs(objective, rows, of_pair)


def vicreg_loss(objective, params, state, rows, stopped, step):
    def of_view(y):
        covariance, dim = np.cov(y.T), y.shape[1]
        narrow = [max(0, 1 - np.sqrt(covariance[d, d] + 1e-4)) for d in range(dim)]
        others = [
            covariance[d, e] ** 2 for d in range(dim) for e in range(dim) if d != e
        ]
        variance = objective.variance * np.mean(narrow) / 2
        return variance + objective.covariance * np.sum(others) / dim

    def of_pair(y, z):
        apart = objective.invariance * np.mean((y - z) ** 2)
        return apart + of_view(y) + of_view(z)

    return mean_over_pairs(objective, rows, of_pair)


def authors(name, objective_of):
    """Each process' rows go through its own encoder; the loss gathers them all."""
    meta, arrays = load(name)
    proj = views(arrays, "proj1", "proj2")
    return Recorded(
        objective=objective_of(meta),
        rows=rows_of(projection=proj, target=proj),
        loss=arrays["loss"].mean(),
        gradients={
            "projection": views(arrays, "grad_proj1", "grad_proj2") / meta["world"]
        },
    )


def barlow(meta):
    return BarlowTwins(off_diagonal=meta["lambd"])


def vicreg(meta):
    return VICReg(meta["sim"], meta["std"], meta["cov"])


CASES = [
    Case(
        BarlowTwins(off_diagonal=0.3, scale=1.7),
        barlow_loss,
        local_views=1,
        recorded=(functools.partial(authors, "barlow_w1", barlow),),
    ),
    Case(
        VICReg(invariance=3.0, variance=2.0, covariance=1.5, scale=1.7),
        vicreg_loss,
        local_views=1,
        recorded=(
            functools.partial(authors, "vicreg_w1", vicreg),
            functools.partial(authors, "vicreg_w2", vicreg),
        ),
    ),
]
