"""A file imports from its own floor or below, never above (see CONTRIBUTING)."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "snclr_jax"
FLOORS = [
    {
        "neighbor_queue",
        "losses",
        "blockwise_loss",
        "blockwise_search",
        "fused_loss",
        "sharded_queue",
        "augment",
        "config",
        "config_fields",
    },
    {"models"},
    {
        "partition",
        "optim",
        "views",
        "accumulate",
        "describe",
        "digest",
        "online_probe",
        "train_state",
        "train_step",
    },
    {
        "data",
        "checkpoint",
        "read_checkpoint",
        "distributed",
        "encoder",
        "init_from",
        "loaded_encoder",
        "metrics",
        "stop_requests",
        "watch",
        "whole_file",
        "workdir",
    },
    {"evaluate", "export", "preflight", "visualize"},
    {"report", "train"},
    {"main"},
]
FLOOR_OF = {name: floor for floor, names in enumerate(FLOORS) for name in names}
FLOOR_OF["configs"] = 0  # beside the package
FILES = sorted(PACKAGE.rglob("*.py"))


def unit_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if node.module == "snclr_jax":
                names = {alias.name for alias in node.names} - {"__version__"}
                found |= {f"snclr_jax.{name}" for name in names}
            else:
                found.add(node.module)
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_stay_on_their_floor_or_below(path):
    unit = unit_of(path)
    if unit == "__init__":
        # The one name of the package itself, loaded when it is asked for.
        lazy = {"snclr_jax.encoder.loaded", "pathlib", "typing"}
        assert imports(path) <= {"__future__", *lazy}
        return
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "snclr_jax" and parts[1:] and parts[1] != unit:
            assert FLOOR_OF[parts[1]] <= FLOOR_OF[unit], f"{unit} imports {name}"


def test_array_floor_knows_jax_only():
    for unit in FLOORS[0] - {"config", "config_fields"}:
        for name in imports(PACKAGE / f"{unit}.py"):
            root = name.split(".")[0]
            allowed = root in sys.stdlib_module_names | {"jax", "snclr_jax"}
            assert allowed or name == "flax.struct", f"{unit} imports {name}"


def test_only_models_know_linen_and_nothing_knows_other_frameworks():
    for path in FILES:
        names = imports(path)
        # PyTorch, where there is one, reads its own files, without pickle.
        foreign = {"tensorflow", "torch"} - (
            {"torch"} if path.name == "read_weights.py" else set()
        )
        assert not any(n.split(".")[0] in foreign for n in names), path
        if unit_of(path) != "models":
            assert not any(n.startswith("flax.linen") for n in names), path


def test_no_file_of_a_floor_imports_in_a_circle():
    edges = {
        unit: {
            name.split(".")[1]
            for path in FILES
            if unit_of(path) == unit
            for name in imports(path)
            if name.startswith("snclr_jax.") and name.split(".")[1] != unit
        }
        for unit in FLOOR_OF
    }
    done: set[str] = set()
    while len(done) < len(edges):
        free = {unit for unit in edges if unit not in done and edges[unit] <= done}
        assert free, f"circle among {set(edges) - done}"
        done |= free
