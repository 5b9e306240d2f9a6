"""`open_data`, `Split` and `hold_back`."""

from __future__ import annotations

import numpy as np
import pytest
from ml_collections import ConfigDict

from snclr_jax.data import Split, hold_back, open_data


def tiny_split(size: int = 40, group: np.ndarray | None = None, labels=None) -> Split:
    """Image i is 2 x 2 pixels of the value i."""
    images = np.broadcast_to(
        np.arange(size, dtype=np.uint8)[:, None, None, None], (size, 2, 2, 3)
    )
    return Split(images.__getitem__, size=size, group=group, labels=labels)


def which(split: Split) -> list[int]:
    return split.images()[:, 0, 0, 0].tolist()


def digits_config(**fields) -> ConfigDict:
    defaults = {"name": "digits", "image_size": 16, "pictures_per_digit": 1}
    return ConfigDict(defaults | {"holdback": 0} | fields)


def test_read_keeps_the_order_that_was_asked_for():
    asked = np.random.RandomState(0).randint(0, 200, 150)
    read = tiny_split(200).read(asked)
    assert read.dtype == np.uint8 and read.shape == (150, 2, 2, 3)
    assert read[:, 0, 0, 0].tolist() == asked.tolist()


def test_images_are_decoded_once():
    decoded = []

    def load(indices):
        decoded.extend(indices.tolist())
        return np.zeros((len(indices), 2, 2, 3), np.uint8)

    split = Split(load, size=70)
    assert split.images() is split.images()
    assert split.read(range(3, 40)).shape == (37, 2, 2, 3)
    assert sorted(decoded) == list(range(70))


def test_labels_are_read_when_first_asked_for():
    calls = []

    def read_labels(rows):
        calls.append(1)
        return np.array(rows, np.int32)

    split = tiny_split(labels=read_labels)
    part = split.subset(np.array([3, 1]))
    assert split.labelled and part.labelled and not calls
    assert part.labels.tolist() == [3, 1]
    assert split.labels[5] == 5 and len(calls) == 1
    assert tiny_split().labels is None and not tiny_split().labelled


def test_names_follow_images_through_every_choice_of_them():
    split = tiny_split(group=np.arange(40, dtype=np.int32) // 4)
    assert split.names([7, 0]) == ["image/7", "image/0"] and split.names([]) == []
    train, held = hold_back(split, 12)
    for part in (train, held, held.subset(np.array([5, 2, 9]))):
        names = part.names(np.arange(part.size))
        assert names == [f"image/{image}" for image in which(part)]


def test_holdback_divides_the_split_without_loss():
    labels = np.arange(40, dtype=np.int32) % 7
    train, held = hold_back(tiny_split(labels=labels), 12)
    assert held.size == 12 and train.size == 28
    assert sorted(which(train) + which(held)) == list(range(40))
    for part in (train, held):
        assert which(part) == sorted(which(part))
        assert part.labels.tolist() == [i % 7 for i in which(part)]


def test_holdback_never_divides_a_group():
    group = np.array([5, 9, 2, 7] * 10, np.int32)
    train, held = hold_back(tiny_split(group=group), 12)
    assert held.size == 20  # two groups of ten: at least twelve
    assert not set(train.group.tolist()) & set(held.group.tolist())
    assert held.group.tolist() == [group[i] for i in which(held)]


def test_holdback_choice_never_changes():
    # Recorded once: a recipe chosen on these images must be scored on the same ones.
    assert which(hold_back(tiny_split(10), 3)[1]) == [2, 4, 8]


@pytest.mark.parametrize("count", [-1, 40, 100])
def test_impossible_holdback_is_refused(count):
    with pytest.raises(ValueError, match=rf"data\.holdback is {count}.* 40 images"):
        hold_back(tiny_split(), count)


def test_open_data_holds_back_digits_in_place_of_the_test_split():
    data = open_data(digits_config(pictures_per_digit=2, holdback=100))
    assert (data.train.size, data.test.size) == (2900, 100)
    assert not set(data.train.group.tolist()) & set(data.test.group.tolist())
    assert data.class_names == tuple("0123456789")


def test_unknown_source_is_refused():
    with pytest.raises(ValueError, match=r'data\.name is \'cifar\'; use "digits"'):
        open_data(digits_config(name="cifar"))
