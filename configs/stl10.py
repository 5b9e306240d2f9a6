"""STL-10 with ResNet-18: 100,000 unlabelled images of 96 pixels.

Views, heads and optimizer are those of `configs/cifar10.py`, with the blur of MoCo v3
(Chen et al., 2021), which larger images need. The labelled training images join the
unlabelled ones; only they are classified by (an image whose label is -1 is unlabelled).

    snclr train --config=stl10 --config.data.path=DATA_DIR

DATA_DIR holds the TFDS set stl10, prepared as array_record. 2.9 GB of pixels stay on
every device.

Hardware: one GPU or TPU chip. On one TPU v5e chip, by the compiler's account and the
chip's peak numbers (`snclr preflight --topology=v5e:1x1 --images=105000`): 6.8 of 16
GiB, 1.2 TFLOP and 18 GB read and written per step, at best 27 ms, so 0.6 h for the
recipe at the least.

Expected: not yet run whole.
"""

from __future__ import annotations

from ml_collections import ConfigDict
from snclr_jax.configs import base, cifar10


def get_config(name: str = "") -> ConfigDict:
    """Returns the recipe, changed by variants (see `configs/base.py`)."""
    config = cifar10.get_config()
    config.data.name = "tfds"
    config.data.tfds_name = "stl10"
    config.data.train_split = "unlabelled+train"
    config.data.image_size = 96
    # Channel statistics of the training images.
    config.data.mean = (0.4467, 0.4398, 0.4066)
    config.data.std = (0.2603, 0.2566, 0.2713)
    config.augment.size = 96
    base.set_photo_views(config.augment)
    config.augment.local_size = 48
    config.model.stem = "imagenet"
    config.objective.queue.size = 16_384
    return base.variant(config, name)
