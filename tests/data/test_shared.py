"""No process reads what all of them need: who reads images at all."""

from __future__ import annotations

import ast

import jax
import pytest
from test_import_line import PACKAGE

from snclr_jax.devices.shares import own_share, shares

READ = {"read", "images", "originals", "keep"}
# Who is not told which rows are its own: a few images, whatever the size of the set.
FEW = {
    "data/choose.py": 1,  # sizes of 256
    "data/choose_channels.py": 1,  # means of 256
    "data/depth.py": 1,  # levels of 16
    "explore/images.py": 1,  # pictures; one process explores
    "report/measure.py": 1,  # pictures; one process reports
    "evaluate/memory/gallery.py": 1,  # pictures, drawn by the first process alone
}
# Who is told.
OWN = ("data/pipeline.py", "data/shared.py")


def reads(path) -> int:
    """Returns how often a file reads images of a split."""
    calls = [
        node.func
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    ]
    of = ("split", "train", "test")
    return sum(
        call.attr in READ and ast.unparse(call.value).rpartition(".")[2] in of
        for call in calls
    )


def test_images_are_read_by_who_knows_which_are_its_own():
    found = {
        path.relative_to(PACKAGE).as_posix(): reads(path)
        for path in PACKAGE.rglob("*.py")
    }
    assert all(found.pop(name) for name in OWN)
    assert {name: count for name, count in found.items() if count} == FEW


@pytest.mark.parametrize("size", [1, 3, 7, 8, 1_281_167])
def test_shares_are_even_and_whole(monkeypatch, size):
    monkeypatch.setattr(jax, "process_count", lambda: 7)
    every = shares(size)
    lengths = {len(share) for share in every}
    assert min(lengths) >= 1 and max(lengths) - min(lengths) <= 1
    assert {0, size - 1} <= {row for part in every for row in (part[0], part[-1])}
    if size >= 7:
        ends = [0, *(share.stop for share in every)]
        assert [share.start for share in every] == ends[:-1] and ends[-1] == size
    monkeypatch.setattr(jax, "process_index", lambda: 5)
    assert own_share(size) == every[5]
