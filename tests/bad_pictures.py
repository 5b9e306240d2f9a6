"""Images that are bad, each in its own way, and a folder with some of them."""

from __future__ import annotations

import io
import json
import os
import re
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from snclr_jax.data import Split
from snclr_jax.data.bad_files import FILE
from snclr_jax.data.folder import open_folder
from snclr_jax.data.formats import FORMATS

NOT_AN_IMAGE = f"not an image in one of the formats {', '.join(FORMATS)}"


def noise(seed: int = 0, side: int = 8) -> Image.Image:
    pixels = np.random.RandomState(seed).randint(0, 256, (side, side, 3), np.uint8)
    return Image.fromarray(pixels)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png_head(width: int, height: int) -> bytes:
    """The head of a PNG of one bit a pixel; what follows is missing."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    check = struct.pack(">I", zlib.crc32(chunk))
    return b"\x89PNG\r\n\x1a\n\0\0\0\r" + chunk + check + b"\0\0\1\0IDAT"


def resized_jpeg(width: int, height: int) -> bytes:
    """A small JPEG whose head claims to be another size."""
    content = encoded(noise(), "JPEG")
    frame = content.index(b"\xff\xc0")
    size = struct.pack(">HH", height, width)
    return content[: frame + 5] + size + content[frame + 9 :]


JPEG, PNG = encoded(noise(side=64), "JPEG"), encoded(noise(side=64), "PNG")
FLIPPED = bytearray(PNG)
FLIPPED[200] ^= 1
BAD = {
    "broken.png": (bytes(FLIPPED), "OSError: broken data stream"),
    "cut.jpg": (JPEG[:-40], "OSError: image file is truncated"),
    "cut.png": (PNG[: len(PNG) // 2], "OSError: image file is truncated"),
    "cut.webp": (encoded(noise(side=64), "WEBP")[:100], "."),
    "empty.jpg": (b"", "^empty$"),
    "text.jpg": (b"<html>404</html>", f"^{NOT_AN_IMAGE}$"),
    "program.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", NOT_AN_IMAGE),
    "archive.png": (b"PK\x03\x04" + b"\0" * 100, NOT_AN_IMAGE),
    "bomb.png": (png_head(10_000, 9_000), "10000 x 9000 pixels, more than the 89,478,"),
    "bomb.jpg": (resized_jpeg(30_000, 4_000), "30000 x 4000 pixels, more than"),
    "larger.jpg": (resized_jpeg(65_000, 65_000), "DecompressionBombError"),
    "largest.png": (png_head(2**31 - 1, 2**31 - 1), "DecompressionBombError"),
    "gif.png": (b"GIF89a" + b"\xff" * 4 + b"\0\0\0", "Decompression|GIF|EOF|image"),
}
IMAGES = 40
AT = (1, 4, 7, 10, 13, 16, 19, 22, 25, 28, 31, 38, 39)  # where the bad ones lie
SHOWN = [next(i % 40 for i in range(row, 80) if i % 40 not in AT) for row in range(40)]
ODD = {4: b" \xfe\n'\".png", 5: b" \xff\n'\".png", 6: "ä <b>.png".encode()}


def file_name(row: int) -> str:
    """Rows are in the order of the paths; 20 images a class."""
    name = b"%d/%02d" % (row // 20, row) + ODD.get(row, b".png")
    return os.fsdecode(name)


def make_folder(root: Path, contents: list[bytes]) -> str:
    for row, content in enumerate(contents):
        path = root / "train" / file_name(row)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return str(root)


def make_bad_folder(root: Path) -> str:
    """Images of which the ones at `AT` are bad; row r is `noise(r, side=12)`."""
    contents = [encoded(noise(row, side=12), "PNG") for row in range(IMAGES)]
    for row, (content, _) in zip(AT, BAD.values(), strict=True):
        contents[row] = content
    return make_folder(root, contents)


def open_train(folder: str, max_bad: float = 0.5) -> Split:
    return open_folder(folder, 12, max_bad=max_bad, pages=None)[0]


def lines_in(workdir: Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / FILE).read_text().splitlines()]


def check_lines(workdir: Path, at: tuple[int, ...] = AT) -> None:
    """Every bad image stands there once, in order, with its name and reason."""
    lines = lines_in(workdir)
    assert [(line["split"], line["index"]) for line in lines] == [
        ("train", row) for row in at
    ]
    for line in lines:
        name = os.fsencode(f"train/{file_name(line['index'])}")
        assert line["name"] == name.decode("utf-8", "backslashreplace")
        reason = list(BAD.values())[AT.index(line["index"])][1]
        assert re.search(reason, line["reason"])
