"""The gallery during training: the same few images at every evaluation."""

from __future__ import annotations

import jax
import numpy as np

from snclr_jax.data import Data
from snclr_jax.evaluate.memory.gallery import (
    choose_queries,
    find_gallery,
    read_pictures,
)
from snclr_jax.evaluate.memory.networks import Search
from snclr_jax.step.state import TrainState
from snclr_jax.visualize import gallery, pixels
from snclr_jax.visualize.gallery import MOST_NEIGHBORS

QUERIES = 8


class OnlineGallery:
    """Draws what `QUERIES` training images find in the memory of the objective.

    Args:
      search: of the run; where its objective finds nothing, nothing is `possible`.
      data: the image set.
    """

    def __init__(self, search: Search, data: Data) -> None:
        self._search, self._data = search, data
        self.possible = search.objective.searches
        if self.possible:
            seed = search.forward.config.seed
            self._queries = choose_queries(data.train, QUERIES, seed=seed)

    def draw(self, state: TrainState) -> np.ndarray | None:
        """Returns uint8 (height, width, 3); None but on process 0, which draws."""
        train = self._data.train
        found = find_gallery(self._search, state, train, self._queries).nearest(
            MOST_NEIGHBORS
        )
        if jax.process_index() != 0:
            return None
        pictures = read_pictures(train, found)
        return pixels(gallery(*pictures, found, class_names=self._data.class_names))
