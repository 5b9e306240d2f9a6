"""Tiny ImageNet with ResNet-18: 100,000 images of 64 pixels, 200 classes.

Views, heads and optimizer are those of `configs/cifar10.py`.

    snclr train --config=tiny_imagenet --config.data.path=tiny-imagenet-200

The folder holds train/<class>/images/*, as it is distributed. Its test images have no
classes, and must not be taken for the test split; its validation images lie in one
folder beside a list of their classes, into which they are to be sorted:

    cd tiny-imagenet-200 && mv test unlabelled && cd val
    while read -r file class rest; do
        mkdir -p "$class" && mv "images/$file" "$class/"; done < val_annotations.txt
    rmdir images

Hardware: one GPU or TPU chip. On one TPU v5e chip, by the compiler's account and the
chip's peak numbers (`snclr preflight --topology=v5e:1x1 --images=100000`): 8.1 of 16
GiB, 8.5 TFLOP and 88 GB read and written per step, at best 120 ms, so 2.6 h for the
recipe at the least.

Expected: not yet run whole.
"""

from __future__ import annotations

from ml_collections import ConfigDict
from snclr_jax.configs import base, cifar10


def get_config(name: str = "") -> ConfigDict:
    """Returns the recipe, changed by variants (see `configs/base.py`)."""
    config = cifar10.get_config()
    config.data.image_size = 64
    # Channel statistics of the training images.
    config.data.mean = (0.4802, 0.4481, 0.3975)
    config.data.std = (0.2770, 0.2691, 0.2821)
    config.augment.size = 64
    config.objective.queue.size = 16_384
    return base.variant(config, name)
