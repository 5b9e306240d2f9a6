"""kNN and linear evaluation against scikit-learn, on small data that decides things."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from snclr_jax.data import Split
from snclr_jax.evaluate import knn_accuracy, knn_predict, linear, linear_probe
from snclr_jax.evaluate.online import with_labels


@pytest.fixture(scope="module")
def digits():
    data, labels = load_digits(return_X_y=True)
    noise = np.random.default_rng(0).normal(scale=6.0, size=data.shape)
    data = (data + noise).astype(np.float32)
    return data[:400], labels[:400], data[400:600], labels[400:600]


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (20, 0.07), (200, 1.0)])
def test_knn_predictions_equal_scikit_learns(digits, k, temperature):
    train, train_labels, test, test_labels = digits
    oracle = KNeighborsClassifier(
        k, metric="cosine", weights=lambda d: np.exp((1 - d) / temperature)
    ).fit(train, train_labels)
    expected = oracle.predict(test)
    settings = dict(k=k, temperature=temperature, block=64)
    predicted = knn_predict(train, train_labels, test, **settings)
    np.testing.assert_array_equal(predicted, expected)
    accuracy = knn_accuracy(train, train_labels, test, test_labels, **settings)
    assert accuracy == pytest.approx(100 * np.mean(expected == test_labels))
    assert 40 < accuracy < 100


def test_knn_does_not_depend_on_the_block(digits):
    train, train_labels, test, _ = digits
    predictions = [
        knn_predict(train, train_labels, test[:10], k=7, block=block)
        for block in (3, 10, 1024)
    ]
    np.testing.assert_array_equal(predictions[0], predictions[1])
    np.testing.assert_array_equal(predictions[0], predictions[2])


def test_knn_normalizes_rows(digits):
    train, train_labels, test, _ = digits
    scale = np.random.default_rng(1).uniform(0.1, 10, (len(train), 1))
    plain = knn_predict(train, train_labels, test)
    scaled = knn_predict(train * scale, train_labels, test * 7)
    np.testing.assert_array_equal(plain, scaled)


def test_knn_takes_every_train_row_when_k_is_larger():
    train = np.array([[1.0, 0.0], [0.0, 1.0], [0.1, 1.0]])
    # The nearest row is of class 0, the two others together outvote it.
    predicted = knn_predict(train, [0, 1, 1], [[1.0, 0.9]], k=1000, temperature=1.0)
    assert predicted.tolist() == [1]


def test_knn_ties_go_to_the_lowest_class():
    train = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert knn_predict(train, [2, 1, 0], [[1.0, 0.0]], k=2).tolist() == [1]


def test_knn_survives_a_tiny_temperature_and_a_zero_row():
    train = np.eye(3)
    test = np.vstack([np.eye(3)[1:], np.zeros(3)])
    predicted = knn_predict(train, [0, 1, 2], test, k=3, temperature=1e-3)
    assert predicted.tolist() == [1, 2, 0]


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
@pytest.mark.parametrize("evaluation", [knn_accuracy, linear_probe])
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_bad_split_is_named(evaluation, split, features, labels, message):
    bad = (features, labels)
    arguments = (*bad, *GOOD) if split == "train" else (*GOOD, *bad)
    with pytest.raises(ValueError, match=f"{split} .*{message}"):
        evaluation(*arguments)


@pytest.mark.parametrize("evaluation", [knn_accuracy, linear_probe])
def test_splits_of_different_networks_are_refused(evaluation):
    with pytest.raises(ValueError, match="3 wide, train features 4"):
        evaluation(*GOOD, np.eye(4)[:, :3], np.arange(4))


@pytest.mark.parametrize("name", ["k", "temperature", "block"])
def test_knn_refuses_settings_that_are_not_positive(name):
    with pytest.raises(ValueError, match=f"{name} is 0"):
        knn_accuracy(*GOOD, *GOOD, **{name: 0})


def test_knn_refuses_labels_beyond_num_classes():
    with pytest.raises(ValueError, match="num_classes 3"):
        knn_accuracy(*GOOD, *GOOD, num_classes=3)


def test_linear_probe_agrees_with_scikit_learn(digits):
    train, train_labels, test, test_labels = digits
    l2 = 1e-2
    scaled, scaled_test = (
        (x - train.mean(axis=0)) / np.where(train.std(axis=0) > 0, train.std(axis=0), 1)
        for x in (train.astype(np.float64), test.astype(np.float64))
    )
    oracle = LogisticRegression(C=1 / (len(train) * l2), tol=1e-8, max_iter=2000)
    oracle.fit(scaled, train_labels)
    result = linear_probe(*digits, l2_grid=(l2,))
    expected = 100 * oracle.score(scaled_test, test_labels)
    assert result.accuracy == pytest.approx(expected, abs=0.01)

    features, _ = linear._standardize(train, test)
    zeros = {"kernel": np.zeros((64, 10), "f"), "bias": np.zeros(10, "f")}
    weights, steps = linear._fit(
        zeros, features, train_labels, np.ones(400, bool), l2, max_steps=500
    )
    assert steps == result.steps < 500
    np.testing.assert_allclose(weights["kernel"], oracle.coef_.T, atol=1e-3)
    # A constant added to every bias changes no probability.
    bias = weights["bias"] - weights["bias"].mean()
    np.testing.assert_allclose(
        bias, oracle.intercept_ - oracle.intercept_.mean(), atol=1e-3
    )


def test_linear_probe_chooses_l2_on_held_back_rows_alone():
    """Noise features: weak regularization fits the train split, strong one predicts."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 300)
    features = rng.normal(size=(300, 100))
    features[:, 0] += 2 * labels
    train, test = (features[:150], labels[:150]), (features[150:], labels[150:])
    settings = dict(l2_grid=(1e-6, 1.0), holdback=0.3)
    result = linear_probe(*train, *test, **settings)
    assert result.l2 == 1.0
    assert result.holdback_accuracy[1.0] > result.holdback_accuracy[1e-6] + 5
    # Other test labels change what is reported, never what is chosen.
    flipped = linear_probe(*train, test[0], 1 - test[1], **settings)
    assert flipped.holdback_accuracy == result.holdback_accuracy
    assert flipped.accuracy == pytest.approx(100 - result.accuracy, abs=1e-3)


