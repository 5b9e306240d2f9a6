"""The files of a workdir, replaced as a whole and held by one process; without JAX."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import IO, Any

from etils import epath

CONFIG_FILE = "config.json"
DATA_FILE = "data.json"
PACKAGES_FILE = "packages.json"
SHOWN_FILE = "shown.json"
METRICS_FILE = "metrics.jsonl"
SUMMARY_FILE = "summary.json"
EVALUATION_FILE = "evaluation.json"
LOGGERS_FILE = "loggers.json"
CHECKPOINTS = "checkpoints"
# What another path, or leave for it, mends; every other OSError may pass by itself.
NAMED_WRONGLY = (
    FileExistsError,
    FileNotFoundError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
)
# What file systems without locks answer: Lustre mounted so, NFS without its daemon.
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP)
STOPPED_FILE = "stopped.json"
STOPPED, FAILED = "stopped", "failed"  # its states
OWN = "own"  # the images of the run itself, as evaluations name them


def check_writable(folder: epath.PathLike) -> None:
    """Refuses, before any work, a folder on this machine that takes no files.

    Raises:
      ValueError: naming it.
    """
    if "://" in os.fspath(folder):
        return
    try:
        # Permissions alone do not tell: the file system may be read-only or full.
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise ValueError(
            f"{folder} cannot be written to ({error.strerror}); use another folder, or "
            "make room or leave for it"
        ) from error


@contextlib.contextmanager
def written(path: epath.PathLike) -> Generator[None]:
    """Says which file it is that cannot be written, which a full disk does not.

    Raises:
      OSError: there; one of `NAMED_WRONGLY` stays what it is.
    """
    try:
        yield
    except NAMED_WRONGLY:
        raise
    except OSError as error:
        raise OSError(
            f"{path} cannot be written ({error.strerror or error}); free space there, "
            "or use another path"
        ) from error


@contextlib.contextmanager
def replaced(path: epath.PathLike) -> Generator[epath.Path]:
    """Yields where to write a file that then takes its place.

    Killed at any moment, the file before it is still there.

    Raises:
      OSError: as `written`.
    """
    path = epath.Path(path)
    part = path.with_name(f"{path.name}.part")
    try:
        with written(path):
            yield part
            part.replace(path)
    except BaseException:
        # What went wrong before this says more.
        with contextlib.suppress(Exception):
            part.unlink()
        raise


def read_object(path: epath.Path | Path) -> dict[str, Any]:
    """Returns the object that a JSON file holds.

    Raises:
      FileNotFoundError: where there is no file.
      ValueError: where it holds none; the caller names it, and the fix.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"{str(content)[:40]!r} is no JSON object")
    return content


def read_if_there(path: epath.Path | Path, fix: str) -> dict[str, Any] | None:
    """Returns the object of a file that a run wrote, None where there is none.

    Raises:
      ValueError: where it is damaged, with what to do.
    """
    if not path.exists():
        return None
    try:
        return read_object(path)
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); {fix}") from error


def read_lines(path: Path) -> list[str]:
    """Returns the lines of a text file that a user wrote, up to the last that says any.

    Raises:
      ValueError: where it is in another encoding than UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8").strip().split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not in UTF-8 ({error.reason} at byte {error.start}); save it "
            "in that encoding"
        ) from error


def write_whole(path: epath.PathLike, text: str) -> None:
    """Replaces a text file, see `replaced`."""
    with replaced(path) as part:
        part.write_text(text, encoding="utf-8")


def lock(file: IO) -> str:
    """Keeps a file for this process until it is closed; the kernel lets go of it.

    Returns:
      "", or why not: its file system has no locks, and others are not kept out.

    Raises:
      BlockingIOError: where another process has it.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return f"its file system has no locks ({error.strerror})"
    return ""


def is_still_at(path: epath.PathLike, file: IO) -> bool:
    """Whether an open file is the one at a path, and was not removed or replaced.

    A lock of it keeps nobody out then: others lock the file that is there now.
    """
    try:
        return os.path.samestat(os.stat(path), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False
