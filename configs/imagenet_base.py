"""What the ImageNet recipes share: data, batch and queue. Not a recipe of its own."""

from __future__ import annotations

from ml_collections import ConfigDict
from snclr_jax.configs import base


def get_config() -> ConfigDict:
    """Returns the base config for ImageNet at MoCo v3's batch and SNCLR's K."""
    config = base.get_config()
    config.batch_size = 4096

    config.data.name = "tfds"
    config.data.tfds_name = "imagenet2012"
    # TFDS's name; `snclr prepare` calls it "test".
    config.data.test_split = "validation"
    # Evaluation cuts the middle 224 pixels out of 256.
    config.data.image_size = 256
    # For each process. A TPU v5e chip takes the images of 1 to 2 cores, an H200 those
    # of about 10 (benchmarks/input.py).
    config.data.num_workers = 16
    config.augment.size = 224
    base.set_photo_views(config.augment)
    config.augment.local_size = 96

    config.model.dtype = "bfloat16"
    # In all; SNCLR's start script has 128,000 rows for each of its devices.
    config.objective.queue.size = 131_072
    config.objective.queue.k = 30
    return config
