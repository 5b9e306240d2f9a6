"""objectives/test_all4one.py has the recorded values of the features' part."""

from __future__ import annotations

import functools

import numpy as np

from objective_cases import nnclr
from objective_cases.case import Case, Recorded, load, rows_of, views
from snclr_jax.objectives.all4one import All4One
from snclr_jax.queue.settings import QueueSettings


def loss(objective, params, state, rows, stopped, step):
    on, off = [], []
    for u, target in enumerate(stopped.target):
        for v, projection in enumerate(rows.projection):
            if u != v:
                for d, t in enumerate(target.T):
                    for e, y in enumerate(projection.T):
                        product = t @ y / np.sqrt((t @ t) * (y @ y))
                        (on if d == e else off).append((product - (d == e)) ** 2)
    feature = (np.sqrt(np.mean(on)) + np.sqrt(np.mean(off))) / 2
    neighbors = nnclr.loss(objective, params, state, rows, stopped, step)
    return neighbors + objective.scale * objective.feature_weight * feature


def neighbors_of_solo_learn(name):
    """Without the features' part, of which the source does not normalize rows."""
    meta, arrays = load(name)
    gradient = views(arrays, "grad_pred1", "grad_pred2") / meta["world"]
    return Recorded(
        objective=All4One(
            temperature=meta["temperature"],
            scale=0.5,
            feature_weight=0.0,
            queue=QueueSettings(meta["bank"], "float64", k=1, push="first"),
        ),
        rows=rows_of(
            prediction=views(arrays, "pred1", "pred2"),
            target=views(arrays, "target1", "target2"),
        ),
        loss=np.mean(arrays["loss12"] + arrays["loss21"]) / 4,
        gradients={"prediction": gradient},
        state=nnclr.queue_before(meta, arrays),
        state_after=nnclr.queue_after(arrays),
    )


CASES = [
    Case(
        All4One(
            temperature=0.3,
            scale=1.7,
            feature_weight=2.0,
            queue=QueueSettings(24, "float64", k=2, push="first"),
        ),
        loss,
        nnclr.state_after,
        local_views=1,
        recorded=(
            functools.partial(neighbors_of_solo_learn, "all4one_w1"),
            functools.partial(neighbors_of_solo_learn, "all4one_w2"),
        ),
    )
]
