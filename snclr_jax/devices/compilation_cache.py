"""Compiled programs that are kept from one command to the next; without JAX."""

from __future__ import annotations

import os
import platform
import zlib
from collections.abc import Mapping, MutableMapping
from pathlib import Path

DIRECTORY = "JAX_COMPILATION_CACHE_DIR"
# A run leaves some megabytes; the programs that were not used for longest go first.
SETTINGS = {
    "JAX_COMPILATION_CACHE_MAX_SIZE": str(2**30),
    # Some dozen small programs take a second together.
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.05",
}


def keep_compiled(environment: MutableMapping[str, str]) -> None:
    """Lets JAX keep what it compiles in the user's cache; call it before JAX is loaded.

    The folder is one for this kind of processor, in `snclr_jax` in `XDG_CACHE_HOME`, or
    in ~/.cache. Whoever has named a
    folder, even an empty one, keeps it and its limits. Where the folder cannot be
    written, nothing is kept.

    Args:
      environment: the process's, which JAX reads its settings from.
    """
    if DIRECTORY in environment:
        return
    folder = user_cache(environment) / _processor()
    if not folder.is_absolute():  # where there is no home
        return
    try:
        # Whoever could write here would run programs as this user.
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError:
        return
    if os.access(folder, os.W_OK):
        for name, value in {DIRECTORY: str(folder), **SETTINGS}.items():
            environment.setdefault(name, value)


def user_cache(environment: Mapping[str, str]) -> Path:
    """Returns the folder of what is kept from one command to the next."""
    caches = environment.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(caches, "snclr_jax")


def _processor() -> str:
    """Returns a name of this kind of processor.

    A program for one with other instructions may crash here, and machines may share a
    home.
    """
    kind = platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        kind += next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        pass  # not Linux: no shared homes of unlike processors are expected
    return f"{zlib.crc32(kind.encode()):08x}"
