"""Nearest neighbors and their votes against scikit-learn and loops in numpy."""

import tracemalloc

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.metrics import balanced_accuracy_score
from sklearn.neighbors import KNeighborsClassifier

from snclr_jax.evaluate.frozen import neighbors
from snclr_jax.evaluate.frozen.checks import check_features
from snclr_jax.evaluate.frozen.knn import knn_accuracies, vote
from snclr_jax.evaluate.frozen.neighbors import nearest

COUNTS, TEMPERATURES = (1, 20, 200), (0.07, 1.0)


@pytest.fixture(scope="module")
def digits():
    data, labels = load_digits(return_X_y=True)
    noise = np.random.default_rng(0).normal(scale=6.0, size=data.shape)
    data = (data + noise).astype(np.float32)
    return data[:400], labels[:400], data[400:603], labels[400:603]


def similarities(train, test):
    train, test = (
        each / np.linalg.norm(each, axis=1, keepdims=True)
        for each in (train.astype(np.float64), test.astype(np.float64))
    )
    return test @ train.T


@pytest.mark.parametrize("devices", [1, 8])
def test_every_setting_predicts_as_scikit_learn(digits, mesh_of, devices):
    train, train_labels, test, test_labels = digits
    settings = dict(k=COUNTS, temperature=TEMPERATURES)
    found = nearest(train, test, max(COUNTS), mesh=mesh_of(devices))
    predicted = vote(*found, train_labels, **settings)
    accuracies = knn_accuracies(*digits, **settings, mesh=mesh_of(devices))
    assert predicted.keys() == accuracies.keys()
    assert len(predicted) == len(COUNTS) * (len(TEMPERATURES) + 1)
    for (k, temperature), classes in predicted.items():
        weights = "uniform"
        if temperature is not None:
            weights = lambda d, t=temperature: np.exp((1 - d) / t)  # noqa: E731
        oracle = KNeighborsClassifier(k, metric="cosine", weights=weights)
        expected = oracle.fit(train, train_labels).predict(test)
        np.testing.assert_array_equal(classes, expected)
        accuracy = 100 * np.mean(expected == test_labels)
        found = accuracies[k, temperature]
        assert found.top1 == pytest.approx(accuracy)
        balanced = balanced_accuracy_score(test_labels, expected)
        assert found.balanced == pytest.approx(100 * balanced)
        assert 40 < accuracy < 100


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("leave_one_out", [False, True])
def test_nearest_are_those_of_a_full_sort(
    digits, mesh_of, devices, leave_one_out, monkeypatch
):
    """In blocks and parts that divide neither the rows nor the devices."""
    train, _, test, _ = digits
    if leave_one_out:
        test = train
    all_similarities = similarities(train, test)
    if leave_one_out:
        np.fill_diagonal(all_similarities, -np.inf)
    # Two parts of the train rows on 1 device, three on 8.
    resident = {1: 211, 8: 19}[devices] * train[0].nbytes
    monkeypatch.setattr(neighbors, "RESIDENT_BYTES", resident)
    settings = dict(leave_one_out=leave_one_out, train_block=9, test_block=61)
    similarity, row = nearest(train, test, 30, mesh=mesh_of(devices), **settings)
    assert similarity.dtype == np.float32 and row.dtype == np.int32
    # Rows that differ by less than float32 resolves may come in either order.
    expected = -np.sort(-all_similarities, axis=1)[:, :30]
    found = np.take_along_axis(all_similarities, row, axis=1)
    np.testing.assert_allclose(found, expected, atol=3e-7)
    np.testing.assert_allclose(similarity, expected, atol=1e-6)
    assert all(len(set(each)) == 30 for each in row)


