"""Paths as users type them, and as they are kept and read; without JAX."""

from __future__ import annotations

import os
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Self

from etils import epath
from etils.epath.gpath import PosixGPath
from ml_collections import ConfigDict

# Fields of a config that name a file or a folder.
FIELDS = (("data", "path"), ("model", "init_from"))


class LiteralPath(PosixGPath):
    """A path whose own characters are no pattern.

    `epath` puts the folder before the pattern and takes both for one: in a folder
    "lr[0.1]" Orbax would not find the arrays that it has just written.
    """

    def glob(self, pattern: str) -> Iterator[Self]:
        """Yields what is below the folder and has the pattern's names."""
        name, _, below = pattern.partition("/")
        for path in self.iterdir() if self.is_dir() else ():
            if fnmatchcase(path.name, name):
                yield from path.glob(below) if below else (path,)


def expanded(path: epath.PathLike) -> str:
    """Returns a path with the home folder in place of a leading `~`.

    A shell leaves it in `--workdir=~/runs`.

    Raises:
      ValueError: where there is no such user.
    """
    typed = os.fspath(path)
    name = os.path.expanduser(typed)
    if name.startswith("~"):
        raise ValueError(
            f"{typed}: there is no home folder of that name; a folder that is called "
            f"so is ./{typed}"
        )
    return name


def located(path: epath.PathLike) -> epath.Path:
    """Returns a path that holds wherever it is used: absolute, or a URL such as gs://.

    Raises:
      ValueError: as `expanded`.
    """
    name = expanded(path)
    if "://" in name:
        return LiteralPath(name)
    # TensorStore goes back by names, everything else by links.
    absolute = os.path.realpath if ".." in name.split("/") else os.path.abspath
    return LiteralPath(absolute(name))


def storable(path: epath.PathLike) -> epath.Path:
    """Returns where checkpoints lie, see `located`.

    Raises:
      ValueError: for a name that those who write and read arrays take for another.
    """
    path = located(path)
    # TensorStore writes to a/b instead of a\b; on an object store, what deletes and
    # lists takes the others for patterns.
    refused = "*?[" if "://" in str(path) else "\\"
    for character in refused:
        if character in str(path):
            raise ValueError(
                f"{path} cannot hold checkpoints, because of the {character} in its "
                "name; rename the folder, or use another --workdir"
            )
    return path


def absolute_paths(config: ConfigDict) -> ConfigDict:
    """Returns a config whose paths hold from any folder; "" stays.

    Raises:
      ValueError: as `expanded`.
    """
    config = config.copy_and_resolve_references()
    for section, field in FIELDS:
        if path := config[section].get(field):
            config[section][field] = str(located(path))
    return config
