"""A run small enough for tests: few digits, a network of a few thousand weights."""

from __future__ import annotations

import numpy as np
from snclr_jax.configs import digits

from snclr_jax.devices.mesh import place_batch, place_everywhere
from snclr_jax.models import build_model
from snclr_jax.settings.objective import build_objective
from snclr_jax.step.augment import view_settings
from snclr_jax.step.optim import learning_rate, make_optimizer
from snclr_jax.step.state import init_train_state
from snclr_jax.step.train_step import make_train_step
from snclr_jax.step.views import Batch

STEPS_PER_EPOCH = 10
IMAGES = 48
# Fields of a config that leaves crops from the host as they are.
NOTHING_DRAWN = {
    f"augment__{view}__{name}": 0.0
    for view in ("view1", "view2", "local")
    for name in ("flip", "jitter", "grayscale", "blur", "solarize")
}


def config(**fields):
    """Returns a digits config at debug size; `section__field=value` overrides."""
    config = digits.get_config("debug")
    # What tests rely on stays as it is when the recipe moves.
    config.objective.queue.size, config.objective.queue.k = 32, 4
    config.ema.momentum = 0.99
    config.objective.neighbor_warmup_epochs = 0.0
    config.objective.attention.temperature = 1.0
    return override(config, **fields)


def override(config, **fields):
    """Sets `section__field=value` of a config, and returns it."""
    for path, value in fields.items():
        target = config
        *sections, name = path.split("__")
        for section in sections:
            target = target[section]
        target[name] = value
    return config


def build(config, mesh, *, probe_classes=0):
    """Returns (model, step, state) of a config on a mesh."""
    objective = build_objective(config)
    model = build_model(config.model, predictor=objective.predictor)
    optimizer = make_optimizer(config, learning_rate(config, STEPS_PER_EPOCH))
    step = make_train_step(
        model, objective, optimizer, config, mesh, steps_per_epoch=STEPS_PER_EPOCH
    )
    state = init_train_state(
        model, objective, optimizer, config, mesh, probe_classes=probe_classes
    )
    return model, step, state


def batch(config, mesh, *, seed=0, resident=True):
    """Returns a batch of random images with labels.

    Images that are not resident come as views: the whole image, as if it were a crop.
    """
    rng = np.random.default_rng(seed)
    size = config.data.image_size
    images = rng.integers(0, 256, (IMAGES, size, size, 3), dtype=np.uint8)
    image_id = rng.permutation(IMAGES)[: config.batch_size].astype(np.int32)
    views = None
    if not resident:
        views = tuple(
            place_batch(images[image_id][:, :side, :side], mesh)
            for side, _ in view_settings(config.augment)
        )
    return Batch(
        image_id=place_batch(image_id, mesh),
        views=views,
        resident=place_everywhere(images, mesh) if resident else None,
        labels=place_everywhere(np.arange(IMAGES, dtype=np.int32) % 3, mesh),
    )
