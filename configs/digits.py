"""Handwritten digits as colored pictures, without a download, minutes on a CPU.

scikit-learn's 1,797 digits, each drawn several times in random size, place, rotation
and colors; train and test share no original. Nothing is downloaded.

    snclr train --config=digits

Two CPU cores, about two minutes of training; accuracies in benchmarks/RESULTS.md. All
choices were made on 2,000 held-back training pictures (data.holdback=2000).
"""

from __future__ import annotations

from ml_collections import ConfigDict
from snclr_jax.configs import base


def get_config(name: str = "") -> ConfigDict:
    """Returns the recipe, changed by variants (see `configs/base.py`)."""
    config = base.get_config()
    config.batch_size = 128
    config.epochs = 15

    config.data.name = "digits"
    config.data.mean = (0.5, 0.5, 0.5)
    config.data.std = (0.25, 0.25, 0.25)
    # Strong colors and mild crops: what a digit is lies in its shape, and half of a
    # digit may be another one. A mirrored digit is none, hence no flips.
    view = dict(
        crop_scale=(0.5, 1.0),
        flip=0.0,
        jitter=1.0,
        brightness=0.8,
        contrast=0.8,
        saturation=0.8,
        hue=0.5,
        grayscale=0.5,
        solarize=0.5,
    )
    config.augment.view1 = base.view(**view)
    config.augment.view2 = base.view(**view)
    config.augment.local = base.view(**view | {"crop_scale": (0.2, 0.5)})

    config.model.name = "patchnet"
    config.model.patch_size = 4
    config.model.projector_hidden = (256,)
    config.model.predictor_hidden = (256,)
    config.model.embedding_dim = 64

    # About a third of the training set.
    config.objective.queue.size = 4096
    config.objective.queue.k = 3
    config.objective.attention.temperature = 0.1
    config.objective.temperature = 0.1
    # Neighbors of the first epochs are close to random.
    config.objective.neighbor_warmup_epochs = 3.0
    # In a run this short a target that moves slower never catches up, and finds poor
    # neighbors.
    config.ema.momentum = 0.9

    config.optim.name = "adamw"
    config.optim.learning_rate = 16e-3
    config.optim.weight_decay = 1e-4
    config.optim.warmup_epochs = 1.0
    config.log.every_steps = 50
    config.evaluate.every_epochs = 5
    return base.variant(config, name)
