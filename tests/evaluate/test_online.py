"""What is looked at during training: who votes, and how the probe is scored."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import tiny

from snclr_jax.data import Data, Split
from snclr_jax.evaluate.frozen.accuracy import Accuracy
from snclr_jax.evaluate.online import OnlineKnn, OnlineProbe, Run, with_labels


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


def test_the_probe_is_scored_on_whole_test_images(rng, mesh_of):
    config, mesh = tiny.config(evaluate__online_probe=True), mesh_of(2)
    config.evaluate.batch_size = 8
    model, _, state = tiny.build(config, mesh, probe_classes=3)
    weights = {
        "kernel": rng.normal(size=(model.feature_dim, 3)).astype(np.float32),
        "bias": np.float32([0.3, 0.0, -0.2]),
    }
    state = state.replace(probe=state.probe.replace(weights=weights))
    images = rng.integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
    labels = rng.integers(-1, 3, 20).astype(np.int32)
    test = Split(lambda rows: images[rows], size=20, labels=labels)
    run = Run(config, model, None, mesh, Data(test, test, None))
    found = OnlineProbe(run)(state, run)

    known = labels >= 0
    mean, std = (np.array(each) for each in (config.data.mean, config.data.std))
    whole = np.float32((images[known] / 255 - mean) / std)
    features = jax.jit(model.encode)(state.params, state.batch_stats, whole)
    features = np.asarray(features, np.float64)
    x = (features - features.mean(axis=0)) / (features.std(axis=0) + 1e-6)
    x /= features.shape[1] ** 0.5
    hits = {0: [], 1: [], 2: []}
    for row, label in zip(x, labels[known], strict=True):
        scores = [row @ weights["kernel"][:, c] + weights["bias"][c] for c in range(3)]
        hits[label].append(int(np.argmax(scores)) == label)
    right = sum(map(sum, hits.values()))
    assert 0 < right < known.sum()
    assert found == {
        "probe_test": pytest.approx(100 * right / known.sum()),
        "probe_test_balanced": pytest.approx(
            100 * np.mean(list(map(np.mean, hits.values())))
        ),
    }
    config.evaluate.online_probe = False
    assert not OnlineProbe(run).possible


def test_knn_takes_the_network_that_is_named(monkeypatch, mesh_of):
    config, mesh = tiny.config(), mesh_of(1)
    model, _, state = tiny.build(config, mesh)
    state = state.replace(target_params={"of": "the target"})
    images = np.zeros((4, 32, 32, 3), np.uint8)
    split = Split(images.__getitem__, size=4, labels=np.arange(4, dtype=np.int32) % 2)
    seen = []

    def accuracy(knn, encode, params, batch_stats):
        seen.append(params)
        return Accuracy(50.0, 40.0)

    monkeypatch.setattr(OnlineKnn, "_accuracy", accuracy)
    for network in ("online", "target"):
        config.evaluate.network = network
        run = Run(config, model, None, mesh, Data(split, split, None))
        assert OnlineKnn(run)(state, run) == {"knn": 50.0, "knn_balanced": 40.0}
    assert seen[0] is state.params and seen[1] is state.target_params


def test_a_run_that_starts_from_an_encoder_says_both_accuracies(monkeypatch, mesh_of):
    config, mesh = tiny.config(), mesh_of(1)
    model, *_ = tiny.build(config, mesh)
    images = np.zeros((4, 32, 32, 3), np.uint8)
    split = Split(images.__getitem__, size=4, labels=np.array([0, 1, 1, 1], np.int32))
    knn = OnlineKnn(Run(config, model, None, mesh, Data(split, split, None)))
    untrained, start = object(), object()
    of = {untrained: Accuracy(20.0, 10.0), start: Accuracy(60.0, 30.0)}
    monkeypatch.setattr(knn, "of_state", of.get)
    monkeypatch.setattr(knn, "of_raw_pixels", lambda: Accuracy(5.0, 4.0))
    found = knn.baseline(untrained, start)
    assert found["knn_untrained"] == 20 and found["knn_untrained_balanced"] == 10
    assert found["knn_initial"] == 60 and found["knn_raw_pixels"] == 5
    assert found["majority"] == 75 and found["majority_balanced"] == 50
    assert "knn_initial" not in knn.baseline(untrained, untrained)
