"""Any folder of images, with or without labels.

    snclr train --config=configs/folder.py --config.data.path=my_photos

my_photos is one folder of JPEG, PNG or WebP files of any size (subfolders included), or
holds train/<class>/* and, for evaluation, test/<class>/*. Images are decoded to
data.image_size and random crops of them become views of augment.size pixels.

Batch and queue suit some thousands of images: keep queue.size below their number, and
raise both with it. Not yet run whole on any one data set.
"""

from __future__ import annotations

from ml_collections import ConfigDict
from snclr_jax.configs import base


def get_config(name: str = "") -> ConfigDict:
    """Returns the recipe, changed by a variant (see `configs/base.py`)."""
    config = base.get_config()
    config.batch_size = 128
    config.epochs = 200
    config.data.name = "folder"
    config.data.image_size = 112
    config.data.num_workers = 2
    config.augment.size = 96
    config.augment.view1 = base.view(crop_scale=(0.2, 1.0), blur=1.0)
    config.augment.view2 = base.view(crop_scale=(0.2, 1.0), blur=0.1, solarize=0.2)
    config.model.name = "resnet18"
    config.model.stem = "imagenet"
    config.model.projector_hidden = (2048,)
    config.queue.size = 1024
    return base.variant(config, name)
