"""Flags stand anywhere; what is wrong with one is said in a line, with the fix."""

from __future__ import annotations

import sys

import pytest
from absl import flags
from absl.testing import flagsaver

import snclr_jax.main  # noqa: F401  # defines the flags
from snclr_jax.settings import command_line


@pytest.fixture
def parse(monkeypatch):
    monkeypatch.setattr(sys, "argv", sys.argv)
    with flagsaver.flagsaver():
        yield lambda *words: command_line.parse(["snclr", *words])


@pytest.mark.parametrize(
    "words",
    [
        "evaluate --workdir=R --baselines --config.knn.k=(3,)",
        "--workdir=R --config.knn.k=(3,) --baselines evaluate",
        "--config.knn.k (3,) --baselines --workdir R evaluate",
    ],
)
def test_a_command_may_stand_behind_its_flags(words, parse):
    assert parse(*words.split()) == ["snclr", "evaluate"]
    assert flags.FLAGS.workdir == "R" and flags.FLAGS.baselines
    assert flags.FLAGS.config.knn.k == (3,)


def test_operands_keep_their_order(parse):
    assert parse("--once", "watch", "b", "a") == ["snclr", "watch", "b", "a"]


def test_a_field_may_stand_before_its_recipe(parse):
    assert parse("train", "--config.epochs=2", "--config=digits") == ["snclr", "train"]
    assert flags.FLAGS.config.epochs == 2
    assert flags.FLAGS.config.optim.warmup_epochs == pytest.approx(2 / 15)


NO_FIELD = "is not a field of the config"


@pytest.mark.parametrize(
    "words, message",
    [
        ("train --epochs=2", "--epochs is not a flag; did you mean --config.epochs?"),
        ("--config=digits --epochs=2 train", "did you mean --config.epochs?"),
        (
            "train --config=digits --optim.lr=1",
            "--optim.lr is not a flag; did you mean --config.optim.learning_rate?",
        ),
        (
            "train --config=digits --config.optim.lr=1",
            f"{NO_FIELD}; did you mean --config.optim.learning_rate?",
        ),
        ("train --config=digits --config.lr=1", "--config.optim.learning_rate?"),
        (
            "train --config=digits --config.objective.queue.sise=1",
            "mean --config.objective.queue.size",
        ),
        (
            "train --config=digits --config.objective.temprature=1",
            "mean --config.objective.temperature or --config.objective.attention.temp",
        ),
        ("train --config=digits --config.nonsense=1", f"{NO_FIELD}; see snclr --help"),
        ("train --config=digits --config.optim=1", "such as --config.optim.beta1"),
        ("evaluate --config.knn.n=1", f"--config.knn.n {NO_FIELD}"),
        ("evaluate --shots=1", "did you mean --config.fewshot.shots?"),
        ("evaluate --workdr=R", "--workdr is not a flag; did you mean --workdir?"),
        (
            "train --config.epochs=2",
            "--config.epochs is a field of a recipe, and none is named; add --config=",
        ),
        (
            "train --config=digits --config.epochs=two",
            "--config.epochs=two: an integer is needed",
        ),
        (
            "train --config=digits --config.objective.queue.k=2.5",
            "--config.objective.queue.k=2.5: an integer is needed",
        ),
        ("train --config=folder --config.batch_size=two", "=two: an integer is needed"),
        (
            "train --config=digits --config.optim.learning_rate=fast",
            "--config.optim.learning_rate=fast: a number is needed",
        ),
        (
            "train --config=digits --config.model.scan=maybe",
            "--config.model.scan=maybe: True or False is needed",
        ),
        ("prepare --workers=0", "--workers=0: a positive integer is needed"),
        ("prepare --workers two", "--workers=two: a positive integer is needed"),
        ("prepare --max_unreadable=2", "a number in the range [0, 1] is needed"),
        ("train --config=digits --workdir", "Missing value for flag --workdir"),
        ("train --config=configs/digits.py:fast", "use one of ('debug', 'paper'"),
        ("train --config=mine/nothing.py", "--config=mine/nothing.py is no file; name"),
    ],
)
def test_a_mistake_is_said_in_one_line_with_the_fix(words, message, parse):
    with pytest.raises(ValueError) as refused:
        parse(*words.split())
    assert message in str(refused.value) and "\n" not in str(refused.value)
    assert "Error" not in str(refused.value)


@pytest.mark.parametrize(
    "code, message",
    [
        ("def get_config(): return 1", "get_config() takes 0 positional arguments"),
        ("def get_config(name): return {}[name]", "mine.py:a asks for 'a', which is"),
        ("def get_config(name): raise ValueError('no ' + name)", "no a"),
    ],
)
def test_a_mistake_in_a_recipe_of_ones_own_is_said_without_a_type(
    code, message, tmp_path, parse
):
    (tmp_path / "mine.py").write_text(code)
    with pytest.raises(ValueError) as refused:
        parse("train", f"--config={tmp_path / 'mine.py'}:a")
    said = str(refused.value)
    assert message in said and "\n" not in said and "Error" not in said
