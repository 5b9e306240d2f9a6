"""ImageNet with ViT-S/16: MoCo v3's recipe, with soft neighbors.

Views, optimizer, heads and schedule are those of MoCo v3 (Chen et al., 2021), K that of
SNCLR's start script. Data, K and queue: `configs/imagenet_base.py`.

    snclr train --config=imagenet_vit_s16 --config.data.path=DATA_DIR

DATA_DIR holds the TFDS set imagenet2012, prepared as array_record. Without it,

    snclr preflight --config=imagenet_vit_s16 --topology=v5e:8x8

compiles the step for a slice of 64 TPU v5e chips and prints what it costs: 8.8 of
16 GiB, 5.4 TFLOP and 61 GB read and written per chip and step, at best 91 ms, so 2.4 h
for the recipe at the least (estimated from the chip's peak numbers).

Expected: MoCo v3 reaches 73.2% by linear evaluation. Not yet run whole.
"""

from __future__ import annotations

from ml_collections import ConfigDict
from snclr_jax.configs import base, imagenet_base
from snclr_jax.configs.objectives import published


def get_config(name: str = "") -> ConfigDict:
    """Returns the recipe, changed by variants (see `configs/base.py`)."""
    config = imagenet_base.get_config()
    config.epochs = 300
    config.augment.view1 = base.view(blur=1.0)
    config.augment.view2 = base.view(blur=0.1, solarize=0.2)

    config.model.name = "vit_s"
    config.model.projector_hidden = (4096, 4096)
    config.model.predictor_last_bn = True

    config.optim.name = "adamw"
    # SNCLR's start script says 1.5e-5: ten times less than MoCo v3, its own reference.
    config.optim.learning_rate = 1.5e-4
    config.optim.weight_decay = 0.1
    config.optim.warmup_epochs = 40.0
    return base.variant(config, name, own=published("imagenet_vit_s16"))