def test_holdback_is_class_balanced_and_never_takes_a_whole_class():
    labels = np.repeat([0, 1, 2, 3], [40, 20, 1, 2])
    held = linear._held_back(labels, 0.5, seed=0)
    assert np.bincount(labels[held], minlength=4).tolist() == [20, 10, 0, 1]
    assert (linear._held_back(labels, 0.5, seed=1) != held).any()


def test_a_constant_feature_is_ignored():
    rng = np.random.default_rng(0)
    train = rng.normal(size=(50, 3)).astype(np.float32)
    train[:, 1] = 1000.3
    scaled, moved = linear._standardize(train, train + 5)
    assert np.all(scaled[:, 1] == 0) and np.all(moved[:, 1] == 0)
    np.testing.assert_allclose(scaled[:, [0, 2]].std(axis=0), 1, rtol=1e-5)


@pytest.mark.parametrize("holdback", [0.0, 1.0, 0.01])
def test_a_holdback_without_rows_is_refused(holdback):
    with pytest.raises(ValueError, match=f"holdback {holdback} leaves none of 4"):
        linear_probe(*GOOD, *GOOD, holdback=holdback)


@pytest.mark.parametrize("grid", [(), (0.0, 1.0)])
def test_strengths_must_be_positive(grid):
    with pytest.raises(ValueError, match="l2_grid is"):
        linear_probe(*GOOD, *GOOD, l2_grid=grid)


def test_images_without_a_label_do_not_vote():
    pixels = np.arange(5, dtype=np.uint8).reshape(5, 1, 1, 1)
    labels = np.array([2, -1, 0, -1, 1], np.int32)
    known = with_labels(Split(pixels.__getitem__, size=5, labels=labels))
    assert known.labels.tolist() == [2, 0, 1]
    assert known.read([0, 1, 2]).ravel().tolist() == [0, 2, 4]
    whole = Split(pixels.__getitem__, size=5, labels=np.zeros(5, np.int32))
    assert with_labels(whole) is whole
    nothing = Split(pixels.__getitem__, size=5, labels=np.full(5, -1, np.int32))
    unlabelled = Split(pixels.__getitem__, size=5)
    assert [with_labels(each) for each in (nothing, unlabelled, None)] == [None] * 3
