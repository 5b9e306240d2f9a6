"""Both networks on the views of a batch: projections, predictions and targets."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh
from ml_collections import ConfigDict

from snclr_jax.models import Model, Variables
from snclr_jax.step.accumulate import in_micro_batches
from snclr_jax.step.objective import unit, widened
from snclr_jax.step.views import image_keys

# What image_keys are numbered from where they choose the dropped paths of a view: above
# the number of any view.
DROP_PATH = 1000


class Online(NamedTuple):
    """What the online network makes of v views.

    Attributes:
      feature: (b, f) of the first view, as the encoder returns it.
      projection: (v, b, d) rows y, of length 1 or as they are, see `Forward`.
      prediction: (v, b, d) rows z; y where there is no predictor.
    """

    feature: Array
    projection: Array
    prediction: Array


@dataclasses.dataclass(frozen=True)
class Forward:
    """A model with the settings of a run.

    Attributes:
      model: the networks.
      config: of the run; reads `accumulate`, `augment`, `model.drop_path` and `seed`.
      mesh: the devices.
      unit_rows: whether rows get length 1; otherwise they stay as a network makes them.
    """

    model: Model
    config: ConfigDict
    mesh: Mesh
    unit_rows: bool

    def target(
        self, params: Variables, batch_stats: Variables, views: tuple[Array, ...]
    ) -> tuple[Array, Variables]:
        """Returns target projections t (v, b, d) of v views, and BN statistics.

        BatchNorm statistics are those of one view at a time, on every device.
        """
        projections = []
        for group in self._groups(views):

            def project(views: Array, stats=batch_stats):
                return self.model.target(params, stats, views)

            projection, batch_stats = self._apply(project, group)
            projections += jnp.unstack(self._rows(projection), axis=1)
        return jnp.stack(projections), batch_stats

    def online(
        self,
        params: Variables,
        batch_stats: Variables,
        views: tuple[Array, ...],
        step: Array | int,
    ) -> tuple[Online, Variables]:
        """Returns what the online network makes of all views, and BN statistics.

        An encoder is used on whole images: local views do not move its statistics.

        Args:
          params, batch_stats: of the network.
          views: (b, s, s, c) each, global ones first.
          step: of the run; it decides which paths are dropped.
        """
        count = self.config.augment.global_views
        features, projections, predictions = [], [], []
        for group in (
            *self._groups(views[:count]),
            *self._groups(views[count:]),
        ):
            first = len(projections)

            def project(views: Array, *keys: Array, stats=batch_stats):
                return self.model.online(params, stats, views, *keys)

            keys = self._drop_path_keys(step, first, group)
            outputs, moved = self._apply(project, group, *keys)
            features += jnp.unstack(outputs.feature, axis=1)
            projections += jnp.unstack(self._rows(outputs.projection), axis=1)
            predictions += jnp.unstack(self._rows(outputs.prediction), axis=1)
            if first < count:
                batch_stats = moved
        projection, prediction = jnp.stack(projections), jnp.stack(predictions)
        return Online(features[0], projection, prediction), batch_stats

    def _rows(self, rows: Array) -> Array:
        return unit(rows) if self.unit_rows else widened(rows)

    def _apply(self, project, views: tuple[Array, ...], *keys: Array) -> tuple:
        stacked = jnp.stack(views, axis=1)
        return in_micro_batches(
            project, self.config.accumulate, self.mesh, stacked, *keys
        )

    def _drop_path_keys(
        self, step: Array | int, first: int, views: tuple[Array, ...]
    ) -> tuple[Array, ...]:
        if not self.config.model.drop_path:
            return ()
        of_view = [
            image_keys(self.config.seed, step, DROP_PATH + first + number, len(view))
            for number, view in enumerate(views)
        ]
        return (jnp.stack(of_view, axis=1),)

    def _groups(self, views: tuple[Array, ...]) -> list[tuple[Array, ...]]:
        """Returns which views, all of one size, go through a network together.

        On GPUs all of them: half as many kernels, each of twice as many rows (cifar10
        on an H200: 9.7 ms a step, and 10.8 one by one). Elsewhere one by one, for then
        more of a view's activations stay in the caches of a CPU (digits: 88 ms, and 103
        together) and in the fast memory of a TPU (cifar10 on a v5e, as the compiler
        sees it: 16.5 GB a step in main memory, and 21.0 together).
        """
        if self.mesh.devices.flat[0].platform == "gpu":
            return [views] if views else []
        return [(view,) for view in views]


def feature_std(y: Array) -> Array:
    """Returns sqrt(d) x the mean standard deviation of unit rows over the batch.

    Near 1 where the embedding fills the sphere, 0 where it has collapsed to a point
    (SimSiam, section 4.1).
    """
    return jnp.mean(jnp.std(y, axis=0)) * jnp.sqrt(y.shape[1])
