"""A file imports from its own folder or from folders before it (see CONTRIBUTING)."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "snclr_jax"
LINE = (
    "devices, models, visualize < step, queue < objectives < settings < run < data < "
    "encoder < evaluate, export, preflight < report < explore < loop < train < main"
)
PLACE = {
    name: place
    for place, names in enumerate(LINE.split(" < "))
    for name in names.split(", ")
}
FILES = sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
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
def test_imports_follow_the_line(path):
    room = room_of(path)
    if room == "__init__":
        # The one name of the package itself, loaded when it is asked for.
        lazy = {"snclr_jax.encoder.loaded", "pathlib", "typing"}
        assert imports(path) <= {"__future__", "os", *lazy}
        return
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "snclr_jax" or not parts[1:] or parts[1] in (room, "configs"):
            continue
        assert PLACE[parts[1]] < PLACE[room], f"{room} imports {name}"


def test_what_loads_for_long_waits_until_it_is_needed():
    """scikit-learn takes longer than JAX, and figures, with matplotlib, as long."""
    for path in FILES:
        at_the_top = {
            node.names[0].name if isinstance(node, ast.Import) else str(node.module)
            for node in ast.parse(path.read_text()).body
            if isinstance(node, ast.Import | ast.ImportFrom)
        }
        late = ["sklearn"]
        if path == PACKAGE / "report" / "online.py":  # the one that a run loads
            late += ["snclr_jax.visualize", "matplotlib"]
        assert not [name for name in at_the_top if name.startswith((*late,))], path


def test_every_room_is_on_the_line_and_few_files_lie_beside_the_rooms():
    rooms = {room_of(path) for path in FILES} - {"__init__"}
    assert rooms == set(PLACE)
    assert len(list(PACKAGE.glob("*.py"))) <= 4


def test_contributing_shows_the_line():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    assert LINE in re.sub(r"\s+", " ", text)


def test_recipes_know_objectives_and_nothing_else_of_the_package():
    for path in (ROOT / "configs").glob("*.py"):
        for name in imports(path):
            known = name.startswith(("snclr_jax.configs", "snclr_jax.objectives"))
            assert known or not name.startswith("snclr_jax"), f"{path} imports {name}"


def test_outside_of_objectives_and_queue_no_file_knows_what_an_objective_is_made_of():
    parts = re.compile(
        r"positiveness|NeighborQueue|soft_neighbor"
        r"|(config|settings)\.(queue|attention|loss)\b|\.queue\b"
    )
    knowing = [
        str(path.relative_to(PACKAGE))
        for path in FILES
        if room_of(path) not in ("objectives", "queue")
        and parts.search(path.read_text())
    ]
    # The search of the queue serves frozen features, too.
    assert set(knowing) <= {
        "evaluate/frozen/neighbors.py",
        "main.py",
        "settings/help.py",
    }


def test_only_models_know_linen_and_nothing_knows_other_frameworks():
    for path in FILES:
        names = imports(path)
        # PyTorch, where there is one, reads its own files, without pickle.
        foreign = {"tensorflow", "torch"} - (
            {"torch"} if path.name == "read_weights.py" else set()
        )
        assert not any(n.split(".")[0] in foreign for n in names), path
        if room_of(path) != "models":
            assert not any(n.startswith("flax.linen") for n in names), path
