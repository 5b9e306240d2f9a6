"""ImageNet with ResNet-50: MoCo v3's recipe, with soft neighbors.

Views, optimizer, heads and schedule are those of MoCo v3 (Chen et al., 2021). The
number of epochs is an argument: 100 (the default), 200, 400 or 800. MoCo v3 gives
settings for 100, 300 and 1000; 200 and 400 take those of 300, and 800 those of 1000.
Data, K and queue: `configs/imagenet_base.py`.

    snclr train --config=imagenet_resnet50 --config.data.path=DATA_DIR
    snclr train --config=imagenet_resnet50:400 --config.data.path=DATA_DIR \
        --workdir=runs/resnet50_400

DATA_DIR holds the TFDS set imagenet2012, prepared as array_record. Without it,

    snclr preflight --config=imagenet_resnet50 --topology=v5e:8x8

compiles the step for a slice of 64 TPU v5e chips and prints what it costs: 6.3 of
16 GiB, 4.2 TFLOP and 43 GB read and written per chip and step, at best 67 ms, so 0.6 h
for 100 epochs at the least (estimated from the chip's peak numbers).

Expected: MoCo v3 reaches 68.9, 72.8 and 74.6% by linear evaluation after 100, 300 and
1000 epochs. Not yet run whole.
"""

from __future__ import annotations

import functools

from ml_collections import ConfigDict
from snclr_jax.configs import base, imagenet_base
from snclr_jax.configs.objectives import published

# Epochs: learning rate, weight decay and EMA momentum (MoCo v3's code, CONFIG.md).
SETTINGS = {
    "100": (0.6, 1e-6, 0.99),
    "200": (0.3, 1e-6, 0.99),
    "400": (0.3, 1e-6, 0.99),
    "800": (0.3, 1.5e-6, 0.996),
}


def get_config(name: str = "") -> ConfigDict:
    """Returns the recipe for "100", "200", "400" or "800" epochs.

    The variants of `configs/base.py` go with them or stand alone: "400,authors". An
    objective that was published with other epochs sets its own; `epochs` changes them.
    """
    config = imagenet_base.get_config()
    config.model.name = "resnet50"
    config.model.stem = "imagenet"
    # MoCo v3's value for ResNet-50; its ViTs use 0.2.
    config.objective.temperature = 1.0

    config.optim.name = "lars"
    own = {epochs: functools.partial(_set_epochs, epochs) for epochs in SETTINGS}
    own |= published("imagenet_resnet50")
    return base.variant(_set_epochs("100", config), name, own=own)


def _set_epochs(epochs: str, config: ConfigDict) -> ConfigDict:
    config.epochs = int(epochs)
    config.optim.warmup_epochs = 10.0
    rate, decay, momentum = SETTINGS[epochs]
    config.optim.learning_rate = rate
    config.optim.weight_decay = decay
    config.ema.momentum = momentum
    return config
