"""What is made once of a large file, and kept in the user's cache."""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Callable
from pathlib import Path

from snclr_jax.devices.compilation_cache import user_cache
from snclr_jax.run.files import NAMED_WRONGLY


def made_once(file: str, suffix: str, make: Callable[[str], None]) -> str:
    """Returns the path of what was made of a file, of its size and time of change.

    Killed at any moment, what is there is whole; of several processes that make it at
    once, the last one's stays.

    Args:
      file: what it is made of.
      suffix: of its name; says what it is.
      make: makes it at a path.

    Raises:
      ValueError: where the cache cannot be written.
      OSError: where the file cannot be read, or the disk of the cache is full.
    """
    status, path = os.stat(file), os.path.realpath(file)
    what = f"{path}\0{status.st_size}\0{status.st_mtime_ns}"
    number = f"{zlib.crc32(os.fsencode(path)):08x}{zlib.crc32(os.fsencode(what)):08x}"
    folder = user_cache(os.environ) / "data"
    kept = folder / f"{Path(file).stem}-{number}{suffix}"
    if kept.exists():
        return str(kept)
    part = folder / f"{kept.name}.{os.getpid()}.part"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        make(str(part))
        part.replace(kept)
    except OSError as error:
        if error.filename == file:
            raise
        kind = ValueError if isinstance(error, NAMED_WRONGLY) else OSError
        raise kind(
            f"{kept} cannot be written ({error.strerror or error}), and {file} is read "
            "by it; free space there, or name another folder by XDG_CACHE_HOME"
        ) from error
    finally:
        with contextlib.suppress(OSError):  # it took its place, or was never made
            part.unlink()
    return str(kept)
