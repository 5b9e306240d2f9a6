"""ImageNet-100 with ResNet-18: 100 classes of ImageNet, 126,689 images.

The classes are those of CMC (Tian et al., 2020). Views are those of MoCo v3 (Chen et
al., 2021), heads and optimizer those of `configs/cifar10.py`.

    snclr train --config=imagenet100 --config.data.path=FOLDER

FOLDER holds train/<class>/* and val/<class>/*: a folder of links to the class folders
of ImageNet will do. `snclr prepare` turns it into array_record shards, which read
faster; then --config.data.name=tfds --config.data.tfds_name=NAME.

Hardware: one GPU, or 4 TPU chips. On 4 TPU v5e chips, by the compiler's account and the
chip's peak numbers (`snclr preflight --topology=v5e:2x2 --images=126689`): 2.6 of 16
GiB, 3.5 TFLOP and 25 GB read and written per chip and step, at best 43 ms, so 0.6 h for
the recipe at the least.

Expected: not yet run whole.
"""

from __future__ import annotations

from ml_collections import ConfigDict
from snclr_jax.configs import base, cifar10
from snclr_jax.configs.objectives import published


def get_config(name: str = "") -> ConfigDict:
    """Returns the recipe, changed by variants (see `configs/base.py`)."""
    config = cifar10.get_config()
    config.batch_size = 512
    config.data.image_size = 256
    config.data.num_workers = 8
    # Channel statistics of ImageNet.
    config.data.mean = (0.485, 0.456, 0.406)
    config.data.std = (0.229, 0.224, 0.225)
    config.augment.size = 224
    base.set_photo_views(config.augment)
    config.augment.local_size = 96
    config.model.stem = "imagenet"
    config.model.dtype = "bfloat16"
    config.objective.queue.size = 65_536
    config.evaluate.k = 20
    return base.variant(config, name, own=published("imagenet100"))
