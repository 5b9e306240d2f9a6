"""CIFAR-10 with ResNet-18: the recipe of small-image contrastive learning.

Views, optimizer and heads follow what works for MoCo v3 on CIFAR (solo-learn's
published settings); queue and neighbors follow Mini-SSL's SNCLR run. The variant
`mini_ssl` follows that run in everything: 87.64% 200-NN, 89.64% linear after 200 epochs
(github.com/pc-cp/Benchmark-Methods-For-MNN at 4a82212; its `snclr(cifar10_7)`).

    snclr train --config=cifar10 --config.data.path=FOLDER
    snclr train --config=cifar10:mini_ssl --config.data.path=FOLDER \
        --workdir=runs/cifar10_mini_ssl

FOLDER holds train/<class>/* and test/<class>/*. From TFDS instead:
--config.data.name=tfds --config.data.tfds_name=cifar10 --config.data.path=DATA_DIR.

Hardware: one GPU or TPU chip. On one TPU v5e chip, by the compiler's account and the
chip's peak numbers (`snclr preflight --topology=v5e:1x1 --images=50000`): 2.2 of 16
GiB, 2.0 TFLOP and 16 GB read and written per step, at best 25 ms, so 0.3 h for the
recipe at the least. On a GPU benchmarks/trials.py tries settings for 20 epochs each and
trains the best one whole.

`mini_ssl`, run whole on CIFAR-10 as JPEGs: 82.7% 200-NN, one seed, without K = 0 beside
it. The recipe itself was not yet run whole. See benchmarks/RESULTS.md.
"""

from __future__ import annotations

from ml_collections import ConfigDict
from snclr_jax.configs import base
from snclr_jax.configs.objectives import published


def get_config(name: str = "", data: str = "cifar10") -> ConfigDict:
    """Returns the recipe, changed by "mini_ssl" and variants of `configs/base.py`.

    Args:
      name: of the variants.
      data: whose published settings an objective takes, "cifar10" or "cifar100".
    """
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
    return base.variant(config, name, own={"mini_ssl": _mini_ssl, **published(data)})


def _mini_ssl(config: ConfigDict) -> ConfigDict:
    """Sets everything that Mini-SSL's run of SNCLR has, but for BatchNorm.

    There it is over 32 images in the encoder and over the batch in the heads, and the
    images of the target network are shuffled, so that no group of 32 tells which target
    is an image's own. `model.bn_scope` is one for both and shuffles nothing, so here
    all BatchNorm is over the batch. The linear figure there is of a classifier trained
    on random crops, at the best of its 100 epochs on the test images.
    """
    for name in ("view1", "view2"):
        config.augment[name] = base.view(
            crop_scale=(0.2, 1.0), saturation=0.4, blur=0.5
        )
    config.data.std = (0.2023, 0.1994, 0.2010)

    config.model.projector_hidden = (2048, 2048)
    config.model.predictor_hidden = (2048,)
    config.model.embedding_dim = 128
    config.model.projector_last_bn = True
    config.model.predictor_last_bn = True

    config.objective.form = "soft_cross_entropy"
    config.objective.temperature = 0.2
    config.objective.queue.exclude_same_image = False

    config.optim.name = "sgd"
    config.optim.learning_rate = 0.06
    config.optim.warmup_epochs = 5.0
    config.optim.weight_decay = 5e-4
    config.optim.decay_all = True
    config.ema.momentum = 0.99
    config.ema.final_momentum = 0.99
    config.evaluate.temperature = 0.1
    return config
