"""Pairs of handwritten digits: a hundred classes without a download, minutes on a CPU.

Two of scikit-learn's 1,797 digits side by side, in random size, place, rotation and
colors; train and test share no original. Pictures of a class share few, so views say
less of it than a neighbor does.

    snclr train --config=digit_pairs:memory_dcl

Two CPU cores, about two minutes of training; accuracies in benchmarks/RESULTS.md.
Everything but the neighbors is that of `configs/digits.py`.
"""

from __future__ import annotations

from ml_collections import ConfigDict
from snclr_jax.configs import base, digits


def get_config(name: str = "") -> ConfigDict:
    """Returns the recipe, changed by variants (see `configs/base.py`)."""
    config = digits.get_config()
    config.data.name = "digit_pairs"
    config.objective.queue.k = 5
    return base.variant(config, name)
