"""The gallery during training: the same few images at every evaluation."""

from __future__ import annotations

import jax
import numpy as np

from snclr_jax.evaluate.memory.gallery import (
    choose_queries,
    find_gallery,
    read_pictures,
)
from snclr_jax.evaluate.memory.networks import Search
from snclr_jax.evaluate.online import Run
from snclr_jax.step.state import TrainState

QUERIES = 8


class OnlineGallery:
    """Draws what `QUERIES` training images find in the memory of the objective.

    Args:
      run: where its objective finds nothing, nothing is `possible`.
    """

    def __init__(self, run: Run) -> None:
        self._search = Search.of(run.config, run.mesh)
        self.every_epochs = run.config.evaluate.every_epochs
        self.possible = run.objective.searches
        if self.possible:
            seed = run.config.seed
            self._queries = choose_queries(run.data.train, QUERIES, seed=seed)

    def __call__(self, state: TrainState, run: Run) -> dict[str, np.ndarray | None]:
        """Returns the picture as "gallery"; None but on process 0, which draws."""
        # Loads matplotlib, which a run needs at its first evaluation and not before.
        from snclr_jax.visualize import gallery, pixels
        from snclr_jax.visualize.gallery import MOST_NEIGHBORS

        train = run.data.train
        neighbors = find_gallery(self._search, state, train, self._queries).nearest(
            MOST_NEIGHBORS
        )
        if jax.process_index() != 0:
            return {"gallery": None}
        pictures = read_pictures(train, neighbors)
        figure = gallery(*pictures, neighbors, class_names=run.data.class_names)
        return {"gallery": pixels(figure)}
