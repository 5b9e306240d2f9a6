"""Deliberate mistakes, one at a time: the tests notice each of them.

    .venv/bin/python -m pytest -m slow --dist=load tests/test_mistakes.py

lists those that nothing notices as failed tests. `mistakes/` holds them.
"""

from __future__ import annotations

import importlib
import itertools
import os
import pkgutil
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mistakes
import pytest
from mistakes.mistake import ROOT, Mistake

MISTAKES = list(
    itertools.chain.from_iterable(
        importlib.import_module(f"mistakes.{part.name}").MISTAKES
        for part in pkgutil.iter_modules(mistakes.__path__)
        if part.name != "mistake"
    )
)


def test_every_mistake_can_still_be_made():
    for mistake in MISTAKES:
        compile(mistake.made(), mistake.file, "exec")
    names = [mistake.name for mistake in MISTAKES]
    assert len(set(names)) == len(names) >= 400


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository, whose package comes before the installed one."""
    copy = tmp_path_factory.mktemp("copy")
    for name in ("snclr_jax", "configs", "tests", "docs"):
        shutil.copytree(ROOT / name, copy / name)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, copy)
    return copy


@pytest.fixture
def made(copy: Path, mistake: Mistake) -> Iterator[Path]:
    (copy / mistake.file).write_text(mistake.made())
    yield copy
    shutil.copy(ROOT / mistake.file, copy / mistake.file)


@pytest.mark.slow
@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_a_mistake_is_noticed(made: Path, mistake: Mistake):
    pytest_of_copy = [sys.executable, "-m", "pytest", "-q", "-x", "-n0", mistake.test]
    done = subprocess.run(
        pytest_of_copy,
        cwd=made,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    # 1: a test failed. 2 and more: pytest itself did, and nothing was tested.
    assert done.returncode == 1, f"{mistake}\n{done.stdout[-2000:]}{done.stderr[-500:]}"
