"""Paths mean the same wherever they are used, whatever characters they have."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import tiny

from snclr_jax.settings.paths import absolute_paths, expanded, located, storable


@pytest.mark.parametrize("name", ["lr[0.1]", "what?", "all*", "{a,b}", "50%", "a b"])
def test_the_characters_of_a_folder_are_no_pattern(tmp_path, name):
    for folder in (name, "lr0", "whatX", "allX"):
        for below in ("process_0", "process_1", "other"):
            (tmp_path / folder / below).mkdir(parents=True)
            (tmp_path / folder / below / "array_0").touch()
    folder = located(tmp_path / name)
    found = sorted(folder.glob("process_*"))
    assert found == [folder / "process_0", folder / "process_1"]
    assert sorted(folder.glob("process_?/array*")) == [p / "array_0" for p in found]
    # Orbax joins, and goes up, before it looks.
    assert sorted((folder / "process_0").parent.glob("process_*")) == found
    assert list((folder / "nothing").glob("*")) == []


def test_home_folders_are_meant_at_the_beginning_alone(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert expanded("~/runs/x") == "/home/me/runs/x"
    assert expanded(Path("~")) == "/home/me"
    for path in ("./~/x", "runs/~/x", "gs://bucket/~", "x~", ""):
        assert expanded(path) == path
    with pytest.raises(ValueError, match="~nobody-here/x: there is no home.* ./~nobo"):
        expanded("~nobody-here/x")


def test_a_path_is_located_where_the_file_system_finds_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "far" / "away").mkdir(parents=True)
    (tmp_path / "link").symlink_to("far/away")
    assert located("runs/x") == tmp_path / "runs" / "x"
    assert located("~/x") == tmp_path / "home" / "x"
    # By names alone it would be tmp_path / "x", where only TensorStore would write.
    assert located("link/../x") == Path(os.path.realpath("far")) / "x"
    assert str(located("gs://bucket/a/../b")) == "gs://bucket/a/../b"


@pytest.mark.parametrize(
    ("path", "character"),
    [("/runs/a\\b/c", r"\\"), ("gs://bucket/lr[0.1]/x", r"\["), ("gs://b/x?", r"\?")],
)
def test_names_that_arrays_cannot_be_stored_under_are_refused(path, character):
    with pytest.raises(ValueError, match=f"because of the {character} in its name; re"):
        storable(path)


def test_the_paths_of_a_config_are_kept_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = tiny.config(data__path="photos", model__init_from="../start.safetensors")
    kept = absolute_paths(config)
    assert kept.data.path == f"{tmp_path}/photos"
    parent = os.path.realpath(tmp_path.parent)
    assert kept.model.init_from == f"{parent}/start.safetensors"
    assert config.data.path == "photos"
    assert absolute_paths(kept) == kept
    assert absolute_paths(tiny.config()) == tiny.config()
