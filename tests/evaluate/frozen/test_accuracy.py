"""Accuracies of classes that differ in size are those of scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.metrics import accuracy_score

from snclr_jax.evaluate.frozen.accuracy import accuracy, majority


@pytest.fixture
def labels(rng):
    """Training and test labels of five classes, of which the test lacks one."""
    return rng.choice(5, 200, p=(0.1, 0.6, 0.1, 0.1, 0.1)), rng.choice([0, 1, 2, 4], 90)


def test_both_accuracies_are_those_of_a_loop_over_the_classes(labels, rng):
    _, true = labels
    predicted = np.where(rng.random(90) < 0.5, true, rng.integers(0, 5, 90))
    found = accuracy(true, predicted)
    assert found.top1 == pytest.approx(100 * accuracy_score(true, predicted))
    of_classes = [np.mean(predicted[true == c] == c) for c in (0, 1, 2, 4)]
    assert found.balanced == pytest.approx(100 * np.mean(of_classes))
    assert abs(found.top1 - found.balanced) > 0.01
    assert found.named("k1") == {"k1": found.top1, "k1_balanced": found.balanced}


def test_the_majority_is_that_of_the_training_images(labels):
    train, true = labels
    dummy = DummyClassifier(strategy="most_frequent").fit(train[:, None], train)
    found = majority(train, true)
    assert found.top1 == pytest.approx(100 * dummy.score(true[:, None], true))
    assert found.balanced == pytest.approx(25)
    assert majority(np.array([2, 2, 0]), np.array([0, 1])) == (0.0, 0.0)
