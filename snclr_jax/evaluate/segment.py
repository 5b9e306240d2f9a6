"""`snclr segment`: how well a frozen encoder tells what the places of images show."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh
from ml_collections import ConfigDict

from snclr_jax.data import Split
from snclr_jax.data.masks import IGNORED, Masked, open_masks
from snclr_jax.devices.mesh import make_mesh
from snclr_jax.encoder.encode import Encode, make_encode
from snclr_jax.encoder.stored import Encoder, open_encoder
from snclr_jax.evaluate.features import extract_features, make_raw_places
from snclr_jax.evaluate.frozen.checks import check_positive
from snclr_jax.evaluate.frozen.segmentation import (
    Scores,
    confusion,
    enlarged,
    fit_places,
    place_labels,
    segmentation_scores,
)
from snclr_jax.evaluate.results import (
    Record,
    check_records,
    keep_record,
    make_record,
    records_path,
    table,
)
from snclr_jax.run.metrics import say
from snclr_jax.run.workdir import as_json
from snclr_jax.settings.paths import located

_HELD_BYTES = 2**30  # of dense features at a time
_READ_AT_ONCE = 64  # masks whose votes are counted at a time


class _Dense(NamedTuple):
    """Whose dense features; see `Subject` for the names."""

    name: str
    encoder: Encoder | None
    encode: Encode  # uint8 (b, s, s, 3) -> (b, rows, columns, f)
    batch_size: int
    mesh: Mesh

    def _variables(self) -> tuple[Any, Any]:
        encoder = self.encoder
        return (encoder.params, encoder.batch_stats) if encoder else (None, None)

    def shape(self, images: Split) -> tuple[int, ...]:
        """Returns (1, rows, columns, f), computing nothing."""
        return jax.eval_shape(self.encode, *self._variables(), images.read([0])).shape

    def parts(self, images: Split) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields rows of some images at a time, and float32 (b, rows, columns, f)."""
        of = self._variables()
        count = max(1, _HELD_BYTES // (4 * int(np.prod(self.shape(images)))))
        for start in range(0, images.size, count):
            rows = np.arange(start, min(start + count, images.size))
            yield (
                rows,
                extract_features(
                    self.encode,
                    *of,
                    images.subset(rows),
                    batch_size=self.batch_size,
                    mesh=self.mesh,
                    description=f"dense features of {self.name}",
                ),
            )


class _Task(NamedTuple):
    """What is learned from, and what is scored.

    Attributes:
      train: the training images.
      image: int "m", rising: the images of the training places.
      place: int "m", which place of its image each is, row by row.
      labels: uint8 "m".
      test: the test images.
      truth: uint8 (n, v, v), the labels of their pixels.
    """

    train: Split
    image: np.ndarray
    place: np.ndarray
    labels: np.ndarray
    test: Split
    truth: np.ndarray


def segment(
    path: epath.PathLike,
    masks: str | Path,
    settings: ConfigDict,
    *,
    network: str | None = None,
    baselines: bool = False,
) -> list[Record]:
    """Labels the pixels of test images by their places' features; keeps the scores.

    Votes of nearest neighbors and a linear classifier learn from training places, each
    with the label of most of its pixels. A test pixel gets the answer of its place. The
    scores, see `Scores`, go where `evaluate` keeps its records.

    Args:
      path: a run's workdir, a checkpoint in it, or an exported file.
      masks: the folder, see `open_masks`.
      settings: `configs/evaluate.py`; reads `segment`, `seed` and `batch_size`.
      network: whose encoder, see `open_encoder`.
      baselines: score an untrained encoder and raw pixels beside it.

    Returns:
      The records, the details of which have the IoU of every label.

    Raises:
      ValueError: where the encoder is not whole; for images or masks that do not fit
        (see `open_masks`), without two labels, or with labels in the test alone; for a
        setting out of range.
    """
    check_positive("segment.places", [settings.segment.places])
    mesh = make_mesh()
    destination = records_path(path)
    check_records(destination)
    encoder = open_encoder(path, network=network, mesh=mesh)
    say(encoder.describe())
    dense = _Dense(
        "trained",
        encoder,
        make_encode(encoder.model.dense, encoder.config, mesh),
        settings.batch_size,
        mesh,
    )
    train, test = open_masks(masks, encoder.config)
    _, rows, columns, _ = dense.shape(train.images)
    grid = rows, columns
    task = _read(train, test, grid, settings)
    subjects = [dense]
    if baselines:
        raw = make_raw_places(encoder.config, grid, mesh)
        subjects += [
            dense._replace(name="untrained", encoder=encoder.untrained(settings.seed)),
            dense._replace(name="pixels", encoder=None, encode=raw),
        ]
    records = []
    for subject in subjects:
        scores = _score(subject, task, settings.segment)
        records.append(_record(subject, scores, task, settings, encoder.config, masks))
        # One by one: what took hours is kept, whatever comes after it.
        keep_record(destination, records[-1])
    say(f"{table(records)}\n\n{_iou_table(records[0])}\n{destination}")
    return records


def _read(
    train: Masked, test: Masked, grid: tuple[int, int], settings: ConfigDict
) -> _Task:
    """Reads all masks, and draws the training places."""
    labels, found = [], np.zeros(IGNORED, bool)
    for start in range(0, train.masks.size, _READ_AT_ONCE):
        rows = np.arange(start, min(start + _READ_AT_ONCE, train.masks.size))
        masks = train.masks.read(rows)
        found |= np.bincount(masks.ravel(), minlength=IGNORED + 1)[:IGNORED] > 0
        labels.append(place_labels(masks, *grid))
    truth = test.masks.images()
    tested = np.bincount(truth.ravel(), minlength=IGNORED + 1)[:IGNORED] > 0
    _check_labels(train.folder, found, test.folder, tested)
    flat = np.concatenate(labels).reshape(train.masks.size, -1)
    image, place = np.nonzero(flat != IGNORED)
    if len(image) > (most := settings.segment.places):
        say(f"{most:,} of {len(image):,} training places are drawn (segment.places)")
        # RandomState's stream is frozen (NEP 19); Generator's may change with numpy.
        drawn = np.random.RandomState(settings.seed).permutation(len(image))[:most]
        image, place = image[np.sort(drawn)], place[np.sort(drawn)]
    return _Task(train.images, image, place, flat[image, place], test.images, truth)


def _check_labels(train: str, found: np.ndarray, test: str, tested: np.ndarray) -> None:
    """Asks for two labels to learn, and for none in the test alone.

    Args:
      train, test: folders of the masks.
      found, tested: bool "255", the labels in each.
    """
    for folder, labels in ((train, found), (test, tested)):
        if not labels.any():
            raise ValueError(
                f"--masks: no pixel of {folder} has a label, only {IGNORED}, which "
                "does not count; number labels from 0"
            )
    if found.sum() < 2:
        raise ValueError(
            f"--masks: every pixel of {train} that counts has the label "
            f"{found.argmax()}; use two labels or more, of which none is {IGNORED}: 0 "
            "and 1, not 0 and 255"
        )
    alone = np.flatnonzero(tested & ~found)
    if alone.size:
        raise ValueError(
            f"--masks: {test} has labels that no mask in {train} has "
            f"({', '.join(map(str, alone))}); add training masks of them, or make "
            f"these pixels {IGNORED}"
        )


def _score(dense: _Dense, task: _Task, settings: ConfigDict) -> dict[str, Scores]:
    """Returns the scores of every way to label the test's places."""
    labels, mesh = task.labels, dense.mesh
    classify = fit_places(
        _features(dense, task),
        labels,
        mesh=mesh,
        **{name: settings[name] for name in ("k", "temperature", "l2", "max_steps")},
    )
    counts: dict[str, np.ndarray | int] = {}
    for rows, features in dense.parts(task.test):
        truth = task.truth[rows]
        answers = classify(features.reshape(-1, features.shape[-1]))
        for name, of_places in answers.items():
            answer = enlarged(of_places.reshape(features.shape[:3]), *truth.shape[1:])
            counts[name] = counts.get(name, 0) + confusion(truth, answer)
    return {name: segmentation_scores(np.asarray(of)) for name, of in counts.items()}


def _features(dense: _Dense, task: _Task) -> np.ndarray:
    """Returns the features of the training places, float32 "m f"."""
    images, position = np.unique(task.image, return_inverse=True)
    found = []
    for rows, features in dense.parts(task.train.subset(images)):
        inside = (position >= rows[0]) & (position <= rows[-1])
        flat = features.reshape(len(rows), -1, features.shape[-1])
        found.append(flat[position[inside] - rows[0], task.place[inside]])
    return np.concatenate(found)


def _record(
    dense: _Dense,
    scores: dict[str, Scores],
    task: _Task,
    settings: ConfigDict,
    config: ConfigDict,
    masks: str | Path,
) -> Record:
    metrics, used = {}, as_json(settings)
    for name, score in scores.items():
        metrics[f"{name}_mIoU"] = score.mean_iou
        metrics[f"{name}_pixel_accuracy"] = score.pixel_accuracy
    iou = {
        name: {str(label): value for label, value in score.iou.items()}
        for name, score in scores.items()
    }
    return make_record(
        "segment",
        dense.name,
        dense.encoder,
        metrics,
        {"iou": iou, "places": len(task.labels)},
        data=f"masks={located(masks)}",
        settings={name: used[name] for name in ("segment", "seed")}
        | {"data": as_json(config)["data"], "size": config.augment.size},
    )


def _iou_table(record: Record) -> str:
    """Returns the IoU of every label, a line each, a column for each way to answer."""
    iou = record["details"]["iou"]
    labels = next(iter(iou.values()))
    lines = ["IoU of label" + "".join(f"{name:>12}" for name in iou)]
    lines += [
        f"{label:>12}" + "".join(f"{of[label]:12.2f}" for of in iou.values())
        for label in labels
    ]
    return "\n".join(lines)
