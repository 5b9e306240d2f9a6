"""Where the files of a tar lie in it; nothing is unpacked, and no link is followed."""

from __future__ import annotations

import os
import posixpath
import tarfile
from collections.abc import Iterator
from typing import NamedTuple


class Member(NamedTuple):
    """A file in a tar."""

    name: str  # "/" between folders
    offset: int  # of its first byte in the tar
    size: int  # bytes; 0 where it is no file


def leads_out(name: str) -> bool:
    """Whether whoever unpacks a member by its name writes beside the folder."""
    return bool({"", ".."} & set(name.split("/")))


def members(file: str) -> Iterator[Member]:
    """Yields the files in a tar; a tar inside it stands for a folder.

    Raises:
      tarfile.TarError: where it is no tar, is compressed or cut off.
      RecursionError: where it holds tars without end.
      OSError: where it cannot be read.
    """
    yield from _members(file, 0, os.path.getsize(file))


def _members(file: str, start: int, end: int, below: str = "") -> Iterator[Member]:
    """The files in the tar that is bytes [start, end) of `file`."""
    with open(file, "rb") as stream:
        stream.seek(start)
        with tarfile.open(fileobj=stream, mode="r:") as tar:
            for member in tar:
                if member.offset >= end:  # an inner tar may lack its last blocks
                    return
                # A link has no bytes, and those of a sparse file have gaps.
                plain = member.isreg() and not member.issparse()
                size = member.size if plain else 0
                first, last = member.offset_data, member.offset_data + size
                if last > end:
                    raise tarfile.ReadError(f"{below}{member.name} is cut off")
                name = below + posixpath.normpath(member.name)
                if plain and name.endswith(".tar"):
                    inner = name.removesuffix(".tar") + "/"
                    yield from _members(file, first, last, inner)
                elif not member.isdir():
                    yield Member(name, first, size)
