"""The images of a set that can be read, and their features, kept for the next time."""

from __future__ import annotations

import dataclasses
import functools
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from etils import epath
from jax.sharding import Mesh
from ml_collections import ConfigDict

from snclr_jax.data import Data, Split
from snclr_jax.data.bad_files import describe_bad
from snclr_jax.devices.mesh import make_mesh
from snclr_jax.encoder.stored import Encoder
from snclr_jax.evaluate.results import beside
from snclr_jax.evaluate.run import open_both
from snclr_jax.evaluate.subject import Subject, make_subjects
from snclr_jax.evaluate.write_features import write_features
from snclr_jax.run.metrics import say
from snclr_jax.run.workdir import as_json
from snclr_jax.settings.paths import absolute_paths, located

FEATURES_FILE = "features.npz"
FEWEST = 3  # images of which a map can be drawn
# What a file that another program wrote, or that was cut off, leads to.
_UNREADABLE = (OSError, ValueError, KeyError, zipfile.BadZipFile)


@dataclasses.dataclass(frozen=True)
class Images:
    """The images of all splits that can be read, one after the other.

    Attributes:
      splits: by name, "train" and, where there is one, "test".
      features: float32 (n, f), not zero.
      subject: what has the features of other images.
      mesh: the devices.
      folder: where what is found out goes.
      note: a sentence on images that cannot be read, "" for none.
    """

    splits: dict[str, Split]
    features: np.ndarray
    subject: Subject
    mesh: Mesh
    folder: Path
    note: str

    @property
    def encoder(self) -> Encoder:
        return self.subject.encoder

    @functools.cached_property
    def names(self) -> list[str]:
        """What the images are called: a file by its path, others by their number."""
        return [
            name
            for split in self.splits.values()
            for name in split.names(range(split.size))
        ]

    @functools.cached_property
    def of_split(self) -> np.ndarray:
        """The name of each image's split."""
        sizes = [split.size for split in self.splits.values()]
        return np.repeat(list(self.splits), sizes)

    @functools.cached_property
    def unit(self) -> np.ndarray:
        """Features of length 1; those that are zero stay so."""
        return unit(self.features)

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Decodes some images: (m,) rows -> uint8 (m, s, s, c), as the encoder does."""
        pictures, first = {}, 0
        for split in self.splits.values():
            here = np.flatnonzero((rows >= first) & (rows < first + split.size))
            if len(here):
                some = split.read(rows[here] - first)
                pictures |= dict(zip(here.tolist(), some, strict=True))
            first += split.size
        return np.stack([pictures[place] for place in range(len(rows))])


def unit(features: np.ndarray) -> np.ndarray:
    """Returns rows of length 1; a row of zeros stays one."""
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.where(length > 0, length, 1)


def open_images(
    path: epath.PathLike,
    settings: ConfigDict,
    *,
    data: Any = None,
    network: str | None = None,
    out: str | Path | None = None,
) -> Images:
    """Opens an encoder and images, and takes their features, from a file if there.

    Args:
      path: a run's workdir, a checkpoint in it, or an exported file.
      settings: `configs/evaluate.py`; reads `data`, `batch_size` and `seed`.
      data: images in place of those that the run names, as for `evaluate`.
      network: whose encoder, see `open_encoder`.
      out: the folder to write to; None is `explore` in the workdir, or beside a file.

    Raises:
      ValueError: where the encoder or images cannot be read, there are fewer than 3, or
        their features are not finite.
    """
    folder = _folder(path, out)
    mesh = make_mesh()
    encoder, config, opened = open_both(
        path, settings, network=network, mesh=mesh, data=data
    )
    (subject,) = make_subjects(
        encoder, layers=False, baselines=False, settings=settings, mesh=mesh
    )
    facts = {
        "fingerprint": encoder.fingerprint,
        "images": opened.evidence,
        "data": as_json(absolute_paths(config))["data"],
    }
    file = folder / FEATURES_FILE
    kept = _read(file, facts)
    if kept is None:
        folder.mkdir(parents=True, exist_ok=True)
        kept = _extract(file, subject, opened, facts)
    else:
        say(f"{file}: features of {len(kept[0])} images from before")
    features, rows, note = kept
    if len(features) < FEWEST:
        raise ValueError(
            f"{len(features)} images can be read; {FEWEST} or more are needed, name "
            "others with --config.data.path"
        )
    splits = {name: each.subset(rows[name]) for name, each in opened.splits.items()}
    return Images(splits, features, subject, mesh, folder, note)


def _folder(path: epath.PathLike, out: str | Path | None) -> Path:
    if out:
        return Path(out)
    place = located(path)
    if "://" in str(place):
        raise ValueError(f"{place} is not on this machine; name a folder with --out")
    return Path(beside(path, "explore"))


Kept = tuple[np.ndarray, dict[str, np.ndarray], str]


def _extract(file: Path, subject: Subject, data: Data, facts: dict[str, Any]) -> Kept:
    """Keeps and returns features, the rows of splits that can be read, and a note.

    In place of a bad image stands another one, which would be its own duplicate.
    """
    parts, rows, left_out, names = [], {}, {}, []
    for name, split in data.splits.items():
        every, features = np.arange(split.size), subject.features(split)
        itself = split.shown(every) == every
        rows[name], left_out[name] = every[itself], every[~itself].tolist()
        parts.append(features[itself])
        names += split.names(rows[name])
    features, note = np.concatenate(parts), describe_bad(data, "left out")
    write_features(
        file,
        features,
        np.full(len(features), -1),
        names,
        split=np.repeat(list(rows), [len(each) for each in rows.values()]),
        metadata=facts | {"left_out": left_out, "note": note},
    )
    return features, rows, note


def _read(file: Path, facts: dict[str, Any]) -> Kept | None:
    """Returns what `_extract` kept of the same encoder and images, or None."""
    try:
        with np.load(file, allow_pickle=False) as kept:
            about = json.loads(kept["metadata"].item())
            if any(about[name] != fact for name, fact in facts.items()):
                return None
            features, of_split = kept["features"], kept["split"]
        rows = {}
        for name, left_out in about["left_out"].items():
            size = np.count_nonzero(of_split == name) + len(left_out)
            rows[name] = np.setdiff1d(np.arange(size), left_out)
        return features, rows, about["note"]
    except _UNREADABLE:
        return None
