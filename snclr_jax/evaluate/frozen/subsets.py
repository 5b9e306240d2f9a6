"""Which training images count: parts drawn class by class, or those of a list."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np

from snclr_jax.run.files import read_lines
from snclr_jax.settings.paths import expanded


def class_balanced(
    labels: np.ndarray,
    *,
    share: float | None = None,
    per_class: int | None = None,
    seed: int | Sequence[int],
) -> np.ndarray:
    """Returns a fixed pseudo-random subset that has its part of every class.

    Each class's rows are shuffled, and the subset is the first of them. So it depends
    on the labels and the seed alone, and of one seed, a smaller subset lies inside
    every larger one.

    Args:
      labels: int "n", each >= 0.
      share: of every class's rows, in (0, 1], rounded; at least one row of a class.
      per_class: or else the number of rows of every class, >= 1.
      seed: one or more integers.

    Returns:
      int "m", the rows in rising order.

    Raises:
      ValueError: for a share or per_class out of range, both or neither of them, labels
        below 0, or a class of fewer than `per_class` rows.

    Example:
      >>> labels = np.array([0, 0, 0, 0, 1, 1])
      >>> labels[class_balanced(labels, share=0.5, seed=0)]
      array([0, 0, 1])
    """
    if (share is None) == (per_class is None):
        raise ValueError(
            f"share is {share} and per_class {per_class}; give one of the two"
        )
    if share is not None and not 0 < share <= 1:
        raise ValueError(f"share is {share}; use a value in (0, 1]")
    if per_class is not None and per_class < 1:
        raise ValueError(f"per_class is {per_class}; use 1 or more")
    kept = []
    for rows in _shuffled_classes(labels, seed):
        if per_class is not None and len(rows) < per_class:
            raise ValueError(
                f"class {labels[rows[0]]} has {len(rows)} images, fewer than per_class "
                f"{per_class}; use at most {len(rows)}, or leave the class out"
            )
        kept.append(rows[: per_class or max(1, round(cast(float, share) * len(rows)))])
    return np.sort(np.concatenate(kept))


def held_back(
    labels: np.ndarray, share: float, seed: int, group: np.ndarray | None = None
) -> np.ndarray:
    """Marks about `share` of every class's rows, never all of a class.

    Groups that are of several classes are drawn whatever these are.

    Args:
      labels: int "n", each >= 0.
      share: in (0, 1), rounded class by class.
      seed: of the choice.
      group: int "n"; rows of one group are never divided. None where every row is its
        own.

    Returns:
      bool "n", true for the rows that are held back.

    Raises:
      ValueError: for a share out of range, or one that marks no row at all, or all of
        a class.
    """
    labels = np.asarray(labels)
    if group is not None:
        _, first, member = np.unique(group, return_index=True, return_inverse=True)
        of_group = labels[first]
        if np.array_equal(of_group[member], labels):
            return held_back(of_group, share, seed)[member]
        held = held_back(np.zeros(len(first), int), share, seed)[member]
        if len(np.setdiff1d(labels, labels[~held])):
            raise ValueError(
                f"holdback {share} takes every row of some class, in groups that are "
                "never divided; use less"
            )
        return held
    held = np.zeros(len(labels), bool)
    for rows in _shuffled_classes(labels, seed):
        held[rows[: min(round(share * len(rows)), len(rows) - 1)]] = True
    if not 0 < share < 1 or not held.any():
        raise ValueError(
            f"holdback {share} leaves none of {len(labels)} train rows to choose with; "
            "use a value in (0, 1) that is at least one row of some class"
        )
    return held


def listed(path: str | Path, names: Sequence[str]) -> np.ndarray:
    """Returns the rows of the images that a text file lists, one name a line.

    SimCLR's lists of 1% and 10% of ImageNet are such files: 1percent.txt and
    10percent.txt of github.com/google-research/simclr, imagenet_subsets. Folders
    before a name do not count, neither in the file nor in `names`.

    Args:
      path: of the file; empty lines are passed over.
      names: "n" images' names, in the order of the rows.

    Returns:
      int "m", the rows in rising order.

    Raises:
      ValueError: for a file that is missing or lists nothing, and for a listed name
        that no image has, or more than one.
    """
    path = Path(expanded(path))
    if not path.is_file():
        raise ValueError(
            f"{path} is not a file; give a list of image names, one a line"
        )
    wanted = {_base(line) for line in read_lines(path) if line.strip()}
    if not wanted:
        raise ValueError(f"{path} lists no image; it should hold one name a line")
    rows = [row for row, name in enumerate(names) if _base(name) in wanted]
    matches = [_base(names[row]) for row in rows]
    missing = sorted(wanted - set(matches))
    if missing:
        raise ValueError(
            f"{path} lists {len(missing)} of {len(wanted)} names that none of the "
            f"{len(names)} images has, the first is {missing[0]!r}; use the image set "
            "that the list was made for"
        )
    if len(matches) > len(wanted):
        twice = next(name for name in matches if matches.count(name) > 1)
        raise ValueError(
            f"{path} lists {twice!r}, a name that {matches.count(twice)} images have; "
            "rename the images, so that a name means one of them"
        )
    return np.array(rows)


def _base(name: str) -> str:
    return name.strip().rsplit("/", 1)[-1]


def _shuffled_classes(
    labels: np.ndarray, seed: int | Sequence[int]
) -> list[np.ndarray]:
    """Returns the rows of every class that occurs, in pseudo-random order."""
    labels = np.asarray(labels)
    if len(labels) == 0 or labels.min() < 0:
        raise ValueError(
            f"labels are {labels}; use one or more, each 0 or above, and leave out "
            "images without a label"
        )
    # RandomState's stream is frozen (NEP 19); Generator's may change with numpy.
    random = np.random.RandomState(seed)
    _, counts = np.unique(labels, return_counts=True)
    by_class = np.argsort(labels, kind="stable")
    return [
        random.permutation(rows) for rows in np.split(by_class, counts.cumsum())[:-1]
    ]
