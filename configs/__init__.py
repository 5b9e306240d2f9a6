"""Recipes, importable as `snclr_jax.configs`."""

from __future__ import annotations

import ast
from pathlib import Path

_NO_RECIPES = (
    "__init__",
    "base",
    "evaluate",
    "imagenet_base",
    "objectives",
    "published",
    "published_cifar",
    "published_fields",
    "published_imagenet",
)


def recipes() -> dict[str, str]:
    """Returns the first line of every recipe's docstring, by its name.

    No recipe is imported: that would import JAX, too.
    """
    files = sorted(Path(__file__).parent.glob("*.py"))
    modules = {path.stem: ast.parse(path.read_text(encoding="utf-8")) for path in files}
    return {
        name: (ast.get_docstring(module) or "").partition("\n")[0]
        for name, module in modules.items()
        if name not in _NO_RECIPES
    }
