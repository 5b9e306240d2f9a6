"""The command line: help that helps, and one clear line for every mistake."""

from __future__ import annotations

from command import DIGITS, start


def test_mistakes_end_in_one_line_that_names_the_fix(tmp_path):
    workdir = f"--workdir={tmp_path / 'run'}"
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "config.json").write_text("{")
    prepare = ("prepare", "--name=photos", f"--out={tmp_path / 'run'}")
    cases = {
        ("tran", DIGITS): "'tran' is not a command; use one of",
        ("train",): "train needs --config=FILE",
        ("train", "--config=configs/nothing.py"): "configs/nothing.py",
        ("train", "--config=configs/digits.py:fast"): "use one of ('debug', 'paper'",
        (
            "train",
            DIGITS,
            "--config.objective.temprature=1",
        ): 'Did you mean "temperature"',
        (
            "train",
            DIGITS,
            "--config.objective.queue.k=2.5",
        ): "--config.objective.queue.k=2.5",
        (
            "train",
            DIGITS,
            workdir,
            "--config.objective.queue.k=99",
        ): "objective.queue.k=99 neighbors",
        ("train", DIGITS, workdir, "--config.data.name=folder"): "data.path",
        ("evaluate",): "evaluate needs --workdir",
        ("evaluate", workdir): "run does not exist; name a workdir",
        ("evaluate", f"--workdir={damaged}"): "no whole checkpoint",
        ("evaluate", workdir, DIGITS): "is a recipe; an evaluation's settings are",
        ("evaluate", workdir, "--what=nn"): "--what=nn is not known",
        ("evaluate", workdir, "--config.knn.n=1"): "--config.knn.n is not a field",
        ("features", workdir): "features needs --out",
        ("export",): "export needs --workdir and --out",
        ("compare",): "no workdir is named",
        ("compare", f"{damaged}"): "config.json is damaged",
        ("evaluate", f"{damaged}"): "is not a command",
        ("prepare", "--name=photos"): "prepare needs --source and --out",
        (*prepare, "--source=nowhere"): "--source=nowhere does not exist",
        (*prepare, "--source=configs", "--workers=0"): "--workers=0",
    }
    # Four at a time: what takes the seconds is importing jax.
    arguments = list(cases)
    for at in range(0, len(arguments), 4):
        running = {each: start(*each) for each in arguments[at : at + 4]}
        for each, process in running.items():
            _, errors = process.communicate(timeout=120)
            assert process.returncode == 2, (each, errors)
            assert errors.startswith("snclr: ") and cases[each] in errors, errors
            assert "Traceback" not in errors
    assert not (tmp_path / "run").exists()


def test_help_shows_every_command():
    output, errors = start("--help").communicate(timeout=60)
    assert "snclr train --config=FILE" in output
    assert "snclr evaluate --workdir=DIR" in output
    assert "snclr prepare --source=DIR_OR_TAR" in output
    assert not errors
