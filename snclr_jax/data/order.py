"""The order of the images of an epoch, a function of (seed, epoch), and its blocks."""

from __future__ import annotations

import functools
import math
import os
from pathlib import Path

import numpy as np

RANDOM, WINDOWED = "random", "windowed"
# Images of a block. 128 JPEGs of 110 KB are 14 MB: one request to a bucket, where each
# image on its own would be one, and enough that gcsfuse takes it for a sequential read.
BLOCK = 128
# Blocks that a set has at least, so that a small one is as good as shuffled whole.
_LEAST_BLOCKS = 1024
# Lanes of a batch at most: processes and workers read no block twice, up to so many.
_LANES = 1024


@functools.lru_cache(maxsize=2)  # threads at both sides of an epoch's end
def epoch_order(
    order: str, size: int, batch_size: int, seed: int, epoch: int
) -> np.ndarray:
    """The permutation of [0, n) that an epoch follows, int32 (n,).

    "random": uniform. "windowed": blocks of consecutive images, in a random order, and
    each shuffled in itself, make one sequence. Its first floor(n / b) b images are cut
    into L = gcd(b, 1024) lanes of equal length, and rows [l b / L, (l + 1) b / L) of
    every batch are the next ones of lane l. So a batch holds images of L places of the
    set, and whoever makes some of its rows reads whole blocks, one for each lane.

    Args:
      order: `RANDOM` or `WINDOWED`.
      size: number of images, n.
      batch_size: b; "random" does not depend on it.
      seed: 0 to 2^32 - 1.
      epoch: counted from 0.
    """
    # RandomState's stream is frozen (NEP 19); Generator's may change with numpy.
    random = np.random.RandomState([seed, epoch])
    images = random.permutation(size).astype(np.int32)
    if order == WINDOWED:
        images = _in_lanes(images, batch_size, random)
    images.flags.writeable = False
    return images


def _in_lanes(
    images: np.ndarray, batch_size: int, random: np.random.RandomState
) -> np.ndarray:
    block, lanes = block_size(len(images)), lane_count(batch_size)
    position = random.permutation(-(-len(images) // block))  # of each block
    images = images[np.argsort(position[images // block], kind="stable")]
    steps = len(images) // batch_size
    batches, rest = np.split(images, [steps * batch_size])
    rows = batches.reshape(lanes, steps, batch_size // lanes).swapaxes(0, 1)
    return np.concatenate([rows.ravel(), rest])


def block_size(size: int) -> int:
    """How many consecutive images of a set of n are read together."""
    return min(BLOCK, max(1, size // _LEAST_BLOCKS))


def lane_count(batch_size: int) -> int:
    """How many blocks are open at a time, in all processes together."""
    return math.gcd(batch_size, _LANES)


def in_user_space(path: str, mounts: str = "/proc/self/mounts") -> bool:
    """Whether a folder lies on a FUSE mount, as gcsfuse and GKE show a bucket.

    Args:
      path: of the folder.
      mounts: what Linux lists its mounts in.
    """
    try:
        lines = Path(mounts).read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return False
    real = os.path.realpath(os.path.expanduser(path))
    kinds = {}
    for line in lines:
        _, folder, kind, *_ = line.split(" ")
        folder = folder.encode().decode("unicode_escape")  # a blank is \040
        if os.path.commonpath([real, folder]) == folder:
            kinds[folder] = kind  # the last mount of a folder hides those before
    kind = kinds[max(kinds, key=len)] if kinds else ""
    return kind == "fuse" or kind.startswith("fuse.")
