"""Images of a split, read a block at a time and kept until they are used."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np

from snclr_jax.data.decode import Encoded
from snclr_jax.data.order import block_size
from snclr_jax.data.split import Split

_Images = Sequence[Encoded | np.ndarray]


class Blocks:
    """Reads `Split.originals` in blocks, each from its first image to its last.

    A record of array_record is one read of the file; those of a block follow upon one
    another in one thread, so that a file system takes them for one sequential read.
    Threads share what is read; a worker process begins with nothing.

    Args:
      split: the images.
      at_once: blocks that are used at a time; some more are kept, since threads run
        ahead of one another.
    """

    def __init__(self, split: Split, at_once: int) -> None:
        self._split, self._at_once = split, at_once
        self._most = at_once + at_once // 4 + 16
        self._size = block_size(split.size)
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, Future[_Images]] = OrderedDict()  # by last use

    def __reduce__(self) -> tuple[Any, ...]:
        return Blocks, (self._split, self._at_once)

    def originals(self, rows: np.ndarray) -> _Images:
        """Returns some images as they are stored, see `Split.originals`."""
        return [
            self._block(number)[row]
            for number, row in zip(*np.divmod(rows, self._size), strict=True)
        ]

    def _block(self, number: int) -> _Images:
        with self._lock:
            known = self._kept.get(number)
            block = self._kept[number] = known or Future()
            self._kept.move_to_end(number)
            if len(self._kept) > self._most:
                self._kept.popitem(last=False)
        if known is None:
            try:
                block.set_result(self._read(number))
            except BaseException as error:
                with self._lock:
                    self._kept.pop(number, None)
                block.set_exception(error)
        return block.result()

    def _read(self, number: int) -> _Images:
        first = number * self._size
        rows = range(first, min(first + self._size, self._split.size))
        return [self._split.originals(np.array([row]))[0] for row in rows]
