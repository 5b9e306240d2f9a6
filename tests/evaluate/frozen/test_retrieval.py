"""Rankings against scikit-learn's average precision and loops in numpy."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from snclr_jax.evaluate.frozen import retrieval
from snclr_jax.evaluate.frozen.retrieval import score_retrieval


@pytest.fixture(scope="module")
def splits():
    """Noisy classes; classes 5 and 6 have no gallery image, and 4 has one."""
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(7, 16))
    train_labels = np.append(rng.integers(0, 4, 82), 4)
    test_labels = rng.integers(0, 7, 53)
    train, test = (
        (centers[labels] + rng.normal(scale=1.5, size=(len(labels), 16))).astype("f")
        for labels in (train_labels, test_labels)
    )
    return train, train_labels, test, test_labels


def oracle(train, train_labels, test, test_labels, recall_at, leave_one_out=False):
    """Returns mAP, the recalls, and the queries that count and that do not."""
    train, test = (
        each / np.linalg.norm(each, axis=1, keepdims=True) for each in (train, test)
    )
    precisions, hits, left_out = [], [], 0
    for i in range(len(test)):
        others = np.arange(len(train))
        if leave_one_out:
            others = np.delete(others, i)
        relevant = train_labels[others] == test_labels[i]
        if not relevant.any():
            left_out += 1
            continue
        similarity = train[others] @ test[i]
        precisions.append(average_precision_score(relevant, similarity))
        ranking = np.argsort(-similarity, kind="stable")
        hits.append([relevant[ranking[:k]].any() for k in recall_at])
    recall = 100 * np.mean(hits, axis=0)
    return 100 * np.mean(precisions), recall.tolist(), len(precisions), left_out


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("leave_one_out", [False, True])
def test_scores_equal_scikit_learns(
    splits, mesh_of, devices, leave_one_out, monkeypatch
):
    # Blocks of 3 queries for each device, which do not divide the queries.
    monkeypatch.setattr(retrieval, "SORTED", 3 * 90)
    arguments = splits[:2] if leave_one_out else splits
    recall_at = (1, 5, 10, 1000)
    result = score_retrieval(*arguments, recall_at=recall_at, mesh=mesh_of(devices))
    average, recall, queries, left_out = oracle(
        *splits[:2], *arguments[-2:], recall_at, leave_one_out
    )
    assert result.mean_average_precision == pytest.approx(average, abs=1e-4)
    assert result.recall == dict(zip(recall_at, recall, strict=True))
    assert (result.queries, result.left_out) == (queries, left_out)
    assert 30 < average < 95 and recall[0] < recall[1] <= recall[2] < recall[3] == 100
    assert left_out == (1 if leave_one_out else np.sum(splits[3] > 4)) > 0


@pytest.mark.parametrize("devices", [1, 8])
def test_of_equally_similar_images_the_lowest_row_comes_first(mesh_of, devices):
    """scikit-learn would rank the three equal ones together."""
    train = np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    settings = dict(recall_at=(1, 2), mesh=mesh_of(devices))
    query = [[2.0, 0.0]]
    last = score_retrieval(train, [0, 0, 0, 1, 1], query, [1], **settings)
    assert last.mean_average_precision == pytest.approx(50 * (1 / 3 + 2 / 5))
    assert last.recall == {1: 0, 2: 0}
    first = score_retrieval(train, [0, 1, 0, 0, 1], query, [1], **settings)
    assert first.mean_average_precision == pytest.approx(50 * (1 + 2 / 5))
    assert first.recall == {1: 100, 2: 100}


def test_a_query_does_not_find_itself(mesh_of):
    """Its duplicate is found; a class of one image has nothing to find."""
    train = np.array([[1.0, 0.0], [1.0, 0.0], [0.9, 0.1]])
    result = score_retrieval(train, [0, 1, 0], recall_at=(1, 2), mesh=mesh_of(8))
    # Row 0 sees 1 then 2; row 2 sees 0 then 1, equally near.
    assert result == (75.0, {1: 50.0, 2: 100.0}, 2, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (np.eye(3), [0, 1, 2], np.eye(3), [3, 4, 5]),
            "none of 3 queries has an image",
        ),
        ((np.eye(3), [0, 1, 2]), "none of 3 queries has an image"),
        ((np.eye(3), [0, 1, 2], np.eye(3)), "only one of test_features"),
        ((np.eye(3), [0, 1, 2], np.eye(4), [0, 1, 2, 3]), "4 wide, train features 3"),
        ((np.eye(3), [0, -1, 2]), r"train labels lie in \[-1, 2\]"),
    ],
)
def test_bad_splits_are_refused(arguments, message, mesh_of):
    with pytest.raises(ValueError, match=message):
        score_retrieval(*arguments, recall_at=(1,), mesh=mesh_of(1))


@pytest.mark.parametrize(
    ("recall_at", "message"), [((), "recall_at is empty"), ((5, 0), "recall_at is 0")]
)
def test_recall_needs_a_number_of_images(recall_at, message, mesh_of):
    with pytest.raises(ValueError, match=message):
        score_retrieval(np.eye(2), [0, 0], recall_at=recall_at, mesh=mesh_of(1))
