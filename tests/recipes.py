"""The recipes in configs/, by name."""

from __future__ import annotations

import importlib

from ml_collections import ConfigDict
from snclr_jax.configs import recipes

RECIPES = list(recipes())


def recipe(name: str, variant: str = "") -> ConfigDict:
    """Returns the config of a recipe in a variant."""
    return importlib.import_module(f"snclr_jax.configs.{name}").get_config(variant)
