"""Few-shot classification against scikit-learn, on every device count."""

import numpy as np
import pytest
import scipy.stats
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from snclr_jax.configs import evaluate as settings_file

from snclr_jax.evaluate.frozen import fewshot
from snclr_jax.evaluate.frozen.subsets import class_balanced


def score(*splits, **changed):
    """Few-shot with the settings of `snclr evaluate`, but for those changed."""
    settings = dict(settings_file.get_config().fewshot, seed=0)
    return fewshot.few_shot(*splits, **settings | changed)


@pytest.fixture(scope="module")
def digits():
    data, labels = load_digits(return_X_y=True)
    return data[:300], labels[:300], data[300:513], labels[300:513]


def oracle(digits, shots, draw, l2, seed=0):
    """scikit-learn's accuracy of one draw."""
    scaler = StandardScaler().fit(digits[0])
    train, test = (scaler.transform(features) for features in digits[::2])
    rows = class_balanced(digits[1], per_class=shots, seed=(seed, draw))
    model = LogisticRegression(C=1 / (len(rows) * l2), tol=1e-8, max_iter=2000)
    return 100 * model.fit(train[rows], digits[1][rows]).score(test, digits[3])


def test_every_draw_equals_scikit_learns(digits, mesh_of):
    settings = dict(shots=(2,), draws=3, l2=1e-2, seed=7)
    (result,) = score(*digits, mesh=mesh_of(8), **settings)
    expected = [oracle(digits, 2, draw, 1e-2, seed=7) for draw in range(3)]
    # At most one of 213 rows differs, where two classes are equally likely.
    np.testing.assert_allclose(result.draws, expected, atol=0.5)
    assert len(set(result.draws)) == 3 and 50 < result.accuracy.top1 < 90
    interval = scipy.stats.t.interval(
        0.95, 2, result.accuracy.top1, scipy.stats.sem(result.draws)
    )
    assert result.accuracy.top1 == pytest.approx(np.mean(result.draws))
    assert result.accuracy.top1 - result.interval == pytest.approx(interval[0])
    assert result.shots == 2
    # Its test images are of nearly the same number in each class.
    assert result.accuracy.balanced == pytest.approx(result.accuracy.top1, abs=2)
    assert result.accuracy.balanced != result.accuracy.top1


def test_neither_devices_nor_memory_change_it(digits, mesh_of, monkeypatch):
    settings = dict(shots=(2,), draws=3, l2=1e-2)
    together = score(*digits, mesh=mesh_of(8), **settings)
    monkeypatch.setattr(fewshot, "_FIT_BYTES", 1)  # one draw at a time on each device
    apart = score(*digits, mesh=mesh_of(1), **settings)
    np.testing.assert_allclose(together[0].draws, apart[0].draws, atol=1e-4)


def test_two_classes(mesh_of):
    rng = np.random.default_rng(0)
    labels = np.arange(400) % 2
    data = rng.normal(size=(400, 20)) + 0.8 * labels[:, None]
    split = data[:200], labels[:200], data[200:], labels[200:]
    (result,) = score(*split, mesh=mesh_of(8), shots=(5,), draws=2, l2=1e-2)
    expected = [oracle(split, 5, draw, 1e-2) for draw in range(2)]
    np.testing.assert_allclose(result.draws, expected, atol=0.5)
    assert 60 < result.accuracy.top1 < 95


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(shots=()), r"shots is \(\); use one or more"),
        (dict(shots=(1, 0)), r"shots is \(1, 0\)"),
        (dict(draws=1), "draws is 1; an interval takes 2"),
        (dict(l2=0.0), "l2 is 0.0; use a value above 0"),
        (dict(shots=(1, 3)), "class 1 has 2 train images, fewer than shots 3; use few"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message, mesh_of):
    train, labels = np.eye(5), np.array([0, 0, 0, 1, 1])
    with pytest.raises(ValueError, match=message):
        score(train, labels, train, labels, mesh=mesh_of(1), **settings)


def test_a_class_without_train_images_is_named(mesh_of):
    with pytest.raises(ValueError, match="class 7 has 0 train images, fewer than sh"):
        score(np.eye(2), [0, 1], np.eye(2), [0, 7], mesh=mesh_of(1), shots=(1,))


def test_splits_that_do_not_fit_are_refused(mesh_of):
    with pytest.raises(ValueError, match="test features are 1 wide, train features 2"):
        score(np.eye(2), [0, 1], np.eye(2)[:, :1], [0, 1], mesh=mesh_of(1))
    with pytest.raises(ValueError, match="train labels"):
        score(np.eye(2), [0], np.eye(2), [0, 1], mesh=mesh_of(1))
