"""The recipes in configs/, by name."""

from __future__ import annotations

import importlib
from pathlib import Path

from ml_collections import ConfigDict

from snclr_jax import configs

RECIPES = sorted(
    path.stem
    for path in Path(configs.__path__[0]).glob("*.py")
    if path.stem not in ("__init__", "base", "evaluate", "imagenet_base")
)


def recipe(name: str, variant: str = "") -> ConfigDict:
    """Returns the config of a recipe in a variant."""
    return importlib.import_module(f"snclr_jax.configs.{name}").get_config(variant)
