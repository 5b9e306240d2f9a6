"""Which versions of all packages a run computes with, and which are others now."""

from __future__ import annotations

import importlib.metadata
import platform

from etils import epath

from snclr_jax.run.changes import changed_fields
from snclr_jax.run.files import PACKAGES_FILE, read_object


def installed() -> dict[str, str]:
    """Returns the version of Python and of every package that is installed."""
    # Of two of one name Python imports the first.
    found = reversed(list(importlib.metadata.distributions()))
    versions = {str(package.name).lower(): package.version for package in found}
    return {"python": platform.python_version(), **dict(sorted(versions.items()))}


def changed_packages(workdir: epath.PathLike) -> list[str]:
    """Returns a line about the packages that a run was last started with, or none."""
    path = epath.Path(workdir) / PACKAGES_FILE
    if not path.exists():  # of a new run, or by a version that did not note them
        return []
    try:
        before = read_object(path)
    except ValueError as error:
        return [f"{path} is damaged ({error}), and written anew"]
    changes = [
        f"{name} was {theirs or 'not installed'} and is {ours or 'not installed'}"
        for name, ours, theirs in changed_fields(installed(), before)
    ]
    if not changes:
        return []
    # All of them: the file is about to hold the new ones.
    return [
        f"other packages than at the last start: {', '.join(changes)}; install what "
        "was there for the same bits"
    ]
