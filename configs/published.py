"""Settings that others published for an objective on the data of a recipe.

`snclr train --config=cifar10:nnclr` takes them; docs/recipes.md has the figure beside
each. What a source does not say, or what this package has no field for, stays the
recipe's: data, BatchNorm over the whole batch, and that hidden layers of heads have it.
"""

from __future__ import annotations

from snclr_jax.configs.published_cifar import CIFAR10, CIFAR100
from snclr_jax.configs.published_fields import Settings
from snclr_jax.configs.published_imagenet import RESNET18_ON_100, RESNET50, VIT_B, VIT_S

# Recipe: objective: settings.
PUBLISHED: dict[str, dict[str, Settings]] = {
    "cifar10": CIFAR10,
    "cifar100": CIFAR100,
    "imagenet100": RESNET18_ON_100,
    "imagenet_resnet50": RESNET50,
    "imagenet_vit_s16": VIT_S,
    "imagenet_vit_b16": VIT_B,
}
