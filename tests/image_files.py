"""The same labelled images as a folder and as files of every other kind."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from bad_pictures import encoded, noise
from pictures import pack
from PIL import Image

CLASSES = ("ant", "bee")
SIDE = 12


def pictures(count: int, first: int = 0) -> list[bytes]:
    """Noise in PNG, so that pixels come back as they were."""
    return [encoded(noise(first + i, SIDE), "PNG") for i in range(count)]


def pixels(contents: Sequence[bytes]) -> np.ndarray:
    return np.stack([np.asarray(Image.open(io.BytesIO(c))) for c in contents])


def table(contents: Sequence[bytes], *, features: bool = True) -> pa.Table:
    """As the library `datasets` writes them."""
    rows = [{"bytes": content, "path": None} for content in contents]
    made = pa.table({"image": rows, "label": [i % 2 for i in range(len(rows))]})
    if not features:
        return made
    of = {
        "image": {"_type": "Image"},
        "label": {"_type": "ClassLabel", "names": list(CLASSES)},
    }
    metadata = json.dumps({"info": {"features": of}})
    return made.replace_schema_metadata({"huggingface": metadata})


def as_folder(root: Path, splits: dict[str, list[bytes]]) -> None:
    for split, contents in splits.items():
        for i, content in enumerate(contents):
            path = root / split / CLASSES[i % 2] / f"{i:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def as_parquet(root: Path, splits: dict[str, list[bytes]]) -> None:
    (root / "data").mkdir(parents=True)
    for split, contents in splits.items():
        half = len(contents) // 2 * 2 // 2
        for part, rows in enumerate((contents[:half], contents[half:])):
            name = f"{split}-{part:05}-of-00002.parquet"
            # Labels alternate: the second file begins with that of its first image.
            made = table(contents).slice(part * half, len(rows))
            pq.write_table(made, root / "data" / name, row_group_size=3)


def as_arrow(root: Path, splits: dict[str, list[bytes]]) -> None:
    """As `Dataset.save_to_disk` does: a stream in several batches."""
    for split, contents in splits.items():
        folder = root / split
        folder.mkdir(parents=True)
        made = table(contents)
        with pa.OSFile(str(folder / "data-00000-of-00001.arrow"), "wb") as file:
            with pa.ipc.new_stream(file, made.schema) as stream:
                stream.write_table(made, max_chunksize=3)
        (folder / "state.json").write_text("{}", encoding="utf-8")


def as_webdataset(root: Path, splits: dict[str, list[bytes]]) -> None:
    root.mkdir()
    for split, contents in splits.items():
        files = {}
        for i, content in enumerate(contents):
            files[f"{i:06}.cls"] = str(i % 2).encode()
            files[f"{i:06}.png"] = content
            files[f"{i:06}.json"] = b"{}"
        pack(root / f"set-{split}-000000.tar", files)


def as_npz(root: Path, splits: dict[str, list[bytes]]) -> None:
    root.mkdir()
    arrays = {}
    for split, contents in splits.items():
        arrays[f"x_{split}"] = pixels(contents)
        arrays[f"y_{split}"] = np.arange(len(contents))[:, None] % 2
    np.savez_compressed(root / "set.npz", **arrays)


def as_npy(root: Path, splits: dict[str, list[bytes]]) -> None:
    root.mkdir()
    for split, contents in splits.items():
        np.save(root / f"{split}_images.npy", pixels(contents))
        np.save(root / f"{split}_labels.npy", np.arange(len(contents)) % 2)


# What data.name is, and who writes such files.
KINDS = {
    "parquet": ("parquet", as_parquet),
    "arrow": ("parquet", as_arrow),
    "webdataset": ("webdataset", as_webdataset),
    "npz": ("numpy", as_npz),
    "npy": ("numpy", as_npy),
}


def gzipped(path: Path, content: bytes) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        member = tarfile.TarInfo("0.png")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return path
