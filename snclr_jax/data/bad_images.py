"""The images of a set that cannot be read: which, why, and how many may be."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from snclr_jax.data.decode import UnreadableImage

_SHOWN = 3  # images that the limit's message names


class BadImages:
    """The bad images of a set as it was opened, as far as they were met.

    Args:
      load: decodes some of them, see `Split`.
      names: names some of them.
      size: number of images.
      share: of them that may be bad, 0 to 1.

    Attributes:
      size: as given.
      errors: why an image cannot be read, by its index in the set.
    """

    def __init__(
        self,
        load: Callable[[np.ndarray], np.ndarray],
        names: Callable[[np.ndarray], list[str]],
        *,
        size: int,
        share: float,
    ) -> None:
        self._load, self._names = load, names
        self.size, self._share = size, share
        self.errors: dict[int, UnreadableImage] = {}
        self._told: set[int] = set()  # what all processes know

    def add(self, index: int, error: UnreadableImage) -> None:
        """Counts an image, once.

        Raises:
          ValueError: where it is one more than allowed.
        """
        self.errors.setdefault(index, error)
        self._check()

    def _check(self) -> None:
        allowed = int(self._share * self.size + 1e-9)  # 0.29 x 100 is a little less
        if len(self.errors) > allowed:
            # Threads may be adding others.
            first = sorted(self.errors.copy().items())[:_SHOWN]
            named = "; ".join(error.describe() for _, error in first)
            raise ValueError(
                f"{len(self.errors)} of {self.size} images so far, and data.max_bad "
                f"{self._share:g} allows {allowed}: {named}; replace or remove such "
                "images, or raise data.max_bad"
            )

    def try_again(self, index: int) -> bool:
        """Decodes an image that was bad once, and adds it where it still is.

        Returns:
          Whether it is.

        Raises:
          ValueError: where it is one more than allowed.
        """
        if index not in self.errors:
            try:
                self._load(np.array([index]))
            except UnreadableImage as error:
                self.add(index, error)
        return index in self.errors

    def add_of_others(self, index: int) -> None:
        """Counts an image that another process could not read.

        Raises:
          ValueError: where it is one more than allowed.
        """
        if not self.try_again(index):
            (name,) = self._names(np.array([index]))
            reason = "could not be read in another process, and can in this one"
            self.add(index, UnreadableImage(name, reason))

    def news(self) -> list[tuple[int, str, str]]:
        """Returns index, name and reason of what was not `hear`d of yet."""
        return [
            (index, error.name, error.reason)
            for index, error in sorted(self.errors.copy().items())
            if index not in self._told
        ]

    def hear(self, news: Iterable[tuple[int, str, str]]) -> None:
        """Counts what processes tell one another, each its own `news`.

        Raises:
          ValueError: in all of them, where more images are bad than may be.
        """
        for index, name, reason in news:
            self.errors.setdefault(index, UnreadableImage(name, reason))
            self._told.add(index)
        self._check()

    def lines(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Returns "index", "name" and "reason" of some that were found."""
        names = self._names(np.array(indices, np.intp))
        return [
            {"index": index, "name": name, "reason": self.errors[index].reason}
            for index, name in zip(indices, names, strict=True)
        ]
