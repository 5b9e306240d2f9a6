"""The gallery during training: the same few images at every evaluation."""

from __future__ import annotations

import jax
import numpy as np
from jax.sharding import Mesh

from snclr_jax.data import Data
from snclr_jax.evaluate.memory.gallery import (
    choose_queries,
    find_gallery,
    read_pictures,
)
from snclr_jax.models import Model
from snclr_jax.step.state import TrainState
from snclr_jax.visualize import gallery, pixels
from snclr_jax.visualize.gallery import MOST_NEIGHBORS

QUERIES = 8


class OnlineGallery:
    """Draws what `QUERIES` training images find in the queue.

    Args:
      model: the networks.
      config: of the run; where K is 0 nothing is `possible`.
      mesh: the devices.
      data: the image set.
    """

    def __init__(self, model: Model, config, mesh: Mesh, data: Data) -> None:
        self._model, self._config, self._mesh, self._data = model, config, mesh, data
        self.possible = config.queue.k > 0
        if self.possible:
            self._queries = choose_queries(data.train, QUERIES, seed=config.seed)

    def draw(self, state: TrainState) -> np.ndarray | None:
        """Returns uint8 (height, width, 3); None but on process 0, which draws."""
        train = self._data.train
        found = find_gallery(
            self._model,
            state,
            train,
            self._queries,
            config=self._config,
            mesh=self._mesh,
        ).nearest(MOST_NEIGHBORS)
        if jax.process_index() != 0:
            return None
        pictures = read_pictures(train, found)
        return pixels(gallery(*pictures, found, class_names=self._data.class_names))
