"""What the recipe of a run scored elsewhere, with soft neighbors and without.

Means of kNN on test images in percent, with half of their 95% intervals, by
`python benchmarks/neighbors.py`; benchmarks/RESULTS.md has hardware and dates.
"""

from __future__ import annotations

import importlib
from typing import NamedTuple

from ml_collections import ConfigDict

from snclr_jax.run.changes import changed_fields, under
from snclr_jax.run.workdir import as_json


class Recorded(NamedTuple):
    """Scores of a recipe in some variants.

    Attributes:
      recipe: the name of a file of configs/.
      variants: as they follow the recipe's name.
      images: the set.
      neighbors: with the recipe's neighbors.
      none: with K = 0.
      seeds: of either.
    """

    recipe: str
    variants: str
    images: str
    neighbors: str
    none: str
    seeds: int


RECORDED = (
    Recorded(
        *("digits", "", "the digits"),
        neighbors="84.5 ± 1.1",
        none="85.0 ± 1.3",
        seeds=5,
    ),
    Recorded(
        *("digit_pairs", "memory_dcl", "pairs of digits"),
        neighbors="61.5 ± 1.0",
        none="57.3 ± 1.2",
        seeds=5,
    ),
    Recorded(
        *("digit_pairs", "soft_dcl", "pairs of digits"),
        neighbors="59.6 ± 1.7",
        none="57.3 ± 1.2",
        seeds=5,
    ),
    Recorded(
        *("omniglot", "memory_dcl", "Omniglot-242"),
        neighbors="81.9 ± 1.2",
        none="76.1 ± 1.1",
        seeds=5,
    ),
    Recorded(
        *("omniglot", "soft_dcl", "Omniglot-242"),
        neighbors="77.5 ± 1.2",
        none="76.1 ± 1.1",
        seeds=5,
    ),
)

# What leaves a score comparable.
_FREE = (
    *("seed", "log", "checkpoint", "steps_per_call"),
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
        if all(
            wanted is None or under(field, _FREE)
            for field, _, wanted in changed_fields(ours, theirs)
        ):
            return (
                f"recorded on {each.images}, {each.seeds} seeds: {each.neighbors}% "
                f"with soft neighbors, {each.none}% without (K = 0)"
            )
    return ""
