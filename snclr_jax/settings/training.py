"""What a config trains, built from it in one place: `train` and `preflight` agree."""

from __future__ import annotations

from typing import NamedTuple, cast

import jax
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from snclr_jax.devices.mesh import has_cudnn_attention
from snclr_jax.models import Model, build_model
from snclr_jax.settings.objective import build_objective
from snclr_jax.step.objective import Objective
from snclr_jax.step.optim import learning_rate, make_optimizer
from snclr_jax.step.train_step import make_train_step


class Training(NamedTuple):
    """What a config trains, on the devices of a mesh.

    Attributes:
      model: the networks.
      objective: what is minimized.
      optimizer: with its schedule.
      step: `state, metrics = step(state, batch)`, see `make_train_step`.
      steps_per_epoch: whole batches of the training images.
    """

    model: Model
    objective: Objective
    optimizer: optax.GradientTransformation
    step: jax.stages.Wrapped
    steps_per_epoch: int


def build_training(config: ConfigDict, mesh: Mesh, *, images: int) -> Training:
    """Builds what a checked config trains.

    Args:
      config: the run's.
      mesh: devices, axis "data".
      images: size of the training set, at least a batch.
    """
    steps_per_epoch = images // config.batch_size
    objective = build_objective(config)
    model = build_model(
        config.model,
        predictor=objective.predictor,
        fused_attention=has_cudnn_attention(mesh),
    )
    optimizer = make_optimizer(config, learning_rate(config, steps_per_epoch))
    step = make_train_step(
        model, objective, optimizer, config, mesh, steps_per_epoch=steps_per_epoch
    )
    step = cast(jax.stages.Wrapped, step)
    return Training(model, objective, optimizer, step, steps_per_epoch)
