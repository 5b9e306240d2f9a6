"""Labels of places, and scores of pixels, against loops over pixels."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest

from snclr_jax.devices.mesh import make_mesh
from snclr_jax.evaluate.frozen.segmentation import (
    confusion,
    enlarged,
    fit_places,
    place_labels,
    segmentation_scores,
)


def place_of(pixel, pixels, places):
    """The place whose share of the side, from r to r + 1, has the pixel's middle."""
    middle = (pixel + 0.5) * places / pixels
    return next(r for r in range(places) if r <= middle < r + 1)


@pytest.mark.parametrize(
    ("height", "width", "rows", "columns"), [(8, 6, 2, 3), (7, 10, 3, 4)]
)
def test_places_have_the_label_of_most_pixels(rng, height, width, rows, columns):
    masks = rng.choice(np.uint8([0, 3, 254, 255]), (3, height, width))
    masks[1, :4] = 255  # places without any label
    labels = place_labels(masks, rows, columns)
    large = enlarged(labels, height, width)
    votes = defaultdict(Counter)
    for (n, y, x), label in np.ndenumerate(masks):
        at = n, place_of(y, height, rows), place_of(x, width, columns)
        votes[at][int(label)] += label != 255
        assert large[n, y, x] == labels[at]
    assert len(votes) == labels.size
    for at, counts in votes.items():
        most = max(counts.values())
        lowest = min(label for label, count in counts.items() if count == most)
        assert labels[at] == (lowest if most else 255)


def test_scores_are_those_of_sets_of_pixels(rng):
    """Over all images at once; labels that no pixel has count in no mean."""
    labels = rng.choice(np.uint8([0, 1, 7, 255]), (2, 9, 5), p=[0.5, 0.3, 0.1, 0.1])
    answers = np.where(rng.uniform(size=labels.shape) < 0.6, labels, 9).astype(np.uint8)
    answers[labels == 255] = 1
    counts = sum(confusion(*each) for each in zip(labels, answers, strict=True))
    scores = segmentation_scores(counts)
    pixels = [p for p, label in np.ndenumerate(labels) if label != 255]
    iou = {}
    for label in (0, 1, 7):
        of_label = {p for p in pixels if labels[p] == label}
        answered = {p for p in pixels if answers[p] == label}
        iou[label] = 100 * len(of_label & answered) / len(of_label | answered)
    assert scores.iou == pytest.approx(iou, rel=1e-12)
    assert scores.mean_iou == pytest.approx(sum(iou.values()) / 3, rel=1e-12)
    right = sum(labels[p] == answers[p] for p in pixels)
    assert scores.pixel_accuracy == pytest.approx(100 * right / len(pixels), rel=1e-12)


def test_every_answer_is_of_its_row(rng):
    """Three directions far apart, of labels far apart: whatever asks is right."""
    labels = np.uint8([200, 3, 77, 3, 3, 200, 77, 3])
    centers = {200: [9, 0, 0], 3: [0, 9, 0], 77: [0, 0, 9]}
    features = np.array([centers[label] for label in labels.tolist()], np.float32)
    features += rng.normal(scale=0.1, size=features.shape)
    classify = fit_places(
        features,
        labels,
        k=(1, 8),
        temperature=(0.05,),
        l2=1e-3,
        max_steps=20,
        mesh=make_mesh(),
    )
    answers = classify(np.float32([centers[label] for label in (77, 200, 3)]))
    right, most = [77, 200, 3], [3, 3, 3]
    assert {name: answer.tolist() for name, answer in answers.items()} == {
        "k1": right,
        "k1_T0.05": right,
        "k8": most,
        "k8_T0.05": right,
        "linear": right,
        "majority": most,
    }
    assert {answer.dtype for answer in answers.values()} == {np.dtype(np.uint8)}


def test_the_linear_answer_takes_features_as_they_were_fitted(rng):
    """Far from zero, and the one that tells labels apart is the smaller one."""
    labels = np.tile(np.uint8([4, 9]), 30)
    told = np.where(labels == 9, 1.0, -1.0) + rng.normal(scale=0.1, size=60)
    noise = 50 * rng.normal(size=60)
    features = np.float32(100 + np.stack([told, noise], axis=1))
    sizes = dict(k=(1,), temperature=(0.1,), l2=1e-4, max_steps=50)
    classify = fit_places(features[:40], labels[:40], **sizes, mesh=make_mesh())
    np.testing.assert_array_equal(classify(features[40:])["linear"], labels[40:])
