"""ImageNet with ViT-B/16: MoCo v3's recipe, with soft neighbors.

That of `configs/imagenet_vit_s16.py` with the wider network: MoCo v3 (Chen et al.,
2021) trains both alike.

    snclr train --config=imagenet_vit_b16 --config.data.path=DATA_DIR

DATA_DIR holds the TFDS set imagenet2012, prepared as array_record. Without it,

    snclr preflight --config=imagenet_vit_b16 --topology=v5e:8x8

compiles the step for a slice of 64 TPU v5e chips and prints what it costs: 4.2 of
16 GiB, 22 TFLOP and 102 GB read and written per chip and step, at best 212 ms, so 5.5 h
for the recipe at the least (estimated from the chip's peak numbers).

Expected: MoCo v3 reaches 76.7% by linear evaluation. Not yet run whole.
"""

from __future__ import annotations

from ml_collections import ConfigDict
from snclr_jax.configs import base, imagenet_vit_s16
from snclr_jax.configs.objectives import published


def get_config(name: str = "") -> ConfigDict:
    """Returns the recipe, changed by variants (see `configs/base.py`)."""
    config = imagenet_vit_s16.get_config()
    config.model.name = "vit_b"
    # One compiled block for all layers, each computed again in the backward pass.
    config.model.scan = True
    config.model.remat = True
    return base.variant(config, name, own=published("imagenet_vit_b16"))
