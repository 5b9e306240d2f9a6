"""`snclr explore`: what an image set holds, on one page and as tables."""

from __future__ import annotations

import datetime
import os
from pathlib import Path
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from snclr_jax.explore.findings import find_out
from snclr_jax.explore.images import open_images
from snclr_jax.explore.page import explore_page
from snclr_jax.explore.tables import write_tables
from snclr_jax.run.files import write_whole

PAGE_FILE = "explore.html"


def explore(
    path: epath.PathLike,
    settings: ConfigDict,
    *,
    data: Any = None,
    network: str | None = None,
    out: str | Path | None = None,
) -> Path:
    """Writes `explore.html` and tables about the images of a run, or about others.

    No labels are needed. The page holds a map of the embedding with pictures, clusters,
    near-duplicates, outliers, the least and most covered regions, and what to label
    first; the tables are of all images, see `write_tables`. Features are kept beside
    them, for the next time and for `similar`.

    Args:
      path, data, network, out: see `open_images`.
      settings: `configs/evaluate.py`; reads `explore` and what `open_images` does.

    Returns:
      The path of the page.

    Raises:
      ValueError: where the encoder or images cannot be read, there are fewer than 3, or
        a setting is out of its range.
    """
    images = open_images(path, settings, data=data, network=network, out=out)
    findings = find_out(images, settings)
    write_tables(images, findings)
    now = datetime.datetime.now(datetime.UTC).isoformat(sep=" ", timespec="minutes")
    title = Path(os.path.abspath(path)).name  # of a run or a file, "." too
    html = explore_page(images, findings, title, f"snclr explore of {now}")
    page = images.folder / PAGE_FILE
    write_whole(page, html)
    return page
