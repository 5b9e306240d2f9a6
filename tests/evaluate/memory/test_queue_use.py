"""How a memory is used, against a loop over images and their choices."""

from __future__ import annotations

import numpy as np
import pytest

from snclr_jax.evaluate.memory.choices import choices
from snclr_jax.evaluate.memory.queue_use import GOOD, queue_use
from snclr_jax.step.objective import Found

IMAGES, ROWS, QUERIES, K, STEP = 50, 32, 41, 3, 10
UNFILLED = [3, 4, 20, 31]


@pytest.fixture
def memory(rng):
    """(pushed_at, image of each row), with four rows that were not written."""
    pushed_at = rng.integers(5, 9, ROWS).astype(np.int32)
    pushed_at[UNFILLED] = -1
    return pushed_at, rng.integers(-1, IMAGES, ROWS).astype(np.int32)


@pytest.fixture
def found(rng, memory):
    """Random choices among some filled rows; some images find fewer than K."""
    pushed_at, image_id = memory
    row = rng.choice(np.flatnonzero(pushed_at >= 0)[:20], (QUERIES, K))
    valid = rng.random((QUERIES, K)) < 0.8
    return Found(
        similarity=np.zeros(row.shape),
        row=row,
        image_id=np.where(valid, image_id[row], -1),
        pushed_at=np.where(valid, pushed_at[row], -1),
        valid=valid,
        weight=np.zeros(row.shape),
    )


def use_of(found, pushed_at, **images):
    return queue_use(choices(found, pushed_at, step=STEP, **images), len(pushed_at))


def test_the_use_of_the_queue_equals_a_loop(rng, memory, found):
    pushed_at, image_id = memory
    queries = rng.permutation(IMAGES)[:QUERIES].astype(np.int32)
    labels = rng.integers(-1, 3, IMAGES)
    chosen, known, same = [], 0, 0
    for query in range(QUERIES):
        for rank in range(K):
            if not found.valid[query, rank]:
                continue
            row = int(found.row[query, rank])
            chosen.append(row)
            own, theirs = labels[queries[query]], labels[image_id[row]]
            if image_id[row] >= 0 and own >= 0 and theirs >= 0:
                known, same = known + 1, same + (own == theirs)
    uses = [chosen.count(row) for row in range(ROWS)]
    filled = [row for row in range(ROWS) if row not in UNFILLED]
    expected = {
        "queue_fill": 28 / 32,
        "queue_used": sum(uses[row] > 0 for row in filled) / 28,
        "queue_most_used": max(uses) / len(chosen),  # 1% of 28 rows is one row
        "queue_age": sum(STEP - pushed_at[row] for row in chosen) / len(chosen),
        "queue_purity": same / known,
    }
    use = use_of(found, pushed_at, image_id=queries, labels=labels)
    assert use == pytest.approx(expected)
    assert use.keys() == GOOD.keys()  # of each a reader is told which values are good
    assert 0 < expected["queue_purity"] < 1 and expected["queue_used"] < 1


def test_one_row_that_everyone_chooses_is_seen(memory, found):
    pushed_at, _ = memory
    row = np.full((QUERIES, K), 7)
    found = found._replace(
        row=row,
        image_id=np.full((QUERIES, K), -1),
        pushed_at=pushed_at[row],
        valid=np.ones((QUERIES, K), bool),
    )
    ids, labels = np.arange(QUERIES), np.zeros(IMAGES, int)
    use = use_of(found, pushed_at, image_id=ids, labels=labels)
    assert use["queue_most_used"] == 1
    assert use["queue_used"] == pytest.approx(1 / 28)
    assert use["queue_age"] == STEP - pushed_at[7]
    assert "queue_purity" not in use  # the row's image is unknown


def test_where_nothing_was_chosen_there_is_a_fill(memory, found):
    nothing = found._replace(valid=np.zeros((QUERIES, K), bool))
    place = dict(image_id=np.arange(QUERIES), labels=None)
    assert use_of(nothing, memory[0], **place) == {"queue_fill": 28 / 32}
    assert "queue_purity" not in use_of(found, memory[0], **place)
