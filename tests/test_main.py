"""The command line: help that helps, and one clear line for every mistake."""

from __future__ import annotations

import io
import logging
import os
import shutil
import signal
import subprocess
import sys
from importlib import import_module

import pytest
from absl import flags
from absl.logging import get_absl_handler
from absl.testing import flagsaver
from command import DIGITS, ROOT, start
from ml_collections import config_flags
from recipes import RECIPES, recipe

from snclr_jax import __version__, main, preflight, train
from snclr_jax.preflight import DoesNotFit
from snclr_jax.report import compare


@pytest.fixture(autouse=True)
def closed_pipes_stay_errors():
    """Undoes what a command that does no more than print does to its process."""
    before = signal.getsignal(signal.SIGPIPE)
    yield
    signal.signal(signal.SIGPIPE, before)


def assert_one_line(errors, expected):
    assert errors.startswith("snclr: ") and expected in errors, errors


def test_mistakes_end_in_one_line_that_names_the_fix(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    workdir = f"--workdir={tmp_path / 'run'}"
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "config.json").write_text("{")
    prepare = ("prepare", "--name=photos", f"--out={tmp_path / 'run'}")
    cases = {
        ("tran", DIGITS): "'tran' is not a command; did you mean train? use one of",
        ("train",): "train needs --config=RECIPE",
        ("train", "--config=configs/nothing.py"): "configs/nothing.py",
        (
            "train",
            DIGITS,
            workdir,
            "--config.objective.queue.k=99",
        ): "objective.queue.k=99 neighbors",
        ("train", DIGITS, workdir, "--config.data.name=folder"): "data.path",
        ("evaluate",): "evaluate needs --workdir",
        (workdir, "evaluate"): "run does not exist; name a workdir",
        ("evaluate", f"--workdir={damaged}"): "no whole checkpoint",
        ("evaluate", workdir, DIGITS): "is a recipe; an evaluation's settings are",
        ("evaluate", workdir, "--what=nn"): "--what=nn is not known",
        ("segment", workdir): "segment needs --masks",
        ("features", workdir): "features needs --out",
        ("explore",): "explore needs --workdir",
        ("explore", "a.png", workdir): "'explore a.png' is not a command",
        ("similar", "a.png"): "similar needs --workdir",
        ("similar", workdir): "no image is named; use snclr similar IMAGE",
        ("similar", "none.png", workdir): "there is no image file none.png",
        ("export",): "export needs --workdir and --out",
        ("compare",): "no workdir is named",
        ("compare", f"{damaged}"): "config.json is damaged",
        ("evaluate", f"{damaged}"): "is not a command",
        ("prepare", "--name=photos"): "prepare needs --source and --out",
        (*prepare, "--source=nowhere"): "--source=nowhere does not exist",
        ("--epochs=2", "train"): "--epochs is not a flag; did you mean --config.epochs",
    }
    for words, expected in cases.items():
        with flagsaver.flagsaver(), pytest.raises(SystemExit) as ended:
            main.main(main._parse(["snclr", *words]))
        assert ended.value.code == 2
        assert_one_line(capsys.readouterr().err, expected)
    assert not (tmp_path / "run").exists()


def test_a_mistake_ends_the_program(tmp_path):
    """Before it has loaded anything, and in the middle of a command."""
    fields = (f"--workdir={tmp_path}", "--config.objective.queue.k=99")
    cases = {
        ("tran", DIGITS): "'tran' is not a command",
        ("train", DIGITS, *fields): "objective.queue.k=99 neighbors",
    }
    running = {each: start(*each) for each in cases}
    for each, process in running.items():
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 2, (each, errors)
        assert_one_line(errors, cases[each])


def test_a_signal_ends_a_command_in_one_line(tmp_path):
    """While it starts, before a run has anything to save."""
    recipe = tmp_path / "slow.py"
    recipe.write_text(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGTERM)\ntime.sleep(60)"
    )
    process = start("train", f"--config={recipe}")
    _, errors = process.communicate(timeout=30)
    assert errors == "snclr: stopped; the same command continues\n"
    assert process.returncode == 143


def test_control_c_ends_a_command_that_cleans_up_in_one_line(monkeypatch, capsys):
    def pressed(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "argv", ["snclr", "prepare"])
    monkeypatch.setattr(main.app, "run", pressed)
    with pytest.raises(SystemExit) as ended:
        main.run()
    assert ended.value.code == 130
    assert capsys.readouterr().err == "snclr: stopped; the same command continues\n"


