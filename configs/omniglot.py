"""Omniglot, handwriting of many classes: soft neighbors on a laptop CPU, in minutes.

Crops and colors say nothing of another person's hand; a neighbor does. The two small
sets of github.com/brendenlake/omniglot hold 242 characters of 8 alphabets, each drawn
once by 20 people: 16 of them to learn from, 4 to be scored on.

    unzip images_background_small1.zip -d omniglot    # 3 MB each
    unzip images_background_small2.zip -d omniglot
    snclr train --config=omniglot:memory_dcl --config.data.path=omniglot

The whole of it is images_background.zip and images_evaluation.zip. TFDS's `omniglot`
says nothing of writers.

Views, encoder and optimizer are those of `configs/digits.py`. Without `:memory_dcl` it
is SNCLR, which learns these slower. Two CPU cores, about five minutes; accuracies of
Omniglot-242, the same drawings at 32 x 32 pixels, in benchmarks/RESULTS.md.
"""

from __future__ import annotations

from ml_collections import ConfigDict
from snclr_jax.configs import base, digits


def get_config(name: str = "") -> ConfigDict:
    """Returns the recipe, changed by variants (see `configs/base.py`)."""
    config = digits.get_config()
    config.data.name = "omniglot"
    config.epochs = 100
    config.optim.warmup_epochs = 5.0
    # About half of the training images; an image has 15 others of its class.
    config.objective.queue.size = 2048
    config.objective.queue.k = 5
    config.objective.neighbor_warmup_epochs = 20.0
    config.evaluate.every_epochs = 25
    config.evaluate.k = 10
    return base.variant(config, name)
