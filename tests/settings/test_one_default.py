"""The default of a setting stands in `configs/` alone; no signature has another."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict
from snclr_jax.configs import base, evaluate

import snclr_jax

PACKAGE = Path(snclr_jax.__file__).parent
# The method as functions of arrays: a published interface, of use without a config.
PUBLISHED = (
    *("positiveness", "soft_neighbor_loss", "search_and_loss"),
    *("init_queue", "find_neighbors", "push"),
)
# Parameters that share a field's name and not its meaning.
OTHERS = {
    "_find_images(keep)",  # a folder's name
    "encode(form)",  # of a picture
    # Of an image.
    *("decode_image(form)", "pixels_of(form)", "open_folder(form)", "open_numpy(form)"),
    *("open_parquet(form)", "open_python(form)", "open_tfds(form)"),
    "open_webdataset(form)",
    *("check_features(width)", "check_split(width)"),  # of features
    # Of a figure.
    *("confusion(width)", "curves(width)", "embedding(width)", "gallery(width)"),
    *("overlays(width)", "strips(width)"),
    "_flat(name)",  # of an argument
    "Split(max_bad)",  # of arrays in memory, of which none is bad
}


def values_of(config: ConfigDict) -> Iterator[tuple[str, Any]]:
    """Yields the name and the default of every field, whatever its section."""
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            yield from values_of(value)
        else:
            yield name, value


def defaults_of(tree: ast.AST, owner: str = "") -> Iterator[tuple[str, str, ast.expr]]:
    """Yields function, parameter and default of every signature below a node."""
    for node in ast.iter_child_nodes(tree):
        name = getattr(node, "name", owner)
        if isinstance(node, ast.FunctionDef):
            name = owner if node.name == "__init__" else name
            taken = node.args
            placed = [*taken.posonlyargs, *taken.args]
            pairs = [
                *zip(reversed(placed), reversed(taken.defaults), strict=False),
                *zip(taken.kwonlyargs, taken.kw_defaults, strict=True),
            ]
            for argument, default in pairs:
                if default is not None:
                    yield name, argument.arg, default
        yield from defaults_of(node, name)


def test_no_signature_repeats_the_default_of_a_setting() -> None:
    fields: dict[str, list[Any]] = {}
    for config in (base.get_config(), evaluate.get_config()):
        for name, value in values_of(config):
            fields.setdefault(name, []).append(value)
    repeated, seen = set(), 0
    for path in PACKAGE.rglob("*.py"):
        for function, parameter, default in defaults_of(ast.parse(path.read_text())):
            seen += 1
            # None says "not given", unless it is what a field says.
            is_none = isinstance(default, ast.Constant) and default.value is None
            if parameter not in fields or (is_none and None not in fields[parameter]):
                continue
            if function not in PUBLISHED:
                repeated.add(f"{function}({parameter})")
    assert seen > 50
    assert repeated <= OTHERS, sorted(repeated - OTHERS)
