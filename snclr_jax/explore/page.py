"""The page of `snclr explore`: pictures on a map, and lists of them, each to click."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

import numpy as np

from snclr_jax.data.split import evenly
from snclr_jax.explore.duplicates import ALIKE, OF_OTHERS, QUALITY
from snclr_jax.explore.findings import NEAREST, Findings
from snclr_jax.explore.images import Images
from snclr_jax.explore.nearest import is_exact
from snclr_jax.explore.tables import SUBSET_FILE
from snclr_jax.explore.thumbnails import COLUMNS, sheets
from snclr_jax.report.page import Section, numbers, page
from snclr_jax.visualize.project import can_umap, project

MAP_IMAGES = 3_000  # evenly spread over the set; those in a list are drawn as well
SHOWN_NEAREST = 6
MANY, SIDE, SMALL_SIDE = 8_000, 56, 32  # pixels of a picture, on a page of more: small
TYPICAL, GROUPS, OF_GROUP, OUTLIERS, FIRST, ENDS = 8, 30, 8, 40, 120, 3

HERE = Path(__file__).parent


class Lists(NamedTuple):
    """The rows that each part of the page shows."""

    typical: list[np.ndarray]
    groups: list[np.ndarray]
    outliers: np.ndarray
    subset: np.ndarray

    @property
    def rows(self) -> np.ndarray:
        return np.concatenate(
            [*self.typical, *self.groups, self.outliers, self.subset]
        ).astype(int)


def explore_page(images: Images, findings: Findings, title: str, subtitle: str) -> str:
    """Returns the whole page; it needs no file beside it and no network."""
    lists = Lists(
        [rows[:TYPICAL] for rows in findings.clusters.members],
        [rows[:OF_GROUP] for rows in findings.duplicates.groups[:GROUPS]],
        findings.outliers[:OUTLIERS],
        findings.subset[:FIRST],
    )
    count = len(images.unit)
    drawn = np.union1d(evenly(count, MAP_IMAGES), lists.rows)
    near = np.setdiff1d(findings.row[drawn, :SHOWN_NEAREST], drawn)
    pictures = np.append(drawn, near)
    named = np.setdiff1d(findings.row[pictures, :SHOWN_NEAREST], pictures)
    entries = np.append(pictures, named)
    side = SIDE if len(pictures) <= MANY else SMALL_SIDE
    maps = {
        method: project(images.unit[drawn], method, seed=0)
        for method in ("PCA", "UMAP")
        if method == "PCA" or can_umap()
    }
    shown = {
        "side": side,
        "columns": COLUMNS,
        "pictures": len(pictures),
        "maps": {
            method: {"points": _within(points).tolist()}
            for method, (points, _) in maps.items()
        },
        "names": [images.names[row] for row in entries],
        "cluster": findings.clusters.label[entries].tolist(),
        "nearest": _nearest(findings, pictures, entries),
    }
    tiles = dict(zip(pictures.tolist(), range(len(pictures)), strict=True))
    return page(
        title,
        subtitle,
        "\n".join(
            [
                _summary(images, findings),
                _map(maps, len(drawn), count),
                _embedded(shown, sheets(images.read, pictures, side)),
            ]
        ),
        _sections(images, findings, lists, tiles),
        style=(HERE / "page.css").read_text(encoding="utf-8"),
        script=(HERE / "page.js").read_text(encoding="utf-8"),
    )


def _within(points: np.ndarray) -> np.ndarray:
    """Returns points from 0 to 1, the longer way; the second one grows upwards."""
    points = np.asarray(points, float) * (1, -1)
    least, most = points.min(axis=0), points.max(axis=0)
    longest = max((most - least).max(), 1e-12)
    return np.round(0.5 + (points - (least + most) / 2) / longest, 5)


def _nearest(
    findings: Findings, pictures: np.ndarray, entries: np.ndarray
) -> list[list[tuple[int, float]]]:
    entry = np.empty(len(findings.row), int)
    entry[entries] = np.arange(len(entries))
    row = findings.row[pictures, :SHOWN_NEAREST]
    similarity = findings.similarity[pictures, :SHOWN_NEAREST].astype(float).round(4)
    return [
        list(zip(*each, strict=True))
        for each in zip(entry[row].tolist(), similarity.tolist(), strict=True)
    ]


def _summary(images: Images, findings: Findings) -> str:
    duplicates = findings.duplicates
    values = {
        "images": f"{len(images.unit):,}",
        "clusters": f"{len(findings.clusters.members):,}",
        "pairs of near-duplicates": f"{len(duplicates.pairs):,}",
        "images with a near-duplicate": f"{np.count_nonzero(duplicates.group >= 0):,}",
        "encoder": images.encoder.config.model.name,
    }
    return numbers(values)


def _map(maps: dict, drawn: int, count: int) -> str:
    choices = "".join(
        f'<button data-method="{method}" aria-pressed="{str(first).lower()}">'
        f"{method}</button>"
        for method, first in zip(maps, [True, False], strict=False)
    )
    right, up = maps["PCA"][1]
    means = {
        "PCA": f"{right} from left to right, {up} from bottom to top",
        "UMAP": "near pictures are alike; directions and wide gaps say little",
    }
    axes = "".join(
        f'<span data-axes="{method}"{hidden}>{method}: {escape(means[method])}.</span>'
        for method, hidden in zip(maps, ["", " hidden"], strict=False)
    )
    part = f" The map shows {drawn:,} of {count:,} images, all lists included."
    return f"""<div class="map"><div>
