"""`snclr similar`: the images of a set that are most like given ones."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from snclr_jax.data import Split
from snclr_jax.encoder.loaded import read_squares
from snclr_jax.evaluate.frozen.neighbors import nearest
from snclr_jax.explore.images import Images, open_images, unit
from snclr_jax.explore.thumbnails import thumbnail
from snclr_jax.report.page import Section, page
from snclr_jax.run.files import write_whole

PAGE_FILE = "similar.html"
SIDE = 96  # pixels of a picture at most


def similar(
    queries: Sequence[str | Path],
    path: epath.PathLike,
    settings: ConfigDict,
    *,
    data: Any = None,
    network: str | None = None,
    out: str | Path | None = None,
    n: int = 10,
) -> str:
    """Finds the images of the largest cosine, and writes them to `similar.html`.

    Args:
      queries: paths of image files.
      path, settings, data, network, out: see `open_images`.
      n: images for each, >= 1; where there are fewer, all of them.

    Returns:
      The same as text: under each query a line for every image, with its cosine and
      name; and where the page is.

    Raises:
      ValueError: for no query, or one that cannot be read; as `open_images`.
    """
    if not queries:
        raise ValueError("no image is named; use snclr similar IMAGE... --workdir=DIR")
    for query in queries:
        if not Path(query).is_file():
            raise ValueError(f"there is no image file {query}; check its path")
    images = open_images(path, settings, data=data, network=network, out=out)
    pictures = read_squares(queries, [*map(str, queries)], images.encoder.config)
    features = images.subject.features(Split(pictures.__getitem__, size=len(pictures)))
    similarity, row = nearest(images.unit, unit(features), n, mesh=images.mesh)
    lines = []
    for query, values, rows in zip(queries, similarity, row, strict=True):
        lines.append(str(query))
        for value, name in zip(values, (images.names[r] for r in rows), strict=True):
            lines.append(f"  {value:.4f}  {name}")
    file = images.folder / PAGE_FILE
    write_whole(file, _page(images, queries, pictures, (similarity, row)))
    return "\n".join([*lines, str(file)])


def _page(
    images: Images,
    queries: Sequence[str | Path],
    pictures: np.ndarray,
    found: tuple[np.ndarray, np.ndarray],
) -> str:
    sections = []
    for query, picture, similarity, row in zip(queries, pictures, *found, strict=True):
        figures = [_figure(picture, "query")] + [
            _figure(pixels, f"{value:.4f} {images.names[place]}")
            for pixels, value, place in zip(
                images.read(row), similarity, row, strict=True
            )
        ]
        sections.append(Section(str(query), html="".join(figures)))
    return page("Similar images", images.encoder.describe(), "", sections)


def _figure(pixels: np.ndarray, caption: str) -> str:
    side = min(SIDE, len(pixels))
    return (
        f'<figure style="width: {SIDE + 24}px"><img src="{thumbnail(pixels, side)}" '
        f'width="{SIDE}" height="{SIDE}" alt=""><figcaption>{escape(caption)}'
        "</figcaption></figure>"
    )
