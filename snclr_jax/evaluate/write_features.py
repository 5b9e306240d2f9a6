"""The file of `snclr features`: every image's features, label and name."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from snclr_jax.run.files import check_writable, replaced

SUFFIX = ".npz"


def check_features_path(path: str | Path) -> None:
    """Refuses, before any work, a path that `write_features` could not write to.

    Args:
      path: of the file.

    Raises:
      ValueError: for another suffix than .npz, for a folder, or for a folder above it
        that is missing or cannot be written to.
    """
    path = Path(path)
    if path.suffix != SUFFIX:
        raise ValueError(
            f"the features' path {path} does not end in {SUFFIX}; use another, such "
            f"as features{SUFFIX}"
        )
    if path.is_dir():
        raise ValueError(f"the features' path {path} is a folder; name a file in it")
    if not path.parent.is_dir():
        raise ValueError(
            f"the features' path {path} lies in {path.parent}, which is not a folder; "
            f"create it: mkdir -p {path.parent}"
        )
    check_writable(path.parent)


def write_features(
    path: str | Path,
    features: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    *,
    split: Sequence[str] | np.ndarray,
    metadata: dict[str, Any],
) -> None:
    """Writes features into one .npz file, which replaces what was there when whole.

    With numpy, pandas and FAISS:

        with np.load("features.npz") as file: data = dict(file)
        table = pd.DataFrame(data["features"], index=data["image_id"])
        index = faiss.IndexFlatL2(data["features"].shape[1])
        index.add(data["features"])

    ``json.loads(data["metadata"].item())`` tells where they come from. Process 0 alone
    writes.

    Args:
      path: of the file; see `check_features_path`.
      features: float32 (n, f).
      labels: int (n,), below 0 where unknown.
      names: n names of the images, see `Split.names`.
      split: the split, "train" or "test", that each of them is of.
      metadata: what JSON can hold: the run, its step, the settings.

    Raises:
      ValueError: where features, labels, names and splits are not of the same images.
    """
    count = len(features)
    for what, values in (("labels", labels), ("names", names), ("splits", split)):
        if len(values) != count:
            raise ValueError(
                f"there are {len(values)} {what} for {count} features; pass those of "
                "the same images"
            )
    if jax.process_index() != 0:
        return
    with replaced(path) as part, part.open("wb") as file:
        np.savez(
            file,
            features=np.asarray(features, np.float32),
            labels=np.maximum(labels, -1).astype(np.int32),
            image_id=np.asarray(names, np.str_),
            split=np.asarray(split, np.str_),
            metadata=np.asarray(json.dumps(metadata)),
        )
