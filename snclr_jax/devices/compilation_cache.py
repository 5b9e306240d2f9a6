"""Compiled programs that are kept from one command to the next; without JAX."""

from __future__ import annotations

import os
from collections.abc import MutableMapping
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

    The folder is `snclr_jax` in `XDG_CACHE_HOME`, or in ~/.cache. Whoever has named a
    folder, even an empty one, keeps it and its limits. Where the folder cannot be
    written, nothing is kept.

    Args:
      environment: the process's, which JAX reads its settings from.
    """
    if DIRECTORY in environment:
        return
    caches = environment.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = Path(caches, "snclr_jax")
    if not folder.is_absolute():  # where there is no home
        return
    try:
        # Whoever could write here would run programs as this user.
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return
    if os.access(folder, os.W_OK):
        for name, value in {DIRECTORY: str(folder), **SETTINGS}.items():
            environment.setdefault(name, value)
