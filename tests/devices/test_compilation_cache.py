"""Compiled programs are kept for the next command, and never against a user's word."""

from __future__ import annotations

import os
from pathlib import Path

import jax
import pytest
from jax.experimental.compilation_cache.compilation_cache import reset_cache

from snclr_jax import main
from snclr_jax.devices.compilation_cache import DIRECTORY, SETTINGS, keep_compiled

FOLDER = DIRECTORY.lower()


@pytest.fixture
def jax_settings():
    """Lets a test change those of the cache, and errors of it be raised."""
    names = [FOLDER, *map(str.lower, SETTINGS), "jax_raise_persistent_cache_errors"]
    before = {name: getattr(jax.config, name) for name in names}
    jax.config.update(names[-1], True)
    reset_cache()
    yield before
    for name, value in before.items():
        jax.config.update(name, value)
    reset_cache()


def test_jax_keeps_programs_as_it_is_told(tmp_path, jax_settings):
    environment = {"XDG_CACHE_HOME": str(tmp_path)}
    keep_compiled(environment)
    environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    for name in (DIRECTORY, *SETTINGS):
        kind = type(jax_settings[name.lower()])
        jax.config.update(name.lower(), kind(environment[name]))

    @jax.jit
    def program(x):
        return 3 * x + 1

    assert program(2) == 7
    (kept,) = (tmp_path / "snclr_jax").iterdir()
    assert [*kept.glob("jit_program-*-cache")]
    assert kept.stat().st_mode & kept.parent.stat().st_mode & 0o777 == 0o700
    # The limit needs filelock, and leaves the time of each use beside a program.
    assert [*kept.glob("jit_program-*-atime")]


@pytest.mark.parametrize("own", ["", "elsewhere"])
def test_a_folder_that_was_named_stays_and_has_no_limit(own, tmp_path):
    environment = {DIRECTORY: own, "XDG_CACHE_HOME": str(tmp_path)}
    keep_compiled(environment)
    assert environment == {DIRECTORY: own, "XDG_CACHE_HOME": str(tmp_path)}
    assert not [*tmp_path.iterdir()]


def test_a_setting_that_was_chosen_stays(tmp_path):
    chosen = dict.fromkeys(SETTINGS, "7")
    environment = chosen | {"XDG_CACHE_HOME": str(tmp_path)}
    keep_compiled(environment)
    assert chosen.items() <= environment.items() and DIRECTORY in environment


def test_nothing_is_kept_where_there_is_no_place(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    for place in (str(tmp_path / "file"), "relative"):
        environment = {"XDG_CACHE_HOME": place}
        keep_compiled(environment)
        assert environment == {"XDG_CACHE_HOME": place}
    locked = {"XDG_CACHE_HOME": str(tmp_path)}
    monkeypatch.setattr(os, "access", lambda *_: False)
    keep_compiled(locked)
    assert locked == {"XDG_CACHE_HOME": str(tmp_path)}
    assert not (tmp_path / "relative").exists()


def test_every_command_keeps_them_before_its_config_may_load_jax(tmp_path, monkeypatch):
    seen = []
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    del environment[DIRECTORY]
    monkeypatch.setattr(os, "environ", environment)
    monkeypatch.setattr(main.sys, "argv", ["snclr", "prepare"])
    monkeypatch.setattr(
        main.app, "run", lambda *_, **__: seen.append(os.environ[DIRECTORY])
    )
    main.run()
    assert seen == [str(folder) for folder in tmp_path.glob("snclr_jax/*")]


def test_another_kind_of_processor_has_a_folder_of_its_own(tmp_path, monkeypatch):
    folders = []
    for flags in ("fpu sse avx512f", "fpu sse"):
        text = f"processor : 0\nflags : {flags}\n"
        monkeypatch.setattr(Path, "read_text", lambda *_, text=text, **__: text)
        environment = {"XDG_CACHE_HOME": str(tmp_path)}
        keep_compiled(environment)
        folders.append(environment[DIRECTORY])
    assert len({*folders}) == 2
