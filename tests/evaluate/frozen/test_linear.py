"""Linear probes against scikit-learn and a loop in numpy, on small data."""

import json

import jax
import numpy as np
import pytest
from scipy.special import softmax
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import top_k_accuracy_score
from snclr_jax.configs import evaluate as settings_file

from snclr_jax.evaluate.frozen import linear, sgd
from snclr_jax.evaluate.frozen.classifier import (
    Scaling,
    TrainSet,
    Weights,
    measure_scaling,
    score,
    zero_weights,
)
from snclr_jax.evaluate.frozen.logistic import fit_strengths
from snclr_jax.evaluate.frozen.sgd import train_heads
from snclr_jax.evaluate.frozen.subsets import held_back


def probe(*layers, **changed):
    """A probe with the settings of `snclr evaluate`, but for those changed."""
    settings = dict(settings_file.get_config().linear, seed=0)
    return linear.linear_probe(*layers, **settings | changed)


@pytest.fixture(scope="module")
def digits():
    data, labels = load_digits(return_X_y=True)
    noise = np.random.default_rng(0).normal(scale=6.0, size=data.shape)
    data = (data + noise).astype(np.float32)
    return data[:397], labels[:397], data[397:600], labels[397:600]


@pytest.fixture(scope="module")
def layers(digits):
    """The digits as two layers of features: all pixels, and a poor part of them."""
    train, train_labels, test, test_labels = digits
    return (
        {"poor": train[:, :24], "all": train},
        train_labels,
        {"all": test, "poor": test[:, :24]},
        test_labels,
    )


def train_set(layers):
    scaling = {layer: measure_scaling(each) for layer, each in layers[0].items()}
    return TrainSet(dict(layers[0]), scaling, layers[1].astype(np.int32), 10)


def standardized(digits):
    train, test = digits[0].astype(np.float64), digits[2].astype(np.float64)
    deviation = train.std(axis=0)
    scale = np.where(deviation > 0, deviation, 1)
    return (train - train.mean(axis=0)) / scale, (test - train.mean(axis=0)) / scale


def test_lbfgs_agrees_with_scikit_learn_on_any_number_of_devices(
    digits, layers, mesh_of
):
    l2 = 1e-2
    train, test = standardized(digits)
    held = held_back(digits[1], 0.1, seed=0)
    for rows in (np.flatnonzero(~held), np.arange(397)):
        oracle = LogisticRegression(C=1 / (len(rows) * l2), tol=1e-8, max_iter=2000)
        oracle.fit(train[rows], digits[1][rows])
        fits = [
            fit_strengths(
                train_set(layers), "all", [l2], rows, max_steps=500, mesh=mesh_of(count)
            )
            for count in (1, 8)
        ]
        for weights, steps in fits:
            assert steps < 500
            np.testing.assert_allclose(weights.kernel[0], oracle.coef_, atol=1e-3)
            # A constant added to every bias changes no probability.
            bias = weights.bias[0] - weights.bias[0].mean()
            expected = oracle.intercept_ - oracle.intercept_.mean()
            np.testing.assert_allclose(bias, expected, atol=1e-3)
        (one, _), (eight, steps) = fits
        np.testing.assert_allclose(one.kernel, eight.kernel, atol=1e-4)
    features = {"all": digits[0]}, digits[1], {"all": digits[2]}, digits[3]
    result = probe(*features, mesh=mesh_of(8), l2=(l2,), learning_rate=())
    assert result.accuracy.top1 == pytest.approx(100 * oracle.score(test, digits[3]))
    top5 = top_k_accuracy_score(digits[3], oracle.predict_proba(test), k=5)
    assert result.top5 == pytest.approx(100 * top5)
    assert result.steps == steps