@pytest.mark.parametrize("devices", [1, 8])
def test_equally_similar_rows_come_in_their_order(mesh_of, devices, monkeypatch):
    monkeypatch.setattr(neighbors, "RESIDENT_BYTES", 8 * 40 // devices)
    # Rows of zeros, which fill up the last block, would come between both groups.
    sign = np.random.default_rng(0).choice([-1.0, 1.0], 97)
    train = sign[:, None] * np.array([1.0, 0.0])
    ahead, behind = np.flatnonzero(sign > 0), np.flatnonzero(sign < 0)
    settings = dict(mesh=mesh_of(devices), train_block=3, test_block=1)
    similarity, row = nearest(train, [[2.0, 0.0], [-3.0, 0.0]], 1000, **settings)
    assert row.tolist() == [[*ahead, *behind], [*behind, *ahead]]
    expected = [[1] * len(ahead) + [-1] * len(behind)]
    expected += [[1] * len(behind) + [-1] * len(ahead)]
    assert similarity.tolist() == expected


def test_a_row_is_not_its_own_neighbor_even_among_duplicates(mesh_of):
    train = np.array([[1.0, 0.0]] * 3 + [[0.0, 1.0]])
    settings = dict(mesh=mesh_of(2), leave_one_out=True)
    _, row = nearest(train, train, 10, **settings)
    assert row.tolist() == [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]]


def test_leave_one_out_accuracy_equals_a_loop(digits, mesh_of):
    train, labels = digits[0][:101], digits[1][:101]
    settings = dict(k=(1, 5), temperature=(0.1,), mesh=mesh_of(8))
    accuracies = knn_accuracies(train, labels, **settings)
    for (k, temperature), accuracy in accuracies.items():
        correct = 0
        for i in range(len(train)):
            others = np.delete(np.arange(len(train)), i)
            similarity = similarities(train[others], train[[i]])[0]
            votes = np.zeros(10)
            for j in np.argsort(-similarity, kind="stable")[:k]:
                weight = 1 if temperature is None else np.exp(similarity[j] / 0.1)
                votes[labels[others[j]]] += weight
            correct += votes.argmax() == labels[i]
        assert accuracy.top1 == pytest.approx(100 * correct / len(train))
    assert len(set(accuracies.values())) > 1


def test_rows_are_normalized(digits, mesh_of):
    train, _, test, _ = digits
    scale = np.random.default_rng(1).uniform(0.1, 10, (len(train), 1))
    plain = nearest(train, test, 20, mesh=mesh_of(1))
    scaled = nearest(train * scale, test * 7, 20, mesh=mesh_of(1))
    np.testing.assert_array_equal(plain[1], scaled[1])
    np.testing.assert_allclose(plain[0], scaled[0], atol=1e-6)


def test_a_k_beyond_the_train_rows_counts_them_all(mesh_of):
    train = np.array([[1.0, 0.0], [0.0, 1.0], [0.1, 1.0]])
    # The nearest row is of class 0, the two others together outvote it.
    accuracies = knn_accuracies(
        train,
        [0, 1, 1],
        [[1.0, 0.9]],
        [1],
        k=(1, 1000),
        temperature=(1,),
        mesh=mesh_of(8),
    )
    expected = {(1, None): 0, (1, 1): 0, (1000, None): 100, (1000, 1): 100}
    assert {of: found.top1 for of, found in accuracies.items()} == expected


def test_of_equal_votes_the_lowest_class_wins():
    similarity = np.array([[1.0, 1.0, 0.5, 0.5]], np.float32)
    settings = dict(k=(2, 4), temperature=(0.1,))
    labels = np.array([7, 22_000, 3, 4])
    predicted = vote(similarity, np.array([[1, 0, 2, 3]]), labels, **settings)
    expected = {(2, None): 7, (2, 0.1): 7, (4, None): 3, (4, 0.1): 7}
    assert {setting: classes.tolist() for setting, classes in predicted.items()} == {
        setting: [label] for setting, label in expected.items()
    }


