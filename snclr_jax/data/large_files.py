"""Image sets of few large files: which there are, and of which split each is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from snclr_jax.data.layout import TEST, TRAIN, USUAL, passed_over, walk
from snclr_jax.settings.paths import expanded

_SHOWN = 3  # names that a note shows


class Files(NamedTuple):
    """The files of a set.

    Attributes:
      root: the folder that they lie in.
      train: names below it of those to train on, sorted.
      test: names of those to evaluate on; empty where there are none.
      notes: what a person may not have meant, a sentence each.
    """

    root: Path
    train: list[str]
    test: list[str]
    notes: list[str]


def find_files(
    path: str, suffixes: tuple[str, ...], splits: tuple[str, str] = USUAL
) -> Files:
    """Finds the files of a set by the names of its splits, see `divide`.

    Args:
      path: folder that holds them, at any depth, or one file: that is all of the set.
      suffixes: of the files.
      splits: `data.train_split` and `data.test_split`.

    Raises:
      ValueError: where there are none, or none of a split.
      OSError: where a folder cannot be listed.
    """
    root, wanted = Path(expanded(path)), " or ".join(suffixes)
    if path and root.is_file() and root.name.lower().endswith(suffixes):
        return Files(root.parent, [root.name], [], [])
    if not path or not root.is_dir():
        raise ValueError(
            f"data.path is {path!r}, which is no folder and no {wanted} file; give the "
            f"folder that holds train-*{suffixes[0]}, or one such file"
        )
    found = list(walk(root))
    names = sorted(name for name, _ in found if name.lower().endswith(suffixes))
    if not names:
        others = passed_over(Path(name).suffix.lower() or "others" for name, _ in found)
        raise ValueError(
            f"data.path: no {wanted} files under {root}, which has "
            f"{others or 'no files'}; name their folder, or the kind of what is there "
            "by data.name"
        )
    return Files(root, *divide(names, splits))


def divide(
    names: Sequence[str], splits: tuple[str, str] = USUAL
) -> tuple[list[str], list[str], list[str]]:
    """Divides names into splits by the first word in each that is a split's.

    Words are parted by anything but letters and digits: data/train-00000-of-00002,
    imagenet-train-00.tar and train/0000 are of "train".

    Args:
      names: of files, or of arrays.
      splits: of training and test images; as for folders (`layout.read_layout`), "" is
        all of them and none of them, "train" stands for the names of `TRAIN` and, where
        there are none, for all, and one of `TEST` for all names of that.

    Returns:
      The names to train on, those to evaluate on, and notes.

    Raises:
      ValueError: where a split that is asked for is not there.
    """
    known = {*TRAIN, *TEST, *map(str.lower, filter(None, splits))}
    longest_first = sorted(map(re.escape, known), key=len, reverse=True)
    word = re.compile(rf"(?<![^\W_])({'|'.join(longest_first)})(?![^\W_])")
    of: dict[str, list[str]] = {}
    for name in names:
        match = word.search(name.lower())
        of.setdefault(match[1] if match else "", []).append(name)
    train = _first_of(splits[0], TRAIN[:1], TRAIN, of, "data.train_split")
    test = _first_of(splits[1], TEST, TEST, of, "data.test_split")
    if not train:
        if test and splits[1].lower() not in TEST:
            raise ValueError(
                f"data.test_split {splits[1]!r} is part of what is trained on, which "
                "is all; name that by data.train_split, or '' for no test images"
            )
        notes = []
        if splits[0] and any(name in of for name in TEST):
            notes.append(
                "nothing is called train, so that all of it is trained on; "
                "data.train_split and data.test_split name splits"
            )
        return list(names), [], notes
    unused = [name for split in of.keys() - {train, test} for name in of[split]]
    notes = []
    if unused:
        shown = ", ".join(sorted(unused)[:_SHOWN])
        notes.append(
            f"{len(unused)} beside {' and '.join(filter(None, (train, test)))} are not "
            f"used ({shown}{', ...' if len(unused) > _SHOWN else ''}); "
            "data.train_split and data.test_split name splits"
        )
    return of[train], of[test] if test else [], notes


def _first_of(
    wanted: str,
    usual: tuple[str, ...],
    others: tuple[str, ...],
    of: dict[str, list[str]],
    field: str,
) -> str:
    """Returns the split that is meant; "" for none."""
    name = wanted.lower()
    if not name or name in of:
        return name
    if name in usual:
        return next((other for other in others if other in of), "")
    raise ValueError(
        f"{field} {wanted!r} is in no name of data.path, whose splits are "
        f"{', '.join(sorted(filter(None, of))) or 'not named'}; use one of them, or ''"
    )
