"""The files of a workdir, and files that are replaced as a whole; without JAX."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from etils import epath

CONFIG_FILE = "config.json"
DATA_FILE = "data.json"
SHOWN_FILE = "shown.json"
METRICS_FILE = "metrics.jsonl"
SUMMARY_FILE = "summary.json"
EVALUATION_FILE = "evaluation.json"
CHECKPOINTS = "checkpoints"


@contextlib.contextmanager
def replaced(path: epath.PathLike) -> Iterator[epath.Path]:
    """Yields where to write a file that then takes its place.

    Killed at any moment, the file before it is still there.
    """
    path = epath.Path(path)
    part = path.with_name(f"{path.name}.part")
    try:
        yield part
        part.replace(path)
    except BaseException:
        # What went wrong before this says more.
        with contextlib.suppress(Exception):
            part.unlink()
        raise


def write_whole(path: epath.PathLike, text: str) -> None:
    """Replaces a text file, see `replaced`."""
    with replaced(path) as part:
        part.write_text(text, encoding="utf-8")
