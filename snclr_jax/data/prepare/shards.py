"""Shards, each written whole or not at all, and the journal of those that are written.

A file is written under a temporary name, brought to the disk and renamed, in this
order; a shard's line enters the journal after that.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter

from snclr_jax.data.prepare.checking import Checked
from snclr_jax.data.prepare.sources import EncodedImage
from snclr_jax.run.files import is_still_at, lock, written

JOURNAL = "prepared.jsonl"
PART = ".part"  # suffix of what is being written


class Shard(NamedTuple):
    """A file to write."""

    file: str
    split: str
    images: list[EncodedImage]


def plan_shards(
    name: str, splits: dict[str, list[EncodedImage]], shard_bytes: float
) -> list[Shard]:
    """Divides the splits into shards, each closed once it holds `shard_bytes`."""
    shards = []
    for split, images in splits.items():
        parts: list[list[EncodedImage]] = [[]]
        size = 0
        for image in images:
            if size >= shard_bytes:
                parts.append([])
                size = 0
            parts[-1].append(image)
            size += image.size
        shards += [
            Shard(
                f"{name}-{split}.array_record-{i:05d}-of-{len(parts):05d}", split, part
            )
            for i, part in enumerate(parts)
        ]
    return shards


def publish(path: Path) -> None:
    """Gives the file `path`.part its name, once it is on the disk.

    Raises:
      OSError: where it cannot be.
    """
    part = path.with_name(path.name + PART)
    with part.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(part, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the name, too
    finally:
        os.close(folder)


def write_shard(
    path: Path,
    checked: Iterable[Checked],
    serializer: tfds.core.ExampleSerializer,
    *,
    labelled: bool,
) -> dict[str, Any]:
    """Writes a shard of the images that can be read, of a `labelled` set or another.

    Returns:
      Its line in the journal: "file", its "size", the number of "images", their
      serialized "bytes", and the "unreadable" ones: [{"file", "reason"}].

    Raises:
      OSError: where the disk is full, or the folder cannot be written to.
    """
    images, size, unreadable = 0, 0, []
    part = f"{path}{PART}"
    try:
        # One record a group, as random access wants; JPEG and PNG do not compress.
        writer = ArrayRecordWriter(part, "group_size:1,uncompressed")
        for image, content in checked:
            if isinstance(content, str):
                unreadable.append({"file": image.location, "reason": content})
                continue
            example: dict[str, bytes | int] = {"image": content}
            example["file_name"] = os.fsencode(image.name)
            if labelled:  # -1 included
                example["label"] = image.label
            # Left to itself, protobuf orders the features anew in every process.
            record = serializer.get_tf_example(example).SerializeToString(
                deterministic=True
            )
            writer.write(record)
            images += 1
            size += len(record)
        writer.close()
    except RuntimeError as error:  # how array_record reports a full disk
        raise OSError(f"{part} cannot be written: {error}") from error
    publish(path)
    return {
        "file": path.name,
        "size": path.stat().st_size,
        "images": images,
        "bytes": size,
        "unreadable": unreadable,
    }


class Busy(ValueError):
    """Another run is at work in the folder."""


class Journal:
    """What a folder was begun with, and its whole shards: JSON, one object a line.

    Args:
      folder: of the set.
      begun: the settings and the source; what decides on the bytes of the shards.
      file: its name.

    Attributes:
      shards: the lines of `write_shard`.

    Raises:
      Busy: where another run is at work.
      ValueError: where the folder was begun with something else, or one of its shards
        is gone; from `add`, where the file was removed, which lets another run in.
    """

    def __init__(
        self, folder: Path, begun: dict[str, Any], file: str = JOURNAL
    ) -> None:
        self._path = folder / file
        self._file = self._path.open("a+b")
        try:
            self.shards = self._read(folder, begun)
        except BaseException:
            self.close()
            raise

    def _read(self, folder: Path, begun: dict[str, Any]) -> list[dict[str, Any]]:
        try:
            lacking = lock(self._file)
        except BlockingIOError as error:
            raise Busy(f"another snclr prepare is writing {folder}") from error
        if lacking:
            print(f"{folder}: {lacking}; start no second snclr prepare in it")
        self._file.seek(0)
        *lines, cut_off = self._file.read().split(b"\n")
        if cut_off:
            self._file.truncate(self._file.tell() - len(cut_off))
        if not lines:
            self._append(begun)
            return []
        first, *shards = map(json.loads, lines)
        if first != begun:
            differing = ", ".join(
                f"{key} {first.get(key)}, now {value}"
                for key, value in begun.items()
                if first.get(key) != value
            )
            raise ValueError(
                f"{folder} was begun with another source or --shard_mb ({differing}); "
                "give the same again, use another --name, or delete the folder"
            )
        for shard in shards:
            path = folder / shard["file"]
            if not path.exists() or path.stat().st_size != shard["size"]:
                raise ValueError(
                    f"{path} is missing or has changed since it was written; delete "
                    f"{folder} and prepare the set again"
                )
        return shards

    def add(self, shard: dict[str, Any]) -> None:
        """Enters a shard that is written."""
        self._append(shard)
        self.shards.append(shard)

    def _append(self, line: dict[str, Any]) -> None:
        if not is_still_at(self._path, self._file):
            raise ValueError(
                f"{self._path} was removed while it was written; leave it where it is, "
                "and run snclr prepare again"
            )
        with written(self._path):
            self._file.write(json.dumps(line).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Lets another run at the folder."""
        with written(self._path):  # it tries again to write what it could not
            self._file.close()
