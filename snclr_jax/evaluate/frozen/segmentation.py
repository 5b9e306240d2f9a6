"""Segmentation by frozen features of places: labels of places, answers, scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh

from snclr_jax.data.masks import IGNORED
from snclr_jax.evaluate.frozen.checks import check_positive, check_split
from snclr_jax.evaluate.frozen.classifier import TrainSet, measure_scaling
from snclr_jax.evaluate.frozen.knn import named, vote
from snclr_jax.evaluate.frozen.logistic import fit_strengths
from snclr_jax.evaluate.frozen.neighbors import nearest

_LABELS = IGNORED + 1

# "n f" features -> "n" labels, by the name of the setting
Classify = Callable[[np.ndarray], dict[str, np.ndarray]]


def place_labels(masks: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Returns the label that most pixels of each place have, of equals the lowest.

    Args:
      masks: uint8 "n h w".
      rows, columns: of the places, which divide an image evenly: pixel i of h lies in
        row floor((i + 1/2) rows / h).

    Returns:
      uint8 "n rows columns", IGNORED where no pixel of the place has a label.

    Example:
      >>> place_labels(np.array([[[7, 2], [2, 255]]]), 1, 1)
      array([[[2]]], dtype=uint8)
    """
    count, height, width = masks.shape
    row, column = _places(height, rows), _places(width, columns)
    place = (np.arange(count)[:, None, None] * rows + row[:, None]) * columns + column
    votes = np.bincount(
        (place * _LABELS + masks).ravel(), minlength=count * rows * columns * _LABELS
    ).reshape(count, rows, columns, _LABELS)
    votes[..., IGNORED] = 0
    most = votes.argmax(axis=-1)
    return np.where(votes.any(axis=-1), most, IGNORED).astype(np.uint8)


def enlarged(labels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Returns every pixel's label, that of its place: "n h w" of "n rows columns"."""
    row = _places(height, labels.shape[1])
    return labels[:, row[:, None], _places(width, labels.shape[2])]


def _places(pixels: int, places: int) -> np.ndarray:
    """Returns in which of the places along a side the middle of each pixel lies."""
    return (2 * np.arange(pixels) + 1) * places // (2 * pixels)


def confusion(masks: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Counts pixels by their label and by the answer, those of IGNORED left out.

    Args:
      masks: uint8 labels, of any shape.
      answers: uint8, of the same shape, none of them IGNORED.

    Returns:
      int "256 256", rows by label, columns by answer.
    """
    counted = masks != IGNORED
    pairs = masks[counted].astype(np.intp) * _LABELS + answers[counted]
    return np.bincount(pairs, minlength=_LABELS**2).reshape(_LABELS, _LABELS)


class Scores(NamedTuple):
    """How well pixels are labelled, in percent.

    Attributes:
      mean_iou: the mean of `iou`.
      pixel_accuracy: share of the pixels whose answer is their label.
      iou: by label, of those that pixels have.
    """

    mean_iou: float
    pixel_accuracy: float
    iou: dict[int, float]


def segmentation_scores(counts: np.ndarray) -> Scores:
    """Returns the scores of all pixels together, as Pascal VOC has them.

        IoU(c) = right(c) / (label(c) + answer(c) - right(c))

    over pixels with the label c, with the answer c, and with both (Everingham et al.,
    2015, "The Pascal visual object classes challenge: a retrospective").
    A label that no pixel has is in no mean; to answer it costs the pixel's own.

    Args:
      counts: of `confusion`, over all images; at least one pixel.

    Example:
      >>> labels, answers = np.uint8([0, 0, 0, 1]), np.uint8([0, 0, 1, 1])
      >>> scores = segmentation_scores(confusion(labels, answers))
      >>> scores.pixel_accuracy, scores.iou[1]
      (75.0, 50.0)
    """
    right, label, answer = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
    found = np.flatnonzero(label)
    iou = 100 * right[found] / (label + answer - right)[found]
    return Scores(
        float(iou.mean()),
        100 * float(right.sum() / label.sum()),
        dict(zip(found.tolist(), iou.tolist(), strict=True)),
    )


def fit_places(
    features: np.ndarray,
    labels: np.ndarray,
    *,
    k: Sequence[int],
    temperature: Sequence[float],
    l2: float,
    max_steps: int,
    mesh: Mesh,
) -> Classify:
    """Fits what labels places by their features, one by one.

    "k20" and "k20_T0.07" are the votes of `vote`; "linear" is the logistic regression
    of `linear_probe`, by L-BFGS with one strength of the penalty; "majority" is the
    label of most training places, whatever the features.

    Args:
      features: "n f", of training places.
      labels: int "n", each >= 0.
      k, temperature: as in `vote`, each above 0.
      l2: strength of the penalty, > 0.
      max_steps: of L-BFGS, >= 1.
      mesh: the devices.

    Returns:
      A function from features "m f" to labels, uint8 "m", by these names.

    Raises:
      ValueError: for features that are not finite, labels that do not match them, or a
        setting out of range.
    """
    check_positive("segment.k", k)
    check_positive("segment.temperature", temperature)
    check_positive("segment.l2", [l2])
    check_positive("segment.max_steps", [max_steps])
    features, labels = check_split("train", features, labels)
    # Labels may be far apart; a classifier has the classes there are.
    classes, number = np.unique(labels, return_inverse=True)
    scaling = measure_scaling(features)
    layer = "places"
    weights, _ = fit_strengths(
        TrainSet(
            {layer: features}, {layer: scaling}, number.astype(np.int32), len(classes)
        ),
        layer,
        [l2],
        np.arange(len(labels)),
        max_steps=max_steps,
        mesh=mesh,
    )
    kernel, bias = np.asarray(weights.kernel[0]), np.asarray(weights.bias[0])
    most = np.bincount(labels).argmax()

    def classify(rows: np.ndarray) -> dict[str, np.ndarray]:
        similarity, row = nearest(features, rows, max(k), mesh=mesh)
        voted = vote(similarity, row, labels, k=k, temperature=temperature)
        answers = {named(setting): answer for setting, answer in voted.items()}
        answers["linear"] = classes[(scaling(rows) @ kernel.T + bias).argmax(axis=1)]
        answers["majority"] = np.full(len(rows), most)
        return {name: answer.astype(np.uint8) for name, answer in answers.items()}

    return classify
