"""Text files have the same bytes and are read alike, whatever a machine's locale is."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("snclr_jax", "configs", "docs", "benchmarks")
FILES = [
    ROOT / "setup.py",
    *(file for name in FOLDERS for file in sorted((ROOT / name).rglob("*.py"))),
]
# Whose `open` is not that of a text file.
OTHERS = ("os", "tarfile", "Image", "archive")


def without_encoding(source: str) -> Iterator[int]:
    """Yields the lines in which a text file is opened in the encoding of the locale."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name, owner = getattr(node.func, "attr", getattr(node.func, "id", "")), ""
        if isinstance(node.func, ast.Attribute):
            owner = getattr(node.func.value, "id", "")
        if name not in ("open", "read_text", "write_text") or owner in OTHERS:
            continue
        modes = [a.value for a in node.args if isinstance(a, ast.Constant)]
        binary = name == "open" and any("b" in str(mode) for mode in modes)
        if not binary and "encoding" not in {word.arg for word in node.keywords}:
            yield node.lineno


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_every_text_file_is_opened_with_its_encoding(file):
    assert not list(without_encoding(file.read_text(encoding="utf-8")))


def test_what_lacks_one_is_found():
    lacking = [
        "open(a)",
        "open(a, 'w')",
        "Path(a).open('a', buffering=1)",
        "a.read_text()",
        "a.write_text('b')",
    ]
    right = [
        "open(a, 'rb')",
        "a.open('wb', buffering=0)",
        "os.open(a, 0)",
        "Image.open(a)",
        "a.read_text(encoding='utf-8')",
        "a.write_text('b', encoding='utf-8')",
        "a.read_bytes()",
    ]
    found = list(without_encoding("\n".join([*lacking, *right])))
    assert found == list(range(1, len(lacking) + 1))
