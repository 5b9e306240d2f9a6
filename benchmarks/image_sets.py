"""Image sets that are learned in minutes, each with its recipe."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType, ModuleType
from typing import Any, NamedTuple

from ml_collections import ConfigDict
from snclr_jax.configs import cifar10, cifar100, digit_pairs, digits, omniglot

CIFAR10 = {
    "epochs": 4,
    "batch_size": 256,
    "model.name": "patchnet",
    "model.patch_size": 4,
    "model.width": 64,
    "model.projector_hidden": (512,),
    "model.predictor_hidden": (512,),
    "objective.queue.size": 4096,
    "objective.queue.k": 5,
    "objective.attention.temperature": 0.1,
    "objective.temperature": 0.1,
    "objective.neighbor_warmup_epochs": 1.0,
    "ema.momentum": 0.95,
    "optim.name": "adamw",
    "optim.learning_rate": 8e-3,
    "optim.warmup_epochs": 0.3,
    "evaluate.train_images": 10000,
}

SGD = {
    "optim.name": "sgd",
    "optim.learning_rate": 0.06,
    "optim.weight_decay": 5e-4,
    "optim.decay_all": True,
}

# A proxy of the trials on a GPU: ResNet-18 in an eighth of its width, ten minutes a run
# of one CPU core. AdamW at 4e-3 learned slower in three epochs of Omniglot-242.
NARROW = SGD | {"model.name": "resnet18", "model.width": 8}

ON_A_GPU = {
    "data.resident": True,
    "model.dtype": "bfloat16",
    "steps_per_call": 10,
    "checkpoint.every_steps": 5000,
}


class ImageSet(NamedTuple):
    """Training images, of which some are held back, and what is trained on them.

    Attributes:
      images: their number.
      holdback: how many of them choose settings.
      epochs: of a short run, one of many that are compared.
      tries: epochs of a run that tries a value, shorter still.
      recipe: a module of configs/.
      settings: what changes the recipe, by dotted field.
    """

    images: int
    holdback: int
    epochs: int
    tries: int
    recipe: ModuleType
    settings: Mapping[str, Any] = MappingProxyType({})

    def config(self) -> ConfigDict:
        """Returns the recipe for SNCLR, but for the folder of the images."""
        config = self.recipe.get_config()
        config.update_from_flattened_dict(self.settings)
        return config


IMAGE_SETS = {
    "digits": ImageSet(12_000, 2_000, 8, 4, digits),
    "digit_pairs": ImageSet(12_000, 2_000, 8, 4, digit_pairs),
    "omniglot": ImageSet(3_872, 968, 20, 8, omniglot, {"data.name": "folder"}),
    "digits_narrow": ImageSet(12_000, 2_000, 8, 4, digits, NARROW),
    "omniglot_narrow": ImageSet(
        3_872, 968, 20, 8, omniglot, NARROW | {"data.name": "folder"}
    ),
    # Half as wide it sees twice the images a second, and an epoch of info_nce ends at a
    # held-back kNN of 38.7 in place of 38.1.
    "cifar10": ImageSet(50_000, 5_000, 2, 1, cifar10, CIFAR10 | {"model.width": 32}),
    "cifar10_resnet18": ImageSet(50_000, 5_000, 200, 20, cifar10, ON_A_GPU),
    "cifar100_resnet18": ImageSet(50_000, 5_000, 200, 20, cifar100, ON_A_GPU),
}
