"""Which images, labels and settings each evaluation gives to what it stands for."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import tiny
from saved import filled_queue
from snclr_jax.configs import evaluate as settings_file

from snclr_jax.data import Split
from snclr_jax.devices.mesh import make_mesh
from snclr_jax.evaluate import evaluations
from snclr_jax.evaluate.evaluations import EVALUATIONS, Task
from snclr_jax.evaluate.frozen.accuracy import Accuracy
from snclr_jax.evaluate.quality_views import RandomViews
from snclr_jax.evaluate.tuned.supervised import ClassifierResult
from snclr_jax.step.objective import Found

CLASSES = 3


def images(count, *, first=0, group=None):
    """Images of random labels, each of one value of its own, from `first` on."""
    labels = np.random.default_rng(first).integers(0, CLASSES, count).astype(np.int32)
    values = np.arange(first, first + count, dtype=np.uint8)
    pixels = np.broadcast_to(values[:, None, None, None], (count, 32, 32, 3))
    return Split(pixels.__getitem__, size=count, labels=labels, group=group)


class Known:
    """A subject whose only feature is the label, in the test that of the next class."""

    encoder = SimpleNamespace(params={}, batch_stats={}, step=60)

    def __init__(self, test):
        self._test = test

    def features(self, split):
        return np.eye(CLASSES, 8)[(split.labels + (split is self._test)) % CLASSES]

    def layers(self, split):
        return {"features": self.features(split)}


def task(train, **fields):
    """A task of 20 test images; `section__field=value` overrides its settings."""
    test, settings = images(20, first=100), settings_file.get_config("debug")
    return Task(
        subject=Known(test),
        images=train,
        train=train,
        test=test,
        networks=None,
        config=tiny.config(),
        settings=tiny.override(settings, **fields),
        mesh=make_mesh(),
    )


@pytest.fixture
def trainings(monkeypatch):
    """What classifiers were to be trained on and by: (protocol, train, test) each."""
    given = []

    def train_classifier(protocol, params, batch_stats, train, test, **_):
        given.append((protocol, train, test))
        return ClassifierResult(Accuracy(1.0, 2.0), None, 0.0, train.size, 8, 1.0, 0, 1)

    monkeypatch.setattr(evaluations, "train_classifier", train_classifier)
    return given


def values(split):
    """The values of a split's images."""
    return split.images()[:, 0, 0, 0].tolist()


def test_the_linear_probe_is_scored_on_the_test_and_divides_no_group(monkeypatch):
    given, linear_probe = {}, evaluations.linear_probe

    def probe(*features_and_labels, **settings):
        given.update(settings)
        return linear_probe(*features_and_labels, **settings)

    monkeypatch.setattr(evaluations, "linear_probe", probe)
    train = images(60, group=np.repeat(np.arange(30, dtype=np.int32), 2))
    metrics = EVALUATIONS["linear"].run(task(train)).metrics
    assert (metrics["held_back"], metrics["top1"]) == (100.0, 0.0)
    assert given["group"] is train.group


@pytest.mark.parametrize("name", ["linear_augmented", "finetune", "semi"])
def test_what_is_trained_is_scored_on_the_test_images(trainings, name):
    of = task(images(60))
    assert EVALUATIONS[name].run(of).metrics
    ((protocol, train, test),) = trainings
    assert test is of.test
    assert protocol.tunes_encoder == (name != "linear_augmented")
    assert (train is of.train) == (name != "semi")


def test_a_share_of_the_labels_is_all_that_is_learned_from(trainings):
    """By its own settings, and where these say nothing by those of fine-tuning."""
    of = task(
        images(60),
        semi__epochs=7,
        semi__label_smoothing=0.25,
        finetune__epochs=3,
        finetune__learning_rate=0.375,
    )
    metrics = EVALUATIONS["semi"].run(of).metrics
    assert metrics == {"50%_top1": 1.0, "50%_top1_balanced": 2.0}
    ((protocol, train, _),) = trainings
    for number in range(CLASSES):
        whole = (of.train.labels == number).sum()
        assert (train.labels == number).sum() == pytest.approx(whole / 2, abs=0.5)
    assert set(values(train)) < set(values(of.train))
    assert protocol.config.epochs == 7 and protocol.label_smoothing == 0.25
    assert protocol.config.optim.learning_rate == 0.375


def test_published_lists_name_the_images_of_their_share(trainings, tmp_path):
    lists = {"1percent.txt": range(8), "10percent.txt": range(3, 50, 2)}
    for name, rows in lists.items():
        (tmp_path / name).write_text("".join(f"{row}\n" for row in rows))
    shares = dict(semi__share=(0.1, 0.01), semi__lists=str(tmp_path))
    EVALUATIONS["semi"].run(task(images(60), **shares))
    trained_on = [values(train) for _, train, _ in trainings]
    assert trained_on == [list(lists["10percent.txt"]), list(lists["1percent.txt"])]
    with pytest.raises(ValueError, match=r"semi.share 0.5 has no published list"):
        EVALUATIONS["semi"].run(task(images(60), semi__lists=str(tmp_path)))


def test_choices_are_judged_by_the_images_that_made_them(monkeypatch, rng):
    """Some of the images, spread over all: each chooses images of its own class."""
    train = images(90)

    def encode_random_views(encoder, networks, split, image_id, **_):
        assert values(split) == image_id.tolist() != list(range(len(image_id)))
        chosen = np.empty((len(image_id), 4), np.int32)
        for row, image in enumerate(image_id):
            own = np.flatnonzero(train.labels == train.labels[image])
            chosen[row] = rng.choice(own, 4)
        features = rng.normal(size=(2, len(image_id), 8))
        found = Found(
            similarity=np.zeros(chosen.shape),
            row=rng.integers(10, 20, chosen.shape),
            image_id=chosen,
            pushed_at=np.full(chosen.shape, 50),
            valid=np.ones(chosen.shape, bool),
            weight=np.full(chosen.shape, 0.25),
        )
        return RandomViews(*features, found)

    monkeypatch.setattr(evaluations, "encode_random_views", encode_random_views)
    of = task(train, quality__images=30)
    queue = filled_queue(rng, of.config, of.mesh, step=60)
    of = of._replace(networks=SimpleNamespace(objective=queue))
    metrics = EVALUATIONS["quality"].run(of).metrics
    assert metrics["queue_purity"] == metrics["queue_purity_rank1"] == 1
    assert metrics["queue_age"] == 10
