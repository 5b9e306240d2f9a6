"""Which images the kNN of a run in training votes with."""

from __future__ import annotations

import numpy as np

from snclr_jax.data import Split
from snclr_jax.evaluate.online import with_labels


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
