"""What is found out as files that other programs read: CSV in UTF-8, and lists."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from snclr_jax.explore.findings import Findings
from snclr_jax.explore.images import Images
from snclr_jax.run.files import write_whole

SUBSET_FILE = "subset.txt"


def write_tables(images: Images, findings: Findings) -> None:
    """Writes a table of every kind into the folder of the images.

    `images.csv` has a line for each image: its cluster, how typical of it the image is,
    its coverage, its group of duplicates ("" for none) and its nearest other image.
    `clusters.csv`, `duplicates.csv` (pairs) and `outliers.csv` are sorted by size, by
    similarity and by coverage; `subset.txt` has an image's name in each line.
    """
    names, splits = images.names, images.of_split
    label, typicality = findings.clusters
    _, pairs, alike, group = findings.duplicates
    similarity, coverage = findings.similarity, findings.coverage
    outliers = findings.outliers
    tables = {
        "images": (
            (
                *("image", "split", "cluster", "typicality", "coverage"),
                *("duplicates", "nearest", "similarity"),
            ),
            (
                (
                    *(names[row], splits[row], label[row], _short(typicality[row])),
                    *(_short(coverage[row]), "" if group[row] < 0 else group[row]),
                    *(names[findings.row[row, 0]], _short(similarity[row, 0])),
                )
                for row in range(len(names))
            ),
        ),
        "clusters": (
            ("cluster", "images", "coverage", "most_typical"),
            (
                (number, len(rows), _short(coverage[rows].mean()), names[rows[0]])
                for number, rows in enumerate(findings.clusters.members)
            ),
        ),
        "duplicates": (
            ("image", "other", "similarity", "group", "split", "other_split"),
            (
                (names[a], names[b], _short(value), group[a], splits[a], splits[b])
                for (a, b), value in zip(pairs, alike, strict=True)
            ),
        ),
        "outliers": (
            ("image", "split", "coverage"),
            ((names[row], splits[row], _short(coverage[row])) for row in outliers),
        ),
    }
    for name, (head, lines) in tables.items():
        _write(images.folder / f"{name}.csv", head, lines)
    chosen = "".join(f"{names[row]}\n" for row in findings.subset)
    write_whole(images.folder / SUBSET_FILE, chosen)


def _short(value: Any) -> str:  # a float of numpy
    return f"{value:.6f}"


def _write(path: Path, head: Sequence[str], lines: Iterable[Sequence]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([head, *lines])
    write_whole(path, text.getvalue())
