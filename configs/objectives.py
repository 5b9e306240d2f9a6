"""Variants that train another objective: `snclr train --config=cifar10:info_nce`.

Data, network and optimizer stay the recipe's, and so does the size of a queue. What
else a method needs of a recipe stands in `NEEDS`.
"""

from __future__ import annotations

from collections.abc import Callable

from ml_collections import ConfigDict

from snclr_jax.objectives import OBJECTIVES


def choose_objective(config: ConfigDict, name: str) -> ConfigDict:
    """Gives a recipe another objective with its defaults, and what it needs.

    Args:
      config: any recipe; changed in place.
      name: one of `OBJECTIVES`.
    """
    before, config.objective = config.objective, OBJECTIVES[name].section(name)
    if "queue" in before and "queue" in config.objective:
        with config.unlocked():
            config.objective.queue["size"] = before.queue.get_ref("size")
    if name in NEEDS:
        NEEDS[name](config)
    return config


def weak_second_view(config: ConfigDict) -> None:
    """Crops and flips the second view alone: it is the target that others predict."""
    for operation in ("jitter", "grayscale", "blur", "solarize"):
        config.augment.view2[operation] = 0.0


NEEDS: dict[str, Callable[[ConfigDict], None]] = {
    "ressl": weak_second_view,
    "sce": weak_second_view,
}
