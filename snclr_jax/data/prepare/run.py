"""The command `snclr prepare`.

TFDS's metadata are written last: a run killed anywhere leaves no set behind that could
be taken for whole. Started again, it continues after its last whole shard, and ends
with the bytes of a run that was never disturbed.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import re
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow_datasets as tfds
from tqdm import tqdm

from snclr_jax.data.prepare.checking import Checked, read_checked
from snclr_jax.data.prepare.metadata import (
    METADATA,
    VERSION,
    features,
    write_metadata,
)
from snclr_jax.data.prepare.parts import ALONE, Part, check_part, joined
from snclr_jax.data.prepare.shards import (
    PART,
    Busy,
    Journal,
    Shard,
    plan_shards,
    publish,
    write_shard,
)
from snclr_jax.data.prepare.sources import Source, open_source
from snclr_jax.run.files import written
from snclr_jax.settings.paths import expanded

UNREADABLE = "unreadable.jsonl"
_SHOWN = 3  # files named on the console


def prepare(
    source: str,
    name: str,
    out: str,
    *,
    source_test: str = "",
    test_labels: str = "",
    shard_mb: float = 256,
    workers: int | None = None,
    max_unreadable: float = 0.01,
    part: Part = ALONE,
) -> Path:
    """Writes the images of a source as the TFDS set `name` under `out`, or continues.

    Records hold the encoded bytes as they were found ("image"), the label of a labelled
    set ("label") and the path below the folder of the split ("file_name"), in the order
    of these paths. An image that cannot be decoded is left out and listed in
    `unreadable.jsonl`. The same source and `shard_mb` give the same bytes, in whatever
    number of processes; the one that ends last finishes the set.

    Args:
      source: see `open_source`, also for `source_test` and `test_labels`.
      name: of the set: lower-case letters, digits and underscores.
      out: folder of TFDS sets; receives `name/1.0.0`.
      shard_mb: a shard is closed once it holds this many MB (10^6 bytes) of images.
      workers: processes that decode; None takes one for each core.
      max_unreadable: share of the images, 0 to 1, up to which unreadable ones are left
        out. Damage that befalls single files stays far below one in a hundred; more
        of it is a broken copy, better fetched again than trained on.
      part: which one this is of several processes that write shards at once, on
        machines that all see `out`.

    Returns:
      The folder of the set.

    Raises:
      ValueError: for a source, name or folder that cannot be used, for more unreadable
        images than allowed, and where the folder was begun with another source.
      OSError: where a file cannot be read or written.
    """
    folder = _choose_folder(name, out, (source, source_test))
    opened = open_source(source, source_test, test_labels)
    folder.mkdir(parents=True, exist_ok=True)
    identity = _identity(opened, shard_mb)
    if (folder / METADATA).exists():
        part = ALONE
    else:
        check_part(folder, part)
    with contextlib.closing(Journal(folder, identity, part.journal)) as journal:
        if (folder / METADATA).exists():
            print(f"{folder} is finished; nothing is left to do")
        else:
            shards = plan_shards(name, opened.splits, shard_mb * 10**6)
            _say_what_is_found(name, identity, shards, journal)
            for note in opened.notes:
                print(f"--source: {note}")
            images = sum(identity["images"].values())
            limit = _Limit(max_unreadable, images, folder)
            own = part.of(shards)
            _write_shards(folder, own, journal, opened, workers, limit)
            if not _finish(folder, name, opened, shards, identity, part, limit):
                print(
                    f"process {part.process} of {part.processes} has written its "
                    f"{len(own):,} shards; the one that ends last finishes the set"
                )
                return folder
    test_split = "test" if "test" in opened.splits else ""
    print(
        f"use it with --config.data.name=tfds --config.data.tfds_name={name} "
        f"--config.data.path={shlex.quote(out)} --config.data.test_split={test_split}"
    )
    return folder


def _choose_folder(name: str, out: str, sources: Iterable[str]) -> Path:
    if not re.fullmatch("[a-z][a-z0-9_]*", name):
        raise ValueError(
            f"--name={name} cannot name a TFDS set; use lower-case letters, digits and "
            "underscores, beginning with a letter"
        )
    folder = Path(expanded(out)) / name / VERSION
    for source in filter(None, sources):
        if folder.resolve().is_relative_to(Path(expanded(source)).resolve()):
            raise ValueError(
                f"{folder}, for the set, lies inside {source}; use another --out"
            )
    begun = [*folder.glob("prepared*.jsonl")]
    if folder.exists() and not begun and any(folder.iterdir()):
        raise ValueError(
            f"{folder} holds files that snclr prepare has not written; use another "
            "--name or --out"
        )
    return folder


def _identity(source: Source, shard_mb: float) -> dict[str, Any]:
    """What decides on the bytes of the shards, as far as names and sizes tell."""
    digest = hashlib.sha256(repr(source.classes).encode())
    for split, images in source.splits.items():
        for image in images:
            line = f"{split}\n{image.name}\n{image.size}\n{image.label}\n"
            digest.update(os.fsencode(line))
    return {
        "images": {split: len(images) for split, images in source.splits.items()},
        "bytes": sum(i.size for images in source.splits.values() for i in images),
        "classes": len(source.classes or ()),
        "shard_mb": float(shard_mb),
        "sha256": digest.hexdigest(),
    }


def _write_shards(
    folder: Path,
    shards: list[Shard],
    journal: Journal,
    source: Source,
    workers: int | None,
    limit: _Limit,
) -> None:
    total = sum(len(shard.images) for shard in shards)
    left = shards[len(journal.shards) :]
    images = [image for shard in left for image in shard.images]
    unreadable = sum(len(line["unreadable"]) for line in journal.shards)
    # TFDS's annotations of the two do not agree.
    serialized: Any = features(source).get_serialized_info()
    serializer = tfds.core.ExampleSerializer(serialized)
    bar = tqdm(
        total=total,
        initial=total - len(images),
        unit=" images",
        dynamic_ncols=True,
        disable=None,  # where there is no terminal, the shards' lines tell enough
    )
    checked = read_checked(images, workers or os.cpu_count() or 1)
    with bar, contextlib.closing(checked):
        counted = _count(checked, bar, unreadable, limit)
        for shard in left:
            of_shard = itertools.islice(counted, len(shard.images))
            line = write_shard(
                folder / shard.file,
                of_shard,
                serializer,
                labelled=source.classes is not None,
            )
            journal.add(line)
            tqdm.write(f"{shard.file}: {line['images']:,} images")


def _count(
    checked: Iterable[Checked], bar: tqdm, unreadable: int, limit: _Limit
) -> Iterator[Checked]:
    """Passes images on, up to one unreadable image too many."""
    for image, content in checked:
        bar.update()
        if isinstance(content, str):
            unreadable += 1
            limit.check(unreadable, f"{image.location} is unreadable ({content})")
        yield image, content


class _Limit(NamedTuple):
    """How many unreadable images are left out: a share of all of them."""

    share: float
    images: int
    folder: Path

    def check(self, unreadable: int, named: str) -> None:
        """Refuses one too many."""
        allowed = self.share * self.images
        if unreadable > allowed:
            raise ValueError(
                f"{named}: {unreadable} are, and --max_unreadable allows "
                f"{int(allowed)} of {self.images}; raise it to leave such images out "
                f"and have them listed, or repair the source, delete {self.folder} and "
                "start again"
            )


def _finish(
    folder: Path,
    name: str,
    source: Source,
    shards: list[Shard],
    identity: dict[str, Any],
    part: Part,
    limit: _Limit,
) -> bool:
    """Makes a set of the shards; False where others are still to do it."""
    lines = part.written(folder)
    if len(lines) < len(shards):
        return False
    # Each of several processes had fewer.
    unreadable = sum(len(line["unreadable"]) for line in lines)
    limit.check(unreadable, "images of all processes are unreadable")
    try:
        with joined(folder, identity, part, lines):
            _write_unreadable(folder, source, lines)
            write_metadata(folder, name, source, shards, lines)
    except Busy:
        return False
    return True


def _write_unreadable(
    folder: Path, source: Source, lines: list[dict[str, Any]]
) -> None:
    unreadable = [entry for line in lines for entry in line["unreadable"]]
    others = [{"file": f, "reason": r} for f, r in sorted(source.passed_over)]
    text = "".join(json.dumps(entry) + "\n" for entry in unreadable + others)
    with written(folder / UNREADABLE):
        (folder / (UNREADABLE + PART)).write_text(text, encoding="utf-8")
    publish(folder / UNREADABLE)
    for kind, left_out in (("unreadable images", unreadable), ("other files", others)):
        if left_out:
            print(f"{len(left_out):,} {kind} left out, listed in {folder / UNREADABLE}")
            for entry in left_out[:_SHOWN]:
                # A name that is not UTF-8 could not be printed.
                print(ascii(entry["file"])[1:-1], f"({entry['reason']})")


def _say_what_is_found(
    name: str, identity: dict[str, Any], shards: list[Shard], journal: Journal
) -> None:
    counts = " and ".join(f"{n:,} {split}" for split, n in identity["images"].items())
    classes = identity["classes"]
    kind = f"in {classes:,} classes" if classes else "without labels"
    size = identity["bytes"] / 1e6
    print(f"{name}: {counts} images {kind}, {size:,.0f} MB in {len(shards):,} shards")
    if journal.shards:
        print(f"continues after shard {len(journal.shards):,}")
