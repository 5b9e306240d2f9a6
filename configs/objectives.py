"""Variants that train another objective: `snclr train --config=cifar10:info_nce`.

Data, network and optimizer stay the recipe's, and so does the size of a queue.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from snclr_jax.objectives import OBJECTIVES


def choose_objective(config: ConfigDict, name: str) -> ConfigDict:
    """Gives a recipe another objective with its defaults.

    Args:
      config: any recipe; changed in place.
      name: one of `OBJECTIVES`.
    """
    before, config.objective = config.objective, OBJECTIVES[name].section(name)
    if "queue" in before and "queue" in config.objective:
        with config.unlocked():
            config.objective.queue["size"] = before.queue.get_ref("size")
    return config
