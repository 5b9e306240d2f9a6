"""How a queue is used, against a loop over queries and rows."""

from __future__ import annotations

from types import SimpleNamespace

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding

from snclr_jax.evaluate.memory.queue_use import Searches, queue_use
from snclr_jax.evaluate.quality import quality
from snclr_jax.queue.ring import NeighborQueue
from snclr_jax.queue.sharded import QUEUE_SPEC


def unit_rows(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


IMAGES, ROWS, BATCH, DIM = 50, 32, 16, 6


def run_config(**queue):
    defaults = dict(
        k=3,
        banks=1,
        exclude_same_image=True,
        search="exact",
        recall=0.95,
        block=2**22,
    )
    return SimpleNamespace(batch_size=BATCH, queue=SimpleNamespace(**defaults | queue))


@pytest.fixture
def searches(rng):
    """A queue with four unfilled rows, and 41 images that search it."""
    pushed_at = rng.integers(5, 9, ROWS).astype(np.int32)
    pushed_at[[3, 4, 20, 31]] = -1
    image_id = rng.permutation(IMAGES)[:41].astype(np.int32)
    return Searches(
        queue=NeighborQueue(
            keys=unit_rows(rng.normal(size=(ROWS, DIM))).astype(np.float32),
            image_id=rng.integers(-1, IMAGES, ROWS).astype(np.int32),
            pushed_at=pushed_at,
            cursor=np.int32(0),
        ),
        queries=unit_rows(rng.normal(size=(41, DIM))).astype(np.float32),
        image_id=image_id,
        step=10,
        config=run_config(),
        labels=rng.integers(-1, 3, IMAGES),
    )


def place(searches, mesh):
    shardings = jax.tree.map(lambda spec: NamedSharding(mesh, spec), QUEUE_SPEC)
    return searches._replace(queue=jax.device_put(searches.queue, shardings))


def expected_use(searches):
    """The same by loops: every query lists the rows that it may choose, by cosine."""
    queue, settings = searches.queue, searches.config.objective.queue
    chosen, known, same = [], 0, 0
    for number, (query, image) in enumerate(
        zip(searches.queries, searches.image_id, strict=True)
    ):
        bank = number % BATCH * settings.banks // BATCH
        offers = []
        for row in range(ROWS):
            excluded = settings.exclude_same_image and queue.image_id[row] == image
            in_bank = row * settings.banks // ROWS == bank
            if queue.pushed_at[row] >= 0 and in_bank and not excluded:
                offers.append((-query @ queue.keys[row], row))
        for _, row in sorted(offers)[: settings.k]:
            chosen.append(row)
            theirs = searches.labels[queue.image_id[row]]
            if queue.image_id[row] >= 0 and min(theirs, searches.labels[image]) >= 0:
                known, same = known + 1, same + (theirs == searches.labels[image])
    uses = [chosen.count(row) for row in range(ROWS)]
    filled = [row for row in range(ROWS) if queue.pushed_at[row] >= 0]
    return {
        "queue_fill": len(filled) / ROWS,
        "queue_used": sum(uses[row] > 0 for row in filled) / len(filled),
        "queue_most_used": max(uses) / len(chosen),  # 1% of 28 rows is one row
        "queue_age": np.mean([10 - queue.pushed_at[row] for row in chosen]),
        "queue_purity": same / known,
    }


@pytest.mark.parametrize(
    "settings", [{}, {"banks": 2, "k": 4, "exclude_same_image": False}]
)
def test_the_use_of_the_queue_equals_a_loop_on_one_and_eight_devices(
    searches, mesh_of, settings
):
    searches = searches._replace(config=run_config(**settings))
    expected = expected_use(searches)
    for devices in (1, 8):
        mesh = mesh_of(devices)
        found = queue_use(place(searches, mesh), mesh=mesh)
        assert found == pytest.approx(expected, rel=1e-6)
    assert 0 < expected["queue_purity"] < 1 and expected["queue_used"] > 0.5


def test_one_row_that_everyone_chooses_is_seen(searches, mesh_of):
    keys = np.zeros((ROWS, DIM), np.float32)
    keys[7] = 1.0  # the only row with a similarity above 0
    queue = searches.queue.replace(keys=keys, image_id=np.full(ROWS, -1, np.int32))
    searches = searches._replace(
        queue=queue, queries=np.abs(searches.queries), config=run_config(k=1)
    )
    found = queue_use(place(searches, mesh_of(1)), mesh=mesh_of(1))
    assert found["queue_most_used"] == 1
    assert found["queue_used"] == pytest.approx(1 / 28)
    assert found["queue_age"] == 10 - queue.pushed_at[7]
    assert "queue_purity" not in found  # the row's image is unknown


def test_a_queue_that_is_empty_or_not_searched_has_a_fill(searches, mesh_of):
    mesh = mesh_of(1)
    empty = searches.queue.replace(pushed_at=np.full(ROWS, -1, np.int32))
    empty = place(searches._replace(queue=empty), mesh)
    assert queue_use(empty, mesh=mesh) == {"queue_fill": 0}
    unused = place(searches._replace(config=run_config(k=0)), mesh)
    assert queue_use(unused, mesh=mesh) == {"queue_fill": 28 / 32}
    features = np.eye(4)
    found = quality(features, features, features, k=1, mesh=mesh, searches=unused)
    assert found["queue_fill"] == 28 / 32


def test_searches_that_do_not_fit_are_named(searches, mesh_of):
    mesh = mesh_of(1)
    with pytest.raises(ValueError, match=r"\(41, 5\) do not fit queue rows of dim 6"):
        queue_use(searches._replace(queries=searches.queries[:, 1:]), mesh=mesh)
    with pytest.raises(ValueError, match=r"image_id has shape \(40,\) for 41"):
        queue_use(searches._replace(image_id=searches.image_id[1:]), mesh=mesh)
    with pytest.raises(ValueError, match="not among the 10 labels"):
        queue_use(searches._replace(labels=searches.labels[:10]), mesh=mesh)
    with pytest.raises(ValueError, match="batch_size 16 is not a multiple of 3"):
        queue_use(searches, mesh=mesh_of(3))
