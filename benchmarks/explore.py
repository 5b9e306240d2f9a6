"""Time of `snclr explore` on many images, part by part, without the encoder.

    python benchmarks/explore.py [ROWS]

Features are random: 200 heaps, and one image in a hundred has a near-duplicate. The
pictures of the page are random pixels that need no decoding.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from report import origin, table, write

from snclr_jax.data import Split
from snclr_jax.devices.mesh import make_mesh
from snclr_jax.evaluate.subject import Subject
from snclr_jax.explore.clusters import find_clusters
from snclr_jax.explore.duplicates import find_duplicates, suggest_threshold
from snclr_jax.explore.findings import NEAREST, Findings
from snclr_jax.explore.images import Images
from snclr_jax.explore.nearest import nearest_others
from snclr_jax.explore.page import explore_page
from snclr_jax.explore.subset import spread
from snclr_jax.explore.tables import write_tables

ROWS, SIZES, HEAPS, SIDE = 100_000, (128, 512), 200, 32
FOLDER = Path("runs/benchmarks/explore")
CAPTION = """\
{rows:,} images, features of random heaps, 1 in 100 with a near-duplicate. s is the
clock's and CPU s those of all cores. The page is {megabytes:.0f} MB, of noise, which
WebP keeps worst. The encoder is left out, and decoding each image once for it."""


def main() -> None:
    rows = int(sys.argv[1]) if sys.argv[1:] else ROWS
    command = "python benchmarks/explore.py"
    packages = ("jax", "numpy", "scikit-learn", "pillow")
    paragraph = origin(command, packages, timed=True)
    FOLDER.mkdir(parents=True, exist_ok=True)
    lines, megabytes = [], 0.0
    for size in SIZES:
        clock = Clock()
        images = make_images(rows, size)
        megabytes = look(images, clock)
        lines += [(size, *line) for line in clock.lines]
    caption = CAPTION.format(rows=rows, megabytes=megabytes)
    head = ("features", "part", "s", "CPU s")
    write("Exploring many images", caption, table(head, lines), paragraph)


class Clock:
    """Times calls by name."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, str]] = []

    def __call__(self, name: str, call: Callable[[], Any]) -> Any:
        start, cpu = time.perf_counter(), time.process_time()
        result = call()
        spent = time.perf_counter() - start, time.process_time() - cpu
        self.lines.append((name, *(f"{seconds:.1f}" for seconds in spent)))
        print(*self.lines[-1], flush=True)
        return result


def make_images(rows: int, size: int) -> Images:
    random = np.random.default_rng(0)
    centers = random.normal(size=(HEAPS, size)).astype(np.float32)
    features = centers[random.integers(0, HEAPS, rows)]
    features += random.normal(size=(rows, size)).astype(np.float32)
    copies = rows // 100
    noise = 0.02 * random.normal(size=(copies, size)).astype(np.float32)
    features[-copies:] = features[:copies] + noise
    pixels = random.integers(0, 256, (rows, SIDE, SIDE, 3), dtype=np.uint8)
    encoder = SimpleNamespace(
        config=SimpleNamespace(model=SimpleNamespace(name="none")),
        describe=lambda: "random features",
    )
    return Images(
        {"train": Split(pixels.__getitem__, size=rows)},
        features,
        cast(Subject, SimpleNamespace(encoder=encoder)),
        make_mesh(),
        FOLDER,
        "",
    )


def look(images: Images, clock: Clock) -> float:
    """Times each part, and returns the size of the page in MB."""
    unit = images.unit
    similarity, row = clock(
        f"{NEAREST} nearest of each",
        lambda: nearest_others(unit, NEAREST, mesh=images.mesh),
    )
    threshold = suggest_threshold(similarity, np.full(500, 0.95))
    clusters = clock("clusters", lambda: find_clusters(unit, None, seed=0))
    duplicates = clock(
        "near-duplicates", lambda: find_duplicates(unit, similarity, row, threshold)
    )
    subset, reach = clock("100 to label first", lambda: spread(unit, 100))
    findings = Findings(similarity, row, clusters, duplicates, threshold, subset, reach)
    clock("tables", lambda: write_tables(images, findings))
    page = clock("page", lambda: explore_page(images, findings, "100,000 images", ""))
    return len(page) / 1e6


if __name__ == "__main__":
    main()