def test_a_tiny_temperature_leaves_the_nearest_row_alone():
    similarity, row = np.array([[0.9, 0.8, 0.8]], np.float32), np.array([[1, 0, 2]])
    predicted = vote(similarity, row, np.array([0, 1, 0]), k=(3,), temperature=(1e-4,))
    assert predicted[3, None] == 0 and predicted[3, 1e-4] == 1


def test_a_row_of_zeros_is_equally_near_to_all(mesh_of):
    similarity, row = nearest(np.eye(3), np.zeros((1, 3)), 3, mesh=mesh_of(1))
    assert similarity.tolist() == [[0, 0, 0]] and row.tolist() == [[0, 1, 2]]


GOOD = (np.eye(4, dtype=np.float32), np.arange(4))


@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        (np.zeros((0, 4)), np.zeros(0, int), r"shape \(0, 4\)"),
        (np.zeros(4), np.zeros(4, int), r"shape \(4,\)"),
        (np.eye(4), np.arange(3), r"shape \(3,\) for 4 features"),
        (np.eye(4), np.arange(4.0), "float64; use integer"),
        (np.eye(4), np.arange(4) - 1, r"labels lie in \[-1, 2\]"),
        (np.eye(4) * np.nan, np.arange(4), "4 rows that are not finite"),
    ],
)
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_bad_split_is_named(split, features, labels, message, mesh_of):
    bad = (features, labels)
    arguments = (*bad, *GOOD) if split == "train" else (*GOOD, *bad)
    with pytest.raises(ValueError, match=f"{split} .*{message}"):
        knn_accuracies(*arguments, k=(1,), temperature=(0.1,), mesh=mesh_of(1))


def test_rows_that_are_not_finite_are_found_without_a_mask_of_all_numbers():
    features = np.ones((2**11, 2**10), np.float32)
    features[0] = np.finfo(np.float32).max  # its sum is beyond float32
    tracemalloc.start()
    assert check_features("train", features) is features
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < features.nbytes / 16
    features[1, :2], features[2, 3] = (np.inf, -np.inf), np.nan
    with pytest.raises(ValueError, match="2 rows that are not finite, .* row 1;"):
        check_features("train", features)


@pytest.mark.parametrize(
    ("test", "message"),
    [
        ((np.eye(4)[:, :3], np.arange(4)), "3 wide, train features 4"),
        ((np.eye(4), None), "only one of test_features and test_labels is None"),
        ((None, np.arange(4)), "only one of test_features and test_labels is None"),
    ],
)
def test_a_test_split_that_does_not_fit_is_refused(test, message, mesh_of):
    with pytest.raises(ValueError, match=message):
        knn_accuracies(*GOOD, *test, k=(1,), temperature=(0.1,), mesh=mesh_of(1))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (dict(k=(5, 0)), "k is 0; use"),
        (dict(k=()), "k is empty"),
        (dict(temperature=(0.1, -1.0)), "temperature is -1.0; use"),
        (dict(temperature=(np.nan,)), "temperature is nan; use"),
    ],
)
def test_settings_must_be_positive(setting, message, mesh_of):
    with pytest.raises(ValueError, match=message):
        settings = dict(k=(1,), temperature=(0.1,), mesh=mesh_of(1)) | setting
        knn_accuracies(*GOOD, *GOOD, **settings)


@pytest.mark.parametrize("name", ["k", "train_block", "test_block"])
def test_sizes_must_be_positive(name, mesh_of):
    settings = dict(k=1, mesh=mesh_of(1)) | {name: 0}
    with pytest.raises(ValueError, match=f"{name} is 0"):
        nearest(GOOD[0], GOOD[0], **settings)


@pytest.mark.parametrize("tests", [1, 3])
def test_leave_one_out_needs_the_train_rows(tests, mesh_of):
    settings = dict(mesh=mesh_of(1), leave_one_out=True)
    train = np.eye(4)[: min(tests, 2)]
    with pytest.raises(ValueError, match=f"{len(train)} train and {tests} test rows"):
        nearest(train, np.eye(4)[:tests], 1, **settings)
