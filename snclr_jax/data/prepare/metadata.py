"""TFDS's metadata of a prepared set, which make it one."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from etils import epath

from snclr_jax.data.prepare.shards import PART, Shard, publish
from snclr_jax.data.prepare.sources import Source
from snclr_jax.run.files import written

VERSION = "1.0.0"
METADATA = "dataset_info.json"  # without it, TFDS sees no set


def features(source: Source) -> tfds.features.FeaturesDict:
    """Returns what a record holds."""
    features: dict[str, tfds.features.FeatureConnector] = {
        "image": tfds.features.Image(),
        "file_name": tfds.features.Text(),
    }
    if source.classes is not None:
        features["label"] = tfds.features.ClassLabel(names=source.classes)
    return tfds.features.FeaturesDict(features)


def write_metadata(
    folder: Path,
    name: str,
    source: Source,
    shards: list[Shard],
    lines: list[dict[str, Any]],
) -> None:
    """Writes what TFDS knows a set by: the last of its files is `METADATA`.

    Args:
      folder: of the set.
      name: of the set.
      source: what it was made of.
      shards: all of them.
      lines: what the journal says of each.

    Raises:
      ValueError: where no image of a split can be read.
      OSError: where the disk is full.
    """
    info = tfds.core.DatasetInfo(
        builder=tfds.core.DatasetIdentity(
            name=name,
            version=tfds.core.Version(VERSION),
            data_dir=str(folder),
            module_name="",
        ),
        features=features(source),
    )
    info.set_file_format("array_record")
    splits = []
    for split in source.splits:
        of_split = [
            line
            for shard, line in zip(shards, lines, strict=True)
            if shard.split == split
        ]
        splits.append(
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=[line["images"] for line in of_split],
                num_bytes=sum(line["bytes"] for line in of_split),
                filename_template=tfds.core.ShardedFileTemplate(
                    dataset_name=name,
                    data_dir=epath.Path(folder),
                    split=split,
                    filetype_suffix="array_record",
                ),
            )
        )
        if not splits[-1].num_examples:
            raise ValueError(
                f"no image of split {split} can be read; see unreadable.jsonl"
            )
    info.set_splits(tfds.core.SplitDict(splits))
    part = folder / f"metadata{PART}"
    shutil.rmtree(part, ignore_errors=True)
    with written(part):
        part.mkdir()
        info.write_to_directory(part)
    files = sorted(os.listdir(part), key=lambda file: file == METADATA)  # it comes last
    for file in files:
        os.replace(part / file, folder / (file + PART))
    part.rmdir()
    for file in files:
        publish(folder / file)
