"""What is looked at during training, at intervals; kNN is one such evaluator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol, cast

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from snclr_jax.data import Data, Split
from snclr_jax.data.shared import keep_own
from snclr_jax.encoder.encode import make_encode
from snclr_jax.evaluate.features import extract_features, make_raw_pixels
from snclr_jax.evaluate.frozen.accuracy import Accuracy, accuracy, majority
from snclr_jax.evaluate.frozen.knn import knn_accuracies
from snclr_jax.evaluate.memory.choices import choices_of_run
from snclr_jax.evaluate.memory.networks import Search
from snclr_jax.models import Model
from snclr_jax.settings.resident import is_resident
from snclr_jax.step.objective import Objective
from snclr_jax.step.probe import Probe, probe_logits
from snclr_jax.step.state import TrainState


class Run(NamedTuple):
    """What an evaluator may read of a run, besides its state.

    Attributes:
      config: of the run.
      model: the networks.
      objective: what is minimized.
      mesh: the devices.
      data: the image set.
    """

    config: ConfigDict
    model: Model
    objective: Objective
    mesh: Mesh
    data: Data


class Evaluator(Protocol):
    """Something to do with the state of a run at intervals, and after its last step.

    An evaluator also has `every_epochs` or `every_steps`, an integer; 0 is the last
    step alone. What it is due for is saved before.
    """

    def __call__(
        self, state: TrainState, run: Run
    ) -> Mapping[str, float | np.ndarray | None]:
        """Returns numbers and images, uint8 (height, width, 3), by name.

        They are written to metrics.jsonl and TensorBoard. Every process calls it; what
        process 0 returns counts, and the others may return None in place of an image.
        """
        ...


class OnlineKnn:
    """Weighted kNN from training images to test images.

    Args:
      run: reads `evaluate`, `augment.size` and the channel statistics of its config;
        without labels or a test split nothing is `possible`.
    """

    def __init__(self, run: Run) -> None:
        config, mesh, data = run.config, run.mesh, run.data
        self._config, self._mesh = config, mesh
        self.every_epochs = config.evaluate.every_epochs
        train, test = with_labels(data.train), with_labels(data.test)
        self.possible = train is not None and test is not None
        if train is None or test is None:
            return
        self._encode = make_encode(run.model.encode, config, mesh)
        self._train = train.subset(train.thinned(config.evaluate.train_images))
        self._test = test

    def __call__(self, state: TrainState, run: Run) -> dict[str, float]:
        """Returns the accuracy as "knn" and "knn_balanced"."""
        del run
        return self.of_state(state).named("knn")

    def baseline(self, untrained: TrainState, start: TrainState) -> dict[str, float]:
        """Returns the accuracies of what a run starts from, by metric; {} for none.

        Args:
          untrained: with random weights.
          start: at step 0; another one where the run starts from an encoder.
        """
        if not self.possible:
            return {}
        accuracies = {
            "majority": majority(self._train.labels, self._test.labels),
            "knn_raw_pixels": self.of_raw_pixels(),
            "knn_untrained": self.of_state(untrained),
        }
        if start is not untrained:
            accuracies["knn_initial"] = self.of_state(start)
        return {
            metric: value
            for name, accuracy in accuracies.items()
            for metric, value in accuracy.named(name).items()
        }

    def of_raw_pixels(self) -> Accuracy:
        """Returns the accuracy of comparing pixels."""
        encode = make_raw_pixels(self._config, self._mesh)
        return self._accuracy(encode, None, None)

    def of_state(self, state: TrainState) -> Accuracy:
        """Returns the accuracy of the network that `evaluate.network` names."""
        params, batch_stats = encoder_of(state, self._config.evaluate.network)
        return self._accuracy(self._encode, params, batch_stats)

    def _accuracy(self, encode, params, batch_stats) -> Accuracy:
        settings = self._config.evaluate
        for split in (self._train, self._test):
            if is_resident(self._config, split.size):
                keep_own(split)  # decoded once, not for every evaluation
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


class OnlineProbe:
    """The classifier that is trained beside the encoder, on whole test images.

    Features are standardized over the test images, as over a batch in training.

    Args:
      run: without `evaluate.online_probe`, or labels of test images, nothing is
        `possible`.
    """

    def __init__(self, run: Run) -> None:
        test = with_labels(run.data.test)
        self.possible = test is not None and run.config.evaluate.online_probe
        self.every_epochs = run.config.evaluate.every_epochs
        if test is not None:
            self._test = test
            self._encode = make_encode(run.model.encode, run.config, run.mesh)

    def __call__(self, state: TrainState, run: Run) -> dict[str, float]:
        """Returns the accuracy as "probe_test" and "probe_test_balanced"."""
        features = extract_features(
            self._encode,
            state.params,
            state.batch_stats,
            self._test,
            batch_size=run.config.evaluate.batch_size,
            mesh=run.mesh,
        )
        probe = cast(Probe, state.probe)
        logits = probe_logits(jax.device_get(probe.weights), features)
        predicted = np.argmax(logits, axis=1)
        return accuracy(self._test.labels, predicted).named("probe_test")


class OnlineChoices:
    """What some training images choose in the memory of the objective, by labels.

    Args:
      run: where its objective finds nothing, or without labels of training images,
        nothing is `possible`.
    """

    def __init__(self, run: Run) -> None:
        self._search = Search.of(run.config, run.mesh)
        self.every_epochs = run.config.evaluate.every_epochs
        labelled = with_labels(run.data.train) is not None
        self.possible = run.objective.searches and labelled

    def __call__(self, state: TrainState, run: Run) -> dict[str, float]:
        """Returns `Choices.numbers`."""
        return choices_of_run(self._search, state, run.data.train).numbers()


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
