"""Small image sets to prepare, and what must hold of the prepared ones."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from snclr_jax.data.folder import open_folder
from snclr_jax.data.tfds_source import open_tfds

SUFFIXES = (".png", ".jpg", ".webp", ".JPEG")


def save(path: Path, seed: int, side: int = 16) -> Path:
    """Noise, so that no two images are equal and none can be compressed."""
    pixels = np.random.RandomState(seed).randint(0, 256, (side, side, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def make_folder(root: Path, test: str = "test") -> Path:
    for part, (split, count) in enumerate((("train", 6), (test, 3))):
        for label, name in enumerate(("ant lion", "bee")):
            for i in range(count):
                path = root / split / name / f"{9 - i}{SUFFIXES[i % 4]}"
                save(path, 100 * part + 10 * label + i)
    return root


def pack(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def snapshot(folder: Path) -> dict[str, bytes | None]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        if path.is_file()
        else None
        for path in folder.rglob("*")
    }


def records(folder: Path, split: str) -> list[dict]:
    decoders = {"image": tfds.decode.SkipDecoding()}
    builder = tfds.builder_from_directory(folder)
    return list(builder.as_data_source(split=split, decoders=decoders))


def assert_reads_as(source: Path, folder: Path, test_split: str) -> None:
    want = open_folder(str(source), 8, max_bad=0.0, pages=None)
    out, name = str(folder.parents[1]), folder.parent.name
    got = open_tfds(
        name, out, 8, train_split="train", test_split=test_split, max_bad=0.0
    )
    assert got[2] == want[2]
    for w, g in zip(want[:2], got[:2], strict=True):
        assert (w is None) == (g is None)
        if w is not None:
            assert np.array_equal(w.images(), g.images())
            assert np.array_equal(w.labels, g.labels)


def assert_reads_nothing(out: Path) -> None:
    with pytest.raises(ValueError, match="is not prepared"):
        open_tfds(
            "photos", str(out), 8, train_split="train", test_split="test", max_bad=0.0
        )
