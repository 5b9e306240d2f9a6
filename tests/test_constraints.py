"""launch/constraints.txt holds a version of everything that an install needs."""

from __future__ import annotations

import ast
import importlib.metadata
from collections.abc import Iterator, Mapping

from launch_stand_ins import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def held() -> dict[str, str]:
    lines = (ROOT / "launch" / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


def asked() -> list[str]:
    """What setup.py installs, for CPUs, TPUs and GPUs."""
    tree = ast.parse((ROOT / "setup.py").read_text())
    lists = {
        keyword.arg: ast.literal_eval(keyword.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg in ("install_requires", "extras_require")
    }
    extras = lists["extras_require"]
    return [*lists["install_requires"], *extras["tpu"], *extras["cuda"]]


def installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def not_held(held: Mapping[str, str]) -> Iterator[str]:
    """Yields what an install asks for and no line meets.

    What a package asks for in turn is known where the version here is the one held.
    """
    todo = [("setup.py", "", asked())]
    seen = {("setup.py", "")}
    for name, extra, needs in todo:
        for need in map(Requirement, needs):
            if need.marker and not need.marker.evaluate({"extra": extra}):
                continue
            version = held.get(canonicalize_name(need.name))
            if version is None or not need.specifier.contains(version, True):
                yield f"{name} needs {need}, and {version} is held"
            elif version == installed(need.name):
                new = {(need.name, inner) for inner in ("", *need.extras)} - seen
                seen |= new
                further = importlib.metadata.requires(need.name) or []
                todo += [(*each, further) for each in sorted(new)]


def test_everything_that_an_install_needs_is_held_at_a_version_that_it_takes():
    assert list(not_held(held())) == []


def test_a_line_that_lacks_or_is_too_old_is_noticed():
    lines = held()
    del lines["scipy"]
    (lacks,) = [line for line in not_held(lines) if line.startswith("setup.py")]
    assert "needs scipy" in lacks and "None is held" in lacks
    old = {*not_held(held() | {"flax": "0.1"})}
    assert any(line.startswith("setup.py needs flax") for line in old)
