"""kNN accuracy of a network during training, and of its two baselines."""

from __future__ import annotations

import numpy as np
from jax.sharding import Mesh

from snclr_jax.data import Data, Split
from snclr_jax.data.feed import is_resident
from snclr_jax.evaluate.features import (
    extract_features,
    make_encode,
    make_raw_pixels,
)
from snclr_jax.evaluate.frozen.knn import knn_accuracies
from snclr_jax.models import Model
from snclr_jax.step.state import TrainState


class OnlineKnn:
    """Weighted kNN from training images to test images, in percent.

    Args:
      model: the networks.
      config: reads `evaluate`, `augment.size` and the channel statistics.
      mesh: the devices.
      data: the image set; without labels or a test split nothing is `possible`.
    """

    def __init__(self, model: Model, config, mesh: Mesh, data: Data) -> None:
        self._config, self._mesh = config, mesh
        train, test = with_labels(data.train), with_labels(data.test)
        self.possible = train is not None and test is not None
        if train is None or test is None:
            return
        self._encode = make_encode(model.encode, config, mesh)
        self._train = train.subset(train.thinned(config.evaluate.train_images))
        self._test = test

    def baseline(self, untrained: TrainState, start: TrainState) -> dict[str, float]:
        """Returns the accuracies of what a run starts from, by metric; {} for none.

        Args:
          untrained: with random weights.
          start: at step 0; another one where the run starts from an encoder.
        """
        if not self.possible:
            return {}
        found = {
            "knn_raw_pixels": self.of_raw_pixels(),
            "knn_untrained": self.of_state(untrained),
        }
        if start is not untrained:
            found["knn_initial"] = self.of_state(start)
        return found

    def of_raw_pixels(self) -> float:
        """Returns the accuracy of comparing pixels."""
        encode = make_raw_pixels(self._config, self._mesh)
        return self._accuracy(encode, None, None)

    def of_state(self, state: TrainState) -> float:
        """Returns the accuracy of the network that `evaluate.network` names."""
        params, batch_stats = encoder_of(state, self._config.evaluate.network)
        return self._accuracy(self._encode, params, batch_stats)

    def _accuracy(self, encode, params, batch_stats) -> float:
        settings = self._config.evaluate
        for split in (self._train, self._test):
            if is_resident(self._config, split.size):
                split.images()  # decoded once, not for every evaluation
        train, test = (
            extract_features(
                encode,
                params,
                batch_stats,
                split,
                batch_size=settings.batch_size,
                mesh=self._mesh,
            )
            for split in (self._train, self._test)
        )
        accuracies = knn_accuracies(
            train,
            self._train.labels,
            test,
            self._test.labels,
            k=(settings.k,),
            temperature=(settings.temperature,),
            mesh=self._mesh,
        )
        return accuracies[settings.k, settings.temperature]


def encoder_of(state: TrainState, network: str) -> tuple[dict, dict]:
    """Returns the parameters and BN statistics of the "online" or "target" network."""
    if network == "target":
        return state.target_params, state.target_batch_stats
    return state.params, state.batch_stats


def with_labels(split: Split | None) -> Split | None:
    """Returns the images whose label is known, that is not below 0; None for none."""
    if split is None or not split.labelled:
        return None
    known = np.flatnonzero(split.labels >= 0)
    return split.subset(known) if len(known) else None
