"""What NNCLR finds, measures and refuses; SNCLR's tests look at the search closer."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
import tiny
from snclr_jax.configs import digits

from snclr_jax.evaluate.memory import choices
from snclr_jax.objectives.nnclr import NNCLR
from snclr_jax.queue.ring import init_queue, push
from snclr_jax.queue.settings import QueueSettings
from snclr_jax.queue.sharded import QUEUE_SPEC
from snclr_jax.settings.check import check_config
from snclr_jax.step.objective import Now, Seen

B, D, Q, K, STEP = 8, 6, 16, 3, 9
PUSHED_AT = 5


@pytest.fixture
def found(mesh_of, rng):
    """What eight images find among two rows, the metrics, and the rows and images."""
    nnclr, mesh = NNCLR(queue=QueueSettings(size=Q, k=K)), mesh_of(4)
    rows, targets = oracle.unit(rng.normal(size=(2, 2, B, D)))
    ids = jnp.arange(B, dtype=jnp.int32)
    # Rows of images 0 and 1: these two find one row each, the others both.
    queue = push(
        init_queue(Q, D), jnp.float32(rows[0, :2]), image_id=ids[:2], step=PUSHED_AT
    )
    shardings = jax.tree.map(lambda spec: jax.NamedSharding(mesh, spec), QUEUE_SPEC)
    queue = jax.device_put(queue, shardings)
    targets = jnp.float32(targets)
    seen = Seen(targets, targets, targets, ids)
    now = Now(jnp.int32(STEP), 1, mesh)

    @jax.jit
    def everything(queue):
        _, aux = nnclr.loss({}, queue, seen, now)
        labels = jnp.array([0, 1, 0, 1, 0, 1, 0, -1])
        metrics = nnclr.metrics(aux, seen, labels, now)
        return nnclr.neighbors({}, queue, seen, now), metrics

    return *everything(queue), rows[0, :2], np.asarray(targets[0])


def test_the_first_view_finds_the_nearest_rows_which_count_alike(found):
    neighbors, _, rows, targets = found
    expected = oracle.find_rows(rows, targets, K, eligible=lambda i, r: i != r)
    for i, nearest in enumerate(expected):
        count = len(nearest)
        assert neighbors.row[i, :count].tolist() == nearest
        np.testing.assert_allclose(
            neighbors.similarity[i, :count], rows[nearest] @ targets[i], rtol=1e-5
        )
        assert neighbors.valid[i].tolist() == [k < count for k in range(K)]
        weights = [1 / count] * count + [0] * (K - count)
        np.testing.assert_allclose(neighbors.weight[i], weights)


def test_metrics_are_those_of_a_search(found):
    neighbors, metrics, _, _ = found
    assert metrics["neighbor_age"] == STEP - PUSHED_AT
    assert metrics["neighbors_found"] == pytest.approx(14 / (B * K))
    # Images 0 and 1 find the other's class; of the next five each finds one of its own.
    assert metrics["neighbor_purity"] == pytest.approx(5 / 12)
    assert {shown.metric for shown in NNCLR.shown} - set(metrics) == {"search_recall"}
    plotted = {name for _, names, _ in NNCLR.panels for name in names}
    # The others are measured at the evaluations.
    assert plotted - set(choices.GOOD) <= set(metrics)


@pytest.mark.parametrize(
    "name, fields, message",
    [
        ("nnclr", {"objective__queue__k": 0}, "objective.queue.k 0 .*; use 1 or more"),
        ("nnclr", {"objective__queue__k": 65}, "never holds objective.queue.k=65"),
        ("groco", {"batch_size": 1}, "batch_size 1 has no negatives; use at least 2"),
    ],
)
def test_what_leaves_nothing_to_tell_apart_is_refused(name, fields, message):
    config = tiny.override(digits.get_config(f"{name},debug"), **fields)
    with pytest.raises(ValueError, match=message):
        check_config(config, devices=1)
