"""CIFAR-10 with ResNet-18: the recipe of small-image contrastive learning.

Views, optimizer and heads follow what works for MoCo v3 on CIFAR (solo-learn's
published settings); queue and neighbors follow an independent SNCLR run (batch 256,
K 5, queue 4096: 87.64% kNN, 89.64% linear after 200 epochs).

    snclr train --config=cifar10 --config.data.path=FOLDER

FOLDER holds train/<class>/* and test/<class>/*. From TFDS instead:
--config.data.name=tfds --config.data.tfds_name=cifar10 --config.data.path=DATA_DIR.

Hardware: one GPU or TPU chip. On one TPU v5e chip, by the compiler's account and the
chip's peak numbers (`snclr preflight --topology=v5e:1x1 --images=50000`): 2.2 of 16
GiB, 2.0 TFLOP and 16 GB read and written per step, at best 25 ms, so 0.3 h for the
recipe at the least. On a GPU: benchmarks/cifar10_gpu.sh.

Not yet run whole. A narrow encoder on a laptop CPU: see benchmarks/RESULTS.md.
"""

from __future__ import annotations

from ml_collections import ConfigDict
from snclr_jax.configs import base


def get_config(name: str = "") -> ConfigDict:
    """Returns the recipe, changed by variants (see `configs/base.py`)."""
    config = base.get_config()
    config.batch_size = 256
    config.epochs = 200

    config.data.name = "folder"
    config.data.image_size = 32
    # Channel statistics of the training images.
    config.data.mean = (0.4914, 0.4822, 0.4465)
    config.data.std = (0.2470, 0.2435, 0.2616)
    config.augment.size = 32
    config.augment.view1 = base.view(crop_scale=(0.2, 1.0))
    config.augment.view2 = base.view(crop_scale=(0.2, 1.0), solarize=0.2)

    config.model.name = "resnet18"
    config.model.stem = "cifar"
    config.model.projector_hidden = (2048,)
    config.objective.queue.size = 4096
    config.objective.queue.k = 5

    config.optim.name = "lars"
    config.optim.learning_rate = 0.3
    config.optim.warmup_epochs = 10.0
    config.optim.weight_decay = 1e-4
    config.optim.trust_coefficient = 0.02
    config.optim.trust_clip = True
    config.evaluate.k = 200
    return base.variant(config, name)
