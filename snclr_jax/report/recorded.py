"""What the recipe of a run scored elsewhere, with soft neighbors and without."""

from __future__ import annotations

import importlib

from ml_collections import ConfigDict

from snclr_jax.configs.recorded import RECORDED
from snclr_jax.run.changes import changed_fields, under
from snclr_jax.run.workdir import as_json

# What leaves a score comparable. K is one of two: the recipe's, or 0.
_FREE = (
    *("seed", "log", "checkpoint", "steps_per_call", "objective.queue.k"),
    *("data.path", "data.num_workers", "data.max_bad"),
    *("evaluate.every_epochs", "evaluate.batch_size", "evaluate.online_probe"),
)


def recorded(config: ConfigDict) -> str:
    """Returns what was recorded of a run with these settings, "" where nothing was.

    Args:
      config: the run's; None in a recipe is anything here.
    """
    ours = as_json(config)
    for each in RECORDED:
        module = importlib.import_module(f"snclr_jax.configs.{each.recipe}")
        theirs = as_json(module.get_config(each.variants))
        k = config.objective.get("queue", {}).get("k")
        same_k = k in (0, theirs["objective"]["queue"]["k"])
        if same_k and all(
            wanted is None or under(field, _FREE)
            for field, _, wanted in changed_fields(ours, theirs)
        ):
            return (
                f"recorded on {each.images}, {each.seeds} seeds: {each.neighbors}% "
                f"with soft neighbors, {each.none}% without (K = 0)"
            )
    return ""
