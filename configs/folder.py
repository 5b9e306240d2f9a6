"""Any folder of images, with or without labels.

    snclr train --config=folder --config.data.path=my_photos

my_photos is one folder of images of any size (subfolders included), or holds
train/<class>/* and, for evaluation, test/<class>/*; docs/data.md has the formats.

What is None below is chosen from the number and the sizes of the images that are found,
and printed (snclr_jax/data/choose.py has the rules); a flag such as
--config.batch_size=64 settles it otherwise. The rest follows `configs/cifar10.py`.

Hardware: a CPU for some hundreds of small images (32 at least), otherwise one GPU or
TPU chip; `snclr preflight` with the same flags prints the cost. Not yet run whole on
any one data set.
"""

from __future__ import annotations

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder
from snclr_jax.configs import base


def get_config(name: str = "") -> ConfigDict:
    """Returns the recipe, changed by variants (see `configs/base.py`)."""
    config = base.get_config()
    config.batch_size = placeholder(int)
    config.epochs = 200
    config.data.name = "folder"
    config.data.image_size = placeholder(int)
    config.data.num_workers = 2
    config.augment.size = placeholder(int)
    base.set_photo_views(config.augment)
    config.augment.local_size = placeholder(int)
    config.model.name = "resnet18"
    config.model.stem = placeholder(str)
    config.model.projector_hidden = (2048,)
    config.objective.queue.size = placeholder(int)
    return base.variant(config, name)
