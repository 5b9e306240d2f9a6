"""Variants that train another objective: `snclr train --config=cifar10:info_nce`.

With settings that were published for it on the recipe's data (`configs/published.py`);
where there are none, data, network, views and optimizer stay the recipe's, and so do
the size of a queue and what is said of soft neighbors. What a method needs of any
recipe stands in `NEEDS`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from ml_collections import ConfigDict
from snclr_jax.configs.published import PUBLISHED

from snclr_jax.objectives import OBJECTIVES

# The second view is the target that others predict: cropped and flipped alone.
_WEAK_SECOND_VIEW = {
    f"augment.view2.{operation}": 0.0
    for operation in ("jitter", "grayscale", "blur", "solarize")
}
NEEDS: dict[str, Mapping[str, Any]] = {
    "ressl": _WEAK_SECOND_VIEW,
    "sce": _WEAK_SECOND_VIEW,
}
# What the defaults of SwAV that count epochs are a share of, in any recipe.
_EPOCHS_OF_SWAV = 200


def choose_objective(
    config: ConfigDict, name: str, settings: Mapping[str, Any] = MappingProxyType({})
) -> ConfigDict:
    """Gives a recipe another objective with its defaults, and what it needs.

    Args:
      config: any recipe; changed in place.
      name: one of `OBJECTIVES`.
      settings: published ones, by dotted field.
    """
    before, config.objective = config.objective, OBJECTIVES[name].section(name)
    after = config.objective
    # A memory bank has a row for each image, however long the recipe's queue is.
    if "queue" in before and "queue" in after and after.queue.size is not None:
        with config.unlocked():
            after.queue["size"] = before.queue.get_ref("size")
    # What a recipe says of soft neighbors holds for whatever has them.
    if "neighbor_weight" in before and "neighbor_weight" in after:
        after.neighbor_warmup_epochs = before.neighbor_warmup_epochs
        after.queue.k = before.queue.k
        if name == "memory_dcl" and not before.neighbor_warmup_epochs:
            # Without one nothing was measured, and the first neighbors are wrong ones.
            fifth = config.get_ref("epochs").to_float() * 0.2
            with config.unlocked():
                after["neighbor_warmup_epochs"] = fifth
        if "rank" in after.queue:  # of a row that is well behind all neighbors
            after.queue.rank = max(after.queue.rank, 4 * after.queue.k)
    if "attention" in before and "attention" in after:
        after.neighbor_weight, after.attention = (
            before.neighbor_weight,
            before.attention,
        )
    if name == "swav":
        for field in ("freeze_epochs", "queue_from_epoch"):
            config.objective[field] *= config.epochs / _EPOCHS_OF_SWAV
    config.update_from_flattened_dict({**NEEDS.get(name, {}), **settings})
    return config


def published(recipe: str) -> dict[str, Callable[[ConfigDict], ConfigDict]]:
    """Returns the variants of a recipe that `PUBLISHED` has settings for."""
    return {
        name: functools.partial(choose_objective, name=name, settings=settings)
        for name, settings in PUBLISHED[recipe].items()
    }