def sgd_in_numpy(train, labels, rows, rate, decay, *, epochs, batch_size, seed):
    """One head, one step after the other."""
    random = np.random.RandomState(seed)
    kernel, bias = np.zeros((10, train.shape[1])), np.zeros(10)
    kernel_momentum, bias_momentum = np.zeros_like(kernel), np.zeros_like(bias)
    steps, step = epochs * (len(rows) // batch_size), 0
    for _ in range(epochs):
        order = random.permutation(rows)
        for i in range(len(rows) // batch_size):
            batch = order[i * batch_size : (i + 1) * batch_size]
            x = train[batch]
            error = softmax(x @ kernel.T + bias, axis=1) - np.eye(10)[labels[batch]]
            kernel_momentum *= 0.9
            kernel_momentum += error.T @ x / batch_size + decay * kernel
            bias_momentum = 0.9 * bias_momentum + error.mean(axis=0)
            now = rate * (1 + np.cos(np.pi * step / steps)) / 2
            kernel -= now * kernel_momentum
            bias -= now * bias_momentum
            step += 1
    return kernel, bias


GRID = [(0.01, 0.0), (0.1, 0.0), (0.1, 0.1)]
SCHEDULE = dict(epochs=3, batch_size=45, seed=5)


@pytest.mark.parametrize("devices", [1, 8])
def test_heads_trained_at_once_equal_a_loop_over_single_ones(
    layers, mesh_of, devices, monkeypatch
):
    # 390 rows: 8 steps an epoch, of 24 in all, in chunks of 5 of which the last is
    # padded; on 8 devices, 48 rows a step, of which 3 are padding.
    width = -(-45 // devices) * devices
    monkeypatch.setattr(sgd, "_CHUNK_BYTES", 5 * 4 * 88 * width)
    train, rows = train_set(layers), np.arange(397)[7:]
    before = sgd._train_steps._cache_size()
    heads = train_heads(
        train, train.features, GRID, rows, mesh=mesh_of(devices), **SCHEDULE
    )
    assert sgd._train_steps._cache_size() == before + 1
    for layer, weights in heads.items():
        features = train.scaling[layer](train.features[layer].astype(np.float64))
        for head, (rate, decay) in enumerate(GRID):
            kernel, bias = sgd_in_numpy(
                features, train.labels, rows, rate, decay, **SCHEDULE
            )
            np.testing.assert_allclose(weights.kernel[head], kernel, atol=1e-4)
            np.testing.assert_allclose(weights.bias[head], bias, atol=1e-4)


def test_a_step_copies_no_kernels(mesh_of):
    """Neither for its result nor transposed: they are far larger than a batch."""
    g, c, f, b = 3, 10, 24, 8
    heads, momenta = ({"all": zero_weights((g, c, f), mesh_of(1))} for _ in range(2))
    rates = np.ones(g, np.float32)
    program = sgd._train_steps.lower(
        (heads, momenta),
        {"all": np.zeros((2, b, f), np.float32)},
        np.zeros((2, b), np.int32),
        {"all": Scaling()},
        *(rates, rates, np.zeros(2), b),
        mesh=mesh_of(1),
    ).compile()
    numbers = g * c * (f + 1)
    assert program.memory_analysis().alias_size_in_bytes == 2 * 4 * numbers
    text = program.as_text()
    assert f"[{g * c},{f}]" in text and f"[{f},{g * c}]" not in text


def test_a_batch_larger_than_the_rows_takes_all_of_them(layers, mesh_of):
    train, settings = train_set(layers), dict(epochs=2, seed=0, mesh=mesh_of(8))
    rows = np.arange(30)
    large, all_of_them = (
        train_heads(train, ["poor"], GRID, rows, batch_size=size, **settings)
        for size in (1000, 30)
    )
    jax.tree.map(np.testing.assert_array_equal, large, all_of_them)


def test_the_best_candidate_is_fitted_again_and_tested_once(layers, mesh_of):
    settings = dict(
        learning_rate=(0.3, 0.03), weight_decay=(0.0, 0.3), l2=(), epochs=3, seed=0
    )
    result = probe(*layers, mesh=mesh_of(8), batch_size=64, **settings)
    names = [(c.kind, c.layer, c.learning_rate, c.l2) for c in result.candidates]
    grid = [(0.03, 0.3), (0.03, 0.0), (0.3, 0.3), (0.3, 0.0)]
    assert names == [("sgd", n, *pair) for n in ("poor", "all") for pair in grid]
    assert result.chosen.layer == "all" and result.steps is None
    assert result.chosen.accuracy == max(c.accuracy for c in result.candidates)
    json.dumps([c._asdict() for c in result.candidates], allow_nan=False)

    train, mesh = train_set(layers), mesh_of(1)
    pair = result.chosen.learning_rate, result.chosen.l2
    options = dict(epochs=3, batch_size=64, seed=0, mesh=mesh)
    weights = train_heads(train, ["all"], [pair], np.arange(397), **options)["all"]
    predicted = np.asarray(weights.kernel[0]) @ train.scaling["all"](layers[2]["all"]).T
    predicted = (predicted.T + weights.bias[0]).argmax(axis=1)
    # Another number of devices, and the same test accuracy.
    assert result.accuracy.top1 == pytest.approx(100 * np.mean(predicted == layers[3]))


def test_test_labels_choose_nothing(mesh_of):
    """Noise features: weak regularization fits the train split, strong one predicts."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 300)
    features = rng.normal(size=(300, 100))
    features[:, 0] += 2 * labels
    train, test = ({"all": features[:150]}, labels[:150]), features[150:]
    settings = dict(
        mesh=mesh_of(8), learning_rate=(), l2=(1e-6, 1.0), holdback=0.3, seed=1
    )
    result = probe(*train, {"all": test}, labels[150:], **settings)
    strong, weak = result.candidates
    assert (strong.l2, weak.l2) == (1.0, 1e-6) and result.chosen == strong
    assert strong.accuracy > weak.accuracy + 5
    assert result.top5 is None
    # Other test labels change what is reported, never what is chosen.
    flipped = probe(*train, {"all": test}, 1 - labels[150:], **settings)
    assert flipped.candidates == result.candidates
    assert flipped.accuracy.top1 == pytest.approx(100 - result.accuracy.top1, abs=1e-3)


def test_originals_are_held_back_whole_and_by_the_seed(mesh_of, monkeypatch):
    class Asked(Exception):
        pass

    def ask(*arguments):
        raise Asked(*arguments)

    monkeypatch.setattr(linear, "held_back", ask)
    features, labels = {"all": np.eye(6)}, np.arange(6) % 2
    group = np.array([0, 1, 0, 1, 2, 3])
    with pytest.raises(Asked) as asked:
        probe(
            *(features, labels, features, labels),
            mesh=mesh_of(1),
            holdback=0.3,
            seed=7,
            group=group,
        )
    found, *settings, of_rows = asked.value.args
    assert found.tolist() == labels.tolist() and settings == [0.3, 7]
    assert of_rows is group


def test_a_candidate_that_diverges_is_never_chosen(layers, mesh_of):
    settings = dict(
        mesh=mesh_of(8), weight_decay=(0.0,), l2=(), epochs=2, batch_size=64
    )
    result = probe(*layers, learning_rate=(0.1, 1e38), **settings)
    assert {c.learning_rate for c in result.candidates if c.accuracy is None} == {1e38}
    assert result.chosen.learning_rate == 0.1 and result.accuracy.top1 > 50
    diverged = [c for c in result.candidates if c.accuracy is None]
    with pytest.raises(ValueError, match="all 2 candidates diverged; add lower"):
        linear._best(diverged)


def test_of_equals_the_first_is_the_best():
    candidates = [
        linear.Candidate("lbfgs", "a", l2, None, accuracy)
        for l2, accuracy in ((1.0, None), (0.1, 50.0), (0.01, 70.0), (0.001, 70.0))
    ]
    assert linear._best(candidates).l2 == 0.01


def test_scores_equal_scikit_learns_in_blocks(mesh_of, monkeypatch):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(53, 6)).astype(np.float32)
    labels = rng.integers(0, 12, 53).astype(np.int32)
    weights = Weights(
        rng.normal(size=(2, 12, 6)).astype("f"), rng.normal(size=(2, 12)).astype("f")
    )
    rows, scaling = (
        np.arange(3, 50),
        Scaling(np.full(6, 0.5, "f"), np.full(6, 2.0, "f")),
    )
    monkeypatch.setattr("snclr_jax.evaluate.frozen.classifier._BLOCK_NUMBERS", 15 * 30)
    found = score(weights, features, labels, rows, scaling, mesh_of(8))
    for head in range(2):
        logits = (
            2 * (features[rows] - 0.5) @ weights.kernel[head].T + weights.bias[head]
        )
        right = labels[rows] == logits.argmax(axis=1)
        of_classes = [np.mean(right[labels[rows] == c]) for c in set(labels[rows])]
        assert found.balanced[head] == pytest.approx(100 * np.mean(of_classes))
        for k, percent in ((1, found.top1), (5, found.top5)):
            expected = top_k_accuracy_score(
                labels[rows], logits, k=k, labels=np.arange(12)
            )
            assert percent[head] == pytest.approx(100 * expected)


def test_a_constant_feature_is_ignored():
    rng = np.random.default_rng(0)
    train = rng.normal(size=(50, 3)).astype(np.float32)
    train[:, 1] = 1000.3
    scaling = measure_scaling(train)
    scaled, moved = scaling(train), scaling(train + 5)
    assert np.all(scaled[:, 1] == 0) and np.all(moved[:, 1] == 0)
    np.testing.assert_allclose(scaled[:, [0, 2]].std(axis=0), 1, rtol=1e-5)
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-6)


GOOD = (np.eye(4, dtype=np.float32), np.arange(4))


@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        (np.zeros((0, 4)), np.zeros(0, int), r"features have shape \(0, 4\)"),
        (np.eye(4), np.arange(3), r"labels have shape \(3,\) for 4 features"),
        (np.eye(4), np.arange(4) - 1, r"labels lie in \[-1, 2\]"),
        (np.eye(4) * np.nan, np.arange(4), "features have 4 rows that are not finite"),
    ],
)
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_bad_split_is_named(split, features, labels, message, mesh_of):
    bad, good = ({"last": features}, labels), ({"last": GOOD[0]}, GOOD[1])
    arguments = (*bad, *good) if split == "train" else (*good, *bad)
    with pytest.raises(ValueError, match=f"{split} last {message}"):
        probe(*arguments, mesh=mesh_of(1))


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        (
            {"a": np.eye(4)},
            {"a": np.eye(4)[:, :3]},
            "test a features are 3 wide, train",
        ),
        ({}, {}, r"train features are of the layers \[\]; use at least one"),
        (
            {"a": np.eye(4)},
            {"b": np.eye(4)},
            r"test features are of the layers \['b'\]; use those of train, \['a'\]",
        ),
    ],
)
def test_splits_of_different_layers_are_refused(train, test, message, mesh_of):
    with pytest.raises(ValueError, match=message):
        probe(train, GOOD[1], test, GOOD[1], mesh=mesh_of(1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(l2=(0.0, 1.0)), r"l2 is \(0.0, 1.0\); use values above 0"),
        (dict(learning_rate=(-1.0,)), r"learning_rate is \(-1.0,\); use values above"),
        (dict(weight_decay=(-1.0,)), "weight_decay is .* values of 0 or above"),
        (dict(l2=(), learning_rate=()), r"l2 is \(\), .* leaves no classifier"),
        (
            dict(l2=(), weight_decay=()),
            r"weight_decay \(\), which leaves no classifier",
        ),
        (dict(epochs=0), "epochs is 0; use 1 or more"),
        (dict(batch_size=0), "batch_size is 0"),
        (dict(max_steps=0), "max_steps is 0"),
        (dict(holdback=0.01), "holdback 0.01 leaves none of 4"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message, mesh_of):
    features = {"a": GOOD[0]}
    with pytest.raises(ValueError, match=message):
        probe(features, GOOD[1], features, GOOD[1], mesh=mesh_of(1), **settings)
