"""The embedded default: handwritten digits as colored pictures, minutes on a CPU."""

from __future__ import annotations

from ml_collections import ConfigDict
from snclr_jax.configs import base


def get_config(name: str = "") -> ConfigDict:
    """Returns the recipe, changed by a variant (see `configs/base.py`)."""
    config = base.get_config()
    config.batch_size = 256
    config.epochs = 20
    config.data.name = "digits"
    config.data.mean = (0.5, 0.5, 0.5)
    config.data.std = (0.25, 0.25, 0.25)
    view = dict(
        flip=0.0,
        crop_scale=(0.3, 1.0),
        hue=0.5,
        saturation=0.8,
        brightness=0.6,
        contrast=0.6,
    )
    config.augment.view1 = base.view(**view)
    config.augment.view2 = base.view(solarize=0.3, **view)
    config.model.name = "patchnet"
    config.model.patch_size = 4
    config.model.projector_hidden = (256,)
    config.model.predictor_hidden = (256,)
    config.model.embedding_dim = 64
    config.queue.size = 2048
    config.optim.name = "adamw"
    config.optim.learning_rate = 2e-3
    config.optim.weight_decay = 1e-4
    config.optim.warmup_epochs = 1.0
    config.evaluate.every_epochs = 5
    return base.variant(config, name)
