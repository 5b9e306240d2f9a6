"""CIFAR-100 with ResNet-18: the recipe of `configs/cifar10.py` on 100 classes.

Same paper, views, optimizer, heads, queue and variants; Mini-SSL's SNCLR run, which
`mini_ssl` follows, reports 58.57% 200-NN and 65.45% linear after 200 epochs.

    snclr train --config=cifar100 --config.data.path=FOLDER
    snclr train --config=cifar100:mini_ssl --config.data.path=FOLDER \
        --workdir=runs/cifar100_mini_ssl

FOLDER holds train/<class>/* and test/<class>/*. From TFDS instead:
--config.data.name=tfds --config.data.tfds_name=cifar100 --config.data.path=DATA_DIR.

Hardware: one GPU or TPU chip. Cost: that of `configs/cifar10.py`, the same program.
Not yet run whole.
"""

from __future__ import annotations

from ml_collections import ConfigDict
from snclr_jax.configs import cifar10


def get_config(name: str = "") -> ConfigDict:
    """Returns the recipe, changed by the variants of `configs/cifar10.py`."""
    config = cifar10.get_config(name, data="cifar100")
    # Channel statistics of the training images.
    config.data.mean = (0.5071, 0.4866, 0.4409)
    config.data.std = (0.2673, 0.2564, 0.2762)
    return config