<div class="tools">{choices}<button id="closer" aria-label="closer">+</button>
<button id="farther" aria-label="farther">−</button>
<button id="whole">all</button></div>
<canvas id="map" role="img" aria-label="map of the embedding"></canvas>
<p class="muted">{axes}{part * (drawn < count)} Drag to move, turn the wheel to zoom,
click a picture to see its nearest ones among all images.</p></div>
<aside id="chosen" aria-live="polite"><p class="muted">No picture is chosen.</p></aside>
</div>"""


def _embedded(shown: dict, pictures: Sequence[str]) -> str:
    # No text of a name can end the element that it is in.
    data = json.dumps(shown, separators=(",", ":")).replace("<", "\\u003c")
    found = "".join(f'<img src="{uri}" alt="">' for uri in pictures)
    return (
        f'<div id="sheets">{found}</div>\n'
        f'<script id="data" type="application/json">{data}</script>'
    )


def _sections(
    images: Images, findings: Findings, lists: Lists, entry: dict[int, int]
) -> Iterator[Section]:
    def tiles(rows: np.ndarray) -> str:
        buttons = (
            f'<button class="tile" data-entry="{entry[row]}"></button>'
            for row in rows.tolist()
        )
        return f'<div class="tiles">{"".join(buttons)}</div>'

    coverage = findings.coverage
    of_cluster = [coverage[rows].mean() for rows in findings.clusters.members]

    def cluster(number: int) -> str:
        size = len(findings.clusters.members[number])
        return (
            '<div><h3><button class="on-map" aria-pressed="false" '
            f'data-cluster="{number}">cluster {number}</button> {size:,} images, '
            f"coverage {of_cluster[number]:.3f}</h3>"
            f"{tiles(lists.typical[number])}</div>"
        )

    def clusters(some: Iterable[int]) -> str:
        return f'<div class="clusters">{"".join(map(cluster, some))}</div>'

    yield Section(
        "Clusters",
        "K-means of the features, the largest cluster first, with the pictures nearest "
        "to its mean. The button shows a cluster on the map.",
        html=clusters(range(len(of_cluster))),
    )
    order = np.argsort(of_cluster, kind="stable").tolist()
    least, most = clusters(order[:ENDS]), clusters(order[::-1][:ENDS])
    yield Section(
        "Least and most covered regions",
        f"Coverage is the mean cosine of an image and its {NEAREST} nearest, here over "
        "a cluster. Where it is low, images have little like them, more would help; "
        "where it is high, images repeat each other.",
        html=f"<h3>Least</h3>{least}<h3>Most</h3>{most}",
    )
    yield _duplicates(findings, "".join(map(tiles, lists.groups)))
    yield Section(
        "Outliers",
        "The images that are least like their nearest others, the most unusual first: "
        "mistakes, rare kinds, or what the encoder does not know.",
        html=tiles(lists.outliers),
    )
    yield Section(
        "Label these first",
        f"{len(findings.subset):,} images that are spread over all (k-center greedy, "
        f"in the order chosen; {SUBSET_FILE} has their names). Every image has a "
        f"cosine of {findings.reach:.3f} or more with one of them.",
        html=tiles(lists.subset),
    )
    yield Section("Notes", " ".join(_notes(images)))


def _duplicates(findings: Findings, tiles: str) -> Section:
    found = findings.duplicates
    why = "as it was asked for"
    if findings.suggested is not None:
        why = (
            f"which {1 - ALIKE:.0%} of images reach with their own copy, shrunk and "
            f"saved as a JPEG of quality {QUALITY}, and {OF_OTHERS:.0%} do not with "
            f"their {NEAREST}th nearest image (explore.threshold sets another)"
        )
    shown = min(GROUPS, len(found.groups))
    groups = f"{len(found.groups):,} groups" if found.groups else "no group"
    return Section(
        "Near-duplicates",
        f"Images of a cosine of {found.threshold:.4f} or more, {why}. There are "
        f"{len(found.pairs):,} pairs in {groups}; the {shown} largest are shown, "
        "duplicates.csv has all.",
        html=tiles,
    )


def _notes(images: Images) -> Iterator[str]:
    yield images.encoder.describe() + "."
    yield (
        "Tables are of all images: images.csv, clusters.csv, duplicates.csv, "
        f"outliers.csv, {SUBSET_FILE}; features.npz has the features."
    )
    if not is_exact(len(images.unit)):
        yield "Nearest images were searched by FAISS and may not all be the nearest."
    yield images.note
