"""ImageNet with ResNet-50: MoCo v3's recipe, with soft neighbors.

Views, optimizer, heads and schedule are those of MoCo v3 (Chen et al., 2021) for 100
epochs. Its other runs: --config.epochs=300 --config.optim.learning_rate=0.3; and
--config.epochs=1000 with 0.3, weight decay 1.5e-6 and EMA momentum 0.996. Data,
K and queue: `configs/imagenet_base.py`.

    snclr train --config=configs/imagenet_resnet50.py --config.data.path=DATA_DIR

DATA_DIR holds the TFDS set imagenet2012, prepared as array_record. Without it,

    snclr preflight --config=configs/imagenet_resnet50.py --topology=v5e:8x8

compiles the step for a slice of 64 TPU v5e chips and prints what it costs: 6.0 of
16 GiB, 4.2 TFLOP and 44 GB read and written per chip and step, at best 68 ms, so 0.6 h
for 100 epochs at the least (estimated from the chip's peak numbers).

Expected: MoCo v3 reaches 68.9, 72.8 and 74.6% by linear evaluation after 100, 300 and
1000 epochs. Not yet run whole.
"""

from __future__ import annotations

from ml_collections import ConfigDict
from snclr_jax.configs import base, imagenet_base


def get_config(name: str = "") -> ConfigDict:
    """Returns the recipe, changed by a variant (see `configs/base.py`)."""
    config = imagenet_base.get_config()
    config.epochs = 100
    config.augment.view1 = base.view(crop_scale=(0.2, 1.0), blur=1.0)
    config.augment.view2 = base.view(crop_scale=(0.2, 1.0), blur=0.1, solarize=0.2)

    config.model.name = "resnet50"
    config.model.stem = "imagenet"
    # MoCo v3's value for ResNet-50; its ViTs use 0.2.
    config.loss.temperature = 1.0

    config.optim.name = "lars"
    config.optim.learning_rate = 0.6
    config.optim.weight_decay = 1e-6
    config.optim.warmup_epochs = 10.0
    return base.variant(config, name)
