"""Evaluates and feeds images of which each process reads its share, and keeps all."""

from __future__ import annotations

from typing import Any

import numpy as np
import tiny

from snclr_jax.data import Data, Split
from snclr_jax.data.decode import UnreadableImage
from snclr_jax.data.feed import Feed
from snclr_jax.devices.shares import read_in_shares
from snclr_jax.evaluate.features import extract_features, make_raw_pixels
from snclr_jax.evaluate.online import OnlineKnn, Run
from snclr_jax.models import build_model

IMAGES, TEST_IMAGES = 45, 7
# At the end of the first of two shares, and of the set.
BAD = (21, 44)
SHOWN = np.where(np.isin(np.arange(IMAGES), BAD), 0, np.arange(IMAGES))
SHOWN[21] = 22


class Counted:
    """Images and labels of a set, some of them bad, and which rows were read of it."""

    def __init__(self, size: int, bad: tuple[int, ...] = ()) -> None:
        random = np.random.default_rng(size)
        self.pixels = random.integers(0, 256, (size, 16, 16, 3), np.uint8)
        self.bad, self.read, self.labels_read = bad, set(), set()

    def split(self, max_bad: float = 0.1) -> Split:
        size = len(self.pixels)
        return Split(self.load, size=size, labels=self.labels, max_bad=max_bad)

    def load(self, rows: np.ndarray) -> np.ndarray:
        self.read.update(rows.tolist())
        for row in np.intersect1d(rows, self.bad).tolist():
            raise UnreadableImage(f"image {row}", "torn")
        return self.pixels[rows]

    def labels(self, rows: range) -> np.ndarray:
        self.labels_read.update(rows)
        return np.array(rows, np.int32) % 3


def shared(mesh) -> dict[str, Any]:
    """Returns what is read, known, placed and scored, by name."""
    arrays: dict[str, Any] = {}
    config = tiny.config(evaluate__batch_size=16, batch_size=16, augment__size=16)
    model = build_model(config.model, predictor=True)
    for resident in (False, True):
        config.data.resident = resident
        train, test = Counted(IMAGES, BAD), Counted(TEST_IMAGES)
        data = Data(train.split(), test.split(), None)
        knn = OnlineKnn(Run(config, model, None, mesh, data))
        scores = [knn.of_raw_pixels() for _ in range(2)]
        names = read_in_shares(data.train.names, IMAGES)
        arrays |= {
            f"share/{resident}/knn": np.array(scores),
            f"share/{resident}/labels": data.train.labels,
            f"share/{resident}/names": np.array(names),
            f"share/{resident}/bad": np.array(data.train.bad.lines(BAD), str),
            f"reads/{resident}/images": sorted(train.read),
            f"reads/{resident}/labels": sorted(train.labels_read),
        }
    feed = Feed(config, (counted := Counted(IMAGES, BAD)).split(), mesh)
    options = dict(batch_size=16, mesh=mesh)
    pixels = make_raw_pixels(config, mesh)
    test = Counted(TEST_IMAGES).split()
    arrays |= {
        "share/resident": np.asarray(feed.next().resident),
        "share/features": extract_features(pixels, None, None, test, **options),
        "reads/feed/images": sorted(counted.read),
    }
    feed.batches.close()
    try:
        too_bad = Counted(IMAGES, BAD[1:]).split(max_bad=0)
        extract_features(pixels, None, None, too_bad, **options)
    except ValueError as error:
        arrays["refused"] = str(error)
    return arrays
