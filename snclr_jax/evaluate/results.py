"""What evaluations found: records in a JSON file, scalars in TensorBoard, a table."""

from __future__ import annotations

import datetime
import json
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import jax
from etils import epath
from tensorboardX import SummaryWriter

from snclr_jax import __version__
from snclr_jax.encoder.stored import SUFFIX, Encoder
from snclr_jax.evaluate import quality
from snclr_jax.evaluate.frozen.accuracy import BALANCED
from snclr_jax.evaluate.memory import choices, queue_use
from snclr_jax.run.files import (
    CHECKPOINTS,
    EVALUATION_FILE,
    OWN,
    check_writable,
    write_whole,
    written,
)
from snclr_jax.settings.paths import located

VERSION = 1
# Which values are good, of the metrics that are no accuracies.
GOOD = quality.GOOD | queue_use.GOOD | choices.GOOD
# Two records of the same values of these are of one thing: the newer one replaces.
IDENTITY = ("what", "encoder", "network", "step", "fingerprint", "data")

Record = dict[str, Any]


def records_path(path: epath.PathLike) -> epath.Path:
    """Returns where the records of an encoder lie.

    Args:
      path: a workdir, a checkpoint in it, or an exported file.
    """
    return beside(path, EVALUATION_FILE)


def beside(path: epath.PathLike, name: str) -> epath.Path:
    """Returns a path in the workdir of an encoder, or beside its exported file."""
    path = located(path)
    if path.suffix == SUFFIX:
        return path.with_suffix(f".{name}")
    return (path.parents[1] if path.parent.name == CHECKPOINTS else path) / name


def read_records(path: epath.Path) -> list[Record]:
    """Returns the records of a file, none where there is no file.

    Raises:
      ValueError: where the file is damaged, or of an earlier version.
    """
    if not path.exists():
        return []
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["version"] != VERSION:
            raise ValueError(f"version {content['version']}")
        return content["records"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is damaged, or of another version ({error}); move it away and "
            "evaluate again"
        ) from error


def check_records(path: epath.Path) -> None:
    """Refuses, before any work, a file that `add_record` could not add to.

    Raises:
      ValueError: as `read_records`, and where process 0 cannot write there.
    """
    read_records(path)
    if jax.process_index() == 0 and path.parent.is_dir():
        check_writable(path.parent)


def make_record(
    what: str,
    name: str,
    encoder: Encoder | None,
    metrics: dict[str, float],
    details: dict[str, Any],
    *,
    data: str,
    settings: dict[str, Any],
) -> Record:
    """Returns what an evaluation found now, as it is kept.

    Args:
      what: the evaluation.
      name: of the encoder in a table: "trained", "untrained" or "pixels".
      encoder: None for raw pixels.
      metrics: numbers by name.
      details: how they were reached, as it goes to JSON.
      data: what to call the images.
      settings: all that the numbers depend on beside these.
    """
    return {
        "what": what,
        "encoder": name,
        "network": encoder.network if encoder else "",
        "step": encoder.step if encoder else 0,
        "fingerprint": encoder.fingerprint if encoder else "",
        "data": data,
        "metrics": metrics,
        "details": details,
        "settings": settings,
        "versions": versions(),
        "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def keep_record(path: epath.Path, record: Record) -> None:
    """Adds a record to the file and, of a trained encoder, to its run's TensorBoard.

    Process 0 alone writes.
    """
    if jax.process_index() != 0:
        return
    add_record(path, record)
    if (path.parent / "tensorboard").is_dir() and record["encoder"] == "trained":
        write_board(path.parent, record)


def add_record(path: epath.Path, record: Record) -> None:
    """Adds a record to the end of a file; an older one of the same thing goes.

    The order says which is newer: clocks are set, and zones change.

    Raises:
      ValueError: as `read_records`.
    """

    def identity(record: Record) -> tuple:
        return tuple(record[name] for name in IDENTITY)

    kept = [old for old in read_records(path) if identity(old) != identity(record)]
    content = {"version": VERSION, "records": [*kept, record]}
    write_whole(path, json.dumps(content, indent=2) + "\n")


def write_board(workdir: epath.Path, record: Record) -> None:
    """Writes the metrics of a record to the TensorBoard files of a run."""
    prefix = "" if record["data"] == OWN else f"{record['data']}/"
    # Files are named by the second: a second one in it would replace the first.
    suffix = f".{record['what']}-{time.time_ns()}"
    # An object store cannot append: written here, then copied.
    with tempfile.TemporaryDirectory() as folder:
        with SummaryWriter(folder, filename_suffix=suffix) as board:
            for name, value in record["metrics"].items():
                tag = f"evaluation/{prefix}{record['what']}/{record['network']}/{name}"
                board.add_scalar(tag, value, record["step"])
        for file in epath.Path(folder).iterdir():
            copy = workdir / "tensorboard" / file.name
            with written(copy):
                file.copy(copy)


def table(records: Sequence[Record]) -> str:
    """Returns one line for each metric, one column for each kind of encoder.

    A balanced accuracy stands beside the accuracy, and what is good of another metric
    behind it.
    """
    columns: dict[tuple[str, str], str] = {}
    rows: dict[tuple[str, str], dict[tuple[str, str], float]] = {}
    for record in records:
        encoder = record["encoder"]
        for name, value in record["metrics"].items():
            plain = name.removesuffix(BALANCED)
            column = encoder, name.removeprefix(plain)
            columns[column] = encoder if name == plain else BALANCED.strip("_")
            rows.setdefault((record["what"], plain), {})[column] = value
    width = max(len(" ".join(row)) for row in rows)
    lines = [" " * width + "".join(f"{title:>12}" for title in columns.values())]
    for row, values in rows.items():
        cells = (f"{values[c]:12.2f}" if c in values else " " * 12 for c in columns)
        line = f"{' '.join(row):{width}}{''.join(cells)}  {GOOD.get(row[1], '')}"
        lines.append(line.rstrip())
    return "\n".join(lines)


def versions() -> dict[str, str]:
    """Returns what a number may depend on besides its settings."""
    device = jax.devices()[0]
    return {
        "snclr_jax": __version__,
        "jax": jax.__version__,
        "device": f"{jax.device_count()} x {device.device_kind}",
    }