def test_no_locale_ends_a_command(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    monkeypatch.setattr(sys, "argv", ["snclr", "prepare"])
    monkeypatch.setattr(main.app, "run", lambda *_, **__: print("84 ± 1", flush=True))
    main.run()
    assert written.getvalue() == b"84 \\xb1 1\n"


HELP = """
import sys
from snclr_jax import main
sys.argv = ["snclr", "--help"]
main.run()
print("loaded:", {"jax", "numpy", "orbax", "sklearn"} & sys.modules.keys())
"""


def test_help_shows_every_command_and_loads_nothing_large():
    done = subprocess.run(
        [sys.executable, "-c", HELP], cwd=ROOT, capture_output=True, text=True
    )
    output, errors = done.stdout, done.stderr
    assert output.endswith("loaded: set()\n")
    assert "snclr train --config=RECIPE" in output
    assert "snclr recipes" in output
    assert "snclr evaluate --workdir=DIR" in output
    assert "snclr prepare --source=DIR_OR_TAR" in output
    assert not errors


def said_by(words, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["snclr", *words.split()])
    main.run()
    return capsys.readouterr().out


@pytest.mark.parametrize("name", main.COMMANDS)
def test_a_command_has_a_page_of_its_own(name, monkeypatch, capsys):
    page = said_by(f"{name} --help", monkeypatch, capsys)
    assert page == said_by(f"help {name}", monkeypatch, capsys)
    assert page == said_by(f"--workdir=R {name} -h", monkeypatch, capsys)
    assert page.startswith(f"  snclr {name}")
    assert ("Lists the recipes" in page) == (name == "recipes")
    assert ("VARIANT is debug" in page) == (name in ("train", "import", "preflight"))


@pytest.mark.parametrize("words", [("--help",), ("recipes",)])
def test_a_reader_that_has_seen_enough_is_no_error(words):
    reader, writer = os.pipe()
    os.close(reader)
    try:
        command = [sys.executable, "-m", "snclr_jax.main", *words]
        ended = subprocess.run(command, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE)
    finally:
        os.close(writer)
    assert (ended.returncode, ended.stderr) == (-signal.SIGPIPE, b"")


def test_a_recipe_imports_what_lies_in_the_current_folder(tmp_path):
    (tmp_path / "my_idea.py").write_text("EPOCHS = 7")
    recipe = "from ml_collections import ConfigDict\nfrom my_idea import EPOCHS\n"
    recipe += "get_config = lambda name='': ConfigDict({'epochs': EPOCHS})"
    (tmp_path / "mine.py").write_text(recipe)
    # Without -P Python has the folder on its path by itself, as the script has not.
    command = [sys.executable, "-P", "-c", "from snclr_jax.main import run; run()"]
    words = ["train", "--config=mine.py", "--config.epoch=1"]
    ended = subprocess.run(
        [*command, *words], cwd=tmp_path, capture_output=True, text=True
    )
    assert_one_line(ended.stderr, "did you mean --config.epochs")


def test_the_version_is_that_of_the_package(monkeypatch, capsys):
    version = f"snclr_jax {__version__}\n"
    assert said_by("--version", monkeypatch, capsys) == version
    assert said_by("train --version", monkeypatch, capsys) == version


@pytest.fixture
def parsed(monkeypatch):
    """Parses the flags of a command; returns the file of its config, if any."""

    def parse(*arguments: str) -> str:
        main._parse(["snclr", *arguments])
        return config_flags.get_config_filename(flags.FLAGS["config"])

    monkeypatch.setattr(sys, "argv", sys.argv)
    with flagsaver.flagsaver():
        yield parse


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_named_without_its_folder(name, parsed, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    want = str(ROOT / "configs" / f"{name}.py")
    assert parsed("train", f"--config={name}") == want
    variant = f"{want}:authors,debug"
    assert parsed("preflight", "--config", f"{name}:authors,debug") == variant
    got = flags.FLAGS.config
    assert got.batch_size == 16 and got.objective.attention.kind == "cosine"
    (tmp_path / f"{name}.py").write_text(
        "def get_config(name=''): return __import__('ml_collections').ConfigDict()"
    )
    assert parsed("import", f"--config={name}.py") == f"{name}.py"
    assert not flags.FLAGS.config


def test_a_leading_tilde_is_the_home_folder_in_every_path(
    parsed, monkeypatch, tmp_path
):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.py").write_text((ROOT / "configs" / "evaluate.py").read_text())
    names = ("workdir", "source", "source_test", "test_labels", "out", "weights")
    given = [f"--{name}=~/{name}" for name in names]
    file = parsed("evaluate", "--config=~/mine.py:debug", *given)
    assert file == f"{tmp_path}/mine.py:debug"
    for name in names:
        assert flags.FLAGS[name].value == f"{tmp_path}/{name}"
    seen = []
    monkeypatch.setitem(main.COMMANDS, "compare", seen.extend)
    main.main(["snclr", "compare", "~/a", "b"])
    assert seen == [f"{tmp_path}/a", "b"]


def test_what_orbax_logs_is_left_out_and_what_others_log_is_not():
    main.main(["snclr", "recipes"])
    for path, heard in (("orbax/checkpoint/manager.py", False), ("absl/app.py", True)):
        record = logging.makeLogRecord({"pathname": f"site-packages/{path}"})
        assert bool(get_absl_handler().filter(record)) == heard


@pytest.mark.parametrize(
    "error, status",
    [
        (ValueError("epochs is -1"), 2),
        (FileNotFoundError(2, "none", "a"), 2),
        (PermissionError(13, "denied", "a"), 2),
        (DoesNotFit("20 GiB of 16"), 3),
        (OSError("a checkpoint cannot be written"), 75),
        (TimeoutError("process 2 of 3 did not get as far"), 75),
        (ConnectionError("the processes did not find each other"), 75),
    ],
)
def test_the_exit_status_says_whether_to_start_again(
    error, status, parsed, monkeypatch, capsys
):
    def fail(*_, **__):
        raise error

    parsed("preflight", "--config=digits:debug")
    monkeypatch.setattr(preflight, "preflight", fail)
    with pytest.raises(SystemExit) as ended:
        main.main(["snclr", "preflight"])
    assert ended.value.code == status
    assert capsys.readouterr().err == f"snclr: {error}\n"


def test_where_memory_runs_out_it_is_said(parsed, monkeypatch, capsys):
    def fail(*_, **__):
        raise MemoryError("Unable to allocate 3.00 GiB")

    parsed("preflight", "--config=digits:debug")
    monkeypatch.setattr(preflight, "preflight", fail)
    with pytest.raises(SystemExit, match="2"):
        main.main(["snclr", "preflight"])
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and ": Unable to allocate 3.00 GiB; use" in said


def test_everything_is_compared_where_it_is_asked_for(monkeypatch, capsys):
    monkeypatch.setattr(compare, "compare", lambda _, *, everything: everything)
    with flagsaver.flagsaver():
        for given in ([], ["--all"]):
            main.main(main._parse(["snclr", "compare", "a", *given]))
    assert capsys.readouterr().out.split() == ["False", "True"]


def test_a_home_folder_that_there_is_not_is_named(parsed, capsys):
    with pytest.raises(SystemExit, match="2"):
        parsed("train", "--workdir=~nobody-here/x")
    (line,) = capsys.readouterr().err.splitlines()
    assert "workdir=~nobody-here/x" in line and "./~nobody-here/x" in line


def test_a_run_is_kept_in_a_folder_of_its_recipes_name(parsed, monkeypatch):
    workdirs = []
    monkeypatch.setattr(
        train, "train", lambda _, workdir, **__: workdirs.append(workdir)
    )
    for given in ("digits:debug", f"{ROOT}/configs/digits.py:debug"):
        parsed("train", f"--config={given}")
        main.COMMANDS["train"]()
    assert workdirs == ["runs/digits"] * 2


@pytest.mark.parametrize(
    "name, near", [("cifar11", "cifar10"), ("vit_s16", "imagenet_vit_s16")]
)
def test_a_name_that_is_no_recipe_names_the_nearest(name, near, parsed, capsys):
    with pytest.raises(SystemExit, match="2"):
        parsed("train", f"--config={name}:debug")
    (line,) = capsys.readouterr().err.splitlines()
    assert f"--config={name} is no recipe; did you mean {near}? 'snclr recipes'" in line


@pytest.mark.parametrize(
    "name", ["base", "evaluate", "imagenet_base", "published", "__init__"]
)
def test_what_recipes_are_made_of_is_none(name, parsed, capsys):
    with pytest.raises(SystemExit):
        parsed("train", f"--config={name}")
    assert f"--config={name} is no recipe" in capsys.readouterr().err


def test_recipes_are_listed_with_their_first_line(capsys):
    main.COMMANDS["recipes"]()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(RECIPES)
    for line in lines:
        name, said = line.split(maxsplit=1)
        assert (
            recipe(name)
            and said
            == import_module(f"snclr_jax.configs.{name}").__doc__.partition("\n")[0]
        )


# Which files are loaded, and whether JAX is.
WHERE = """
import sys
import snclr_jax.configs.evaluate, snclr_jax.main
print(snclr_jax.__file__, snclr_jax.configs.evaluate.__file__, "jax" in sys.modules)
snclr_jax.main.main(["snclr", "recipes"])
print("jax" in sys.modules)
"""


def test_a_checkout_has_its_own_recipes_and_lists_them_without_jax(tmp_path):
    """Also where the packages that are installed are those of another checkout."""
    copy, away = tmp_path / "copy", tmp_path / "away"
    away.mkdir()
    for part in ("snclr_jax", "configs"):
        shutil.copytree(ROOT / part, copy / part)
    (copy / "configs" / "mine.py").write_text('"""One of my own."""')
    done = subprocess.run(
        [sys.executable, "-c", WHERE],
        cwd=away,
        env=os.environ | {"PYTHONPATH": str(copy)},
        capture_output=True,
        text=True,
    )
    first, *listed, last = done.stdout.splitlines()
    assert first.split() == [
        str(copy / "snclr_jax" / "__init__.py"),
        str(copy / "configs" / "evaluate.py"),
        "False",
    ]
    assert last == "False" and len(listed) == len(RECIPES) + 1
    assert "mine              One of my own." in listed
