"""What images choose: worked out by hand, and against loops over images and ranks."""

from __future__ import annotations

import numpy as np
import pytest

from snclr_jax.evaluate.memory import choices as module
from snclr_jax.evaluate.memory.choices import GOOD, choices, hub_skew, weight_auc
from snclr_jax.step.objective import Found

# Images 0, 1 and 2 of classes 0, 1 and 0; a fourth is of class 2, a fifth unknown.
LABELS = np.array([0, 1, 0, 2, -1])
# Rows 0 to 4 hold images 1, 2, 0, 4 and 3; the last row was not written.
ROW_IMAGE = np.array([1, 2, 0, 4, 3, -1])
PUSHED_AT = np.array([5, 6, 7, 8, 8, -1], np.int32)
ROW = np.array([[1, 0, 3], [1, 2, 0], [2, 2, 4]])
WEIGHT = np.array([[0.5, 0.3, 0.2], [0.4, 0.3, 0.3], [0.6, 0.1, 0.3]])
# The second image found two neighbors.
VALID = np.array([[True, True, True], [True, True, False], [True, True, True]])
STEP = 10


def found(row=ROW, weight=WEIGHT, valid=VALID):
    return Found(
        similarity=np.zeros(row.shape),
        row=row,
        image_id=np.where(valid, ROW_IMAGE[row], -1),
        pushed_at=np.where(valid, PUSHED_AT[row], -1),
        valid=valid,
        weight=weight,
    )


def chosen(labels=LABELS, **changed):
    of_run = dict(image_id=np.arange(3), step=STEP, labels=labels)
    return choices(found(**changed), PUSHED_AT, **of_run)


def test_rows_and_their_ages_are_counted_by_hand():
    seen = chosen()
    assert seen.images == 3
    # Row 0 once, rows 1 and 2 twice and three times, 3 and 4 once.
    assert seen.uses.tolist() == [1, 2, 3, 1, 1]
    assert seen.row_ages.tolist() == [5, 4, 3, 2, 2]
    assert sorted(seen.chosen_ages.tolist()) == [2, 2, 3, 3, 3, 4, 4, 5]


def test_right_and_wrong_neighbors_are_counted_by_hand():
    """By rank: right, wrong, unknown; wrong, wrong, none; right, right, wrong."""
    judged = chosen().judged
    assert judged.purity == pytest.approx(3 / 7)
    np.testing.assert_allclose(judged.rank_purity, [2 / 3, 1 / 3, 0])
    # Class 0 chose five known ones, class 1 two, class 2 none.
    np.testing.assert_allclose(judged.class_purity, [3 / 5, 0, np.nan])
    assert judged.right_weight == pytest.approx((0.5 + 0.6 + 0.1) / 3)
    assert judged.wrong_weight == pytest.approx((0.3 + 0.4 + 0.3 + 0.3) / 4)
    np.testing.assert_allclose(judged.rank_right_weight, [0.55, 0.1, np.nan])
    np.testing.assert_allclose(judged.rank_wrong_weight, [0.4, 0.3, 0.3])
    # Pairs of one image: 0.5 above 0.3, 0.6 above and 0.1 below 0.3.
    assert judged.weight_auc == pytest.approx(2 / 3)


def test_the_numbers_are_those_that_a_reader_is_told_about():
    numbers = chosen().numbers()
    assert numbers.keys() == GOOD.keys()
    assert numbers["queue_purity_rank1"] == pytest.approx(2 / 3)
    # 1, 2, 3, 1, 1 lie -.6, .4, 1.4, -.6, -.6 from their mean: .432 / .64 ** 1.5.
    assert numbers["queue_hub_skew"] == pytest.approx(0.432 / 0.512)


@pytest.mark.parametrize("labels", [None, np.full(5, -1), np.array([0, 1, 2, 3, 4])])
def test_a_number_of_nothing_is_not_there(labels):
    numbers = chosen(labels).numbers()
    if labels is None or labels[0] < 0:
        assert numbers.keys() == {"queue_hub_skew"}
    else:  # all are wrong, so nothing can lie above them
        assert GOOD.keys() - numbers.keys() == {
            "queue_weight_auc",
            "queue_right_weight",
        }
    nothing = chosen(labels, valid=np.zeros_like(VALID))
    assert nothing.numbers() == {} and nothing.judged is None


def test_judgments_equal_a_loop(rng, monkeypatch):
    monkeypatch.setattr(module, "PAIRS", 70)  # blocks of few images, the last one short
    images, k = 41, 4
    labels, image_id = rng.integers(-1, 3, 50), rng.permutation(50)[:images]
    neighbors = Found(
        similarity=np.zeros((images, k)),
        row=rng.integers(0, 30, (images, k)),
        image_id=rng.integers(-1, 50, (images, k)),
        pushed_at=np.full((images, k), 3),
        valid=rng.random((images, k)) < 0.8,
        weight=rng.integers(0, 4, (images, k)) / 4,  # with ties
    )
    above, pairs, kinds = 0.0, 0, {}
    for i in range(images):
        of_image = {True: [], False: []}
        for j in range(k):
            own, theirs = labels[image_id[i]], labels[neighbors.image_id[i, j]]
            if not neighbors.valid[i, j] or min(neighbors.image_id[i, j], own) < 0:
                continue
            if theirs < 0:
                continue
            of_image[own == theirs].append(neighbors.weight[i, j])
            kinds.setdefault(own, []).append(own == theirs)
        for right in of_image[True]:
            for wrong in of_image[False]:
                above += 1.0 if right > wrong else 0.5 if right == wrong else 0.0
                pairs += 1
    of_run = dict(image_id=image_id, step=9, labels=labels)
    judged = choices(neighbors, np.zeros(30, np.int32), **of_run).judged
    assert judged.weight_auc == pytest.approx(above / pairs) and pairs > 20
    expected = [np.mean(kinds[label]) for label in range(3)]
    np.testing.assert_allclose(judged.class_purity, expected)
    assert judged.purity == pytest.approx(np.mean(sum(kinds.values(), [])))


def test_rows_that_are_chosen_alike_have_no_hubs():
    assert hub_skew(np.full(7, 3)) == 0
    # One of n rows is chosen: (n - 2) / sqrt(n - 1).
    assert hub_skew(np.eye(10)[0]) == pytest.approx(8 / 3)
    random = np.random.default_rng(0).poisson(4, 100_000)
    assert hub_skew(random) == pytest.approx(1 / 2, abs=0.03)


def test_weights_that_know_everything_or_nothing():
    right = np.array([[True, False, True, False]])
    assert weight_auc(np.array([[3.0, 1.0, 4.0, 2.0]]), right, ~right) == 1
    assert weight_auc(np.full((1, 4), 0.25), right, ~right) == 0.5
    # Above the wrong one of another image is no merit.
    weight, kinds = np.array([[0.9, 0.8], [0.1, 0.2]]), np.array([[1, 1], [0, 0]]) > 0
    assert np.isnan(weight_auc(weight, kinds, ~kinds))
