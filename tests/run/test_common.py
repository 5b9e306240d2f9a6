"""What makes two processes train on other things is compared before they do."""

from __future__ import annotations

import shutil
from pathlib import PurePath

import jax
import numpy as np
import pytest
import tiny
from PIL import Image

import snclr_jax.train
from snclr_jax.data import open_data
from snclr_jax.objectives.snclr import SNCLR
from snclr_jax.run.common import PACKAGE, code_digest, common_facts
from snclr_jax.train import train


def test_every_field_image_argument_and_setting_is_one_of_the_facts():
    def facts(images="40", workdir="a", **fields):
        return common_facts(tiny.config(**fields), {"train": images}, workdir=workdir)

    before = facts()
    assert facts() == before
    assert facts(images="41") != before and facts(workdir="b") != before
    assert facts(data__path="elsewhere") != before and facts(seed=1) != before
    with jax.enable_x64(True):
        assert facts() != before
    with jax.default_matmul_precision("float32"):
        assert facts() != before
    assert before["code"] == code_digest(PACKAGE, SNCLR)
    assert before["devices"] == f"{jax.local_device_count()} x cpu"
    assert {"python", "jax", "numpy", "optax"} < before["packages"].keys()
    assert before["packages"]["jax"] == jax.__version__


def test_another_line_of_code_is_another_digest(tmp_path):
    copy = tmp_path / "snclr_jax"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    before = code_digest(copy, SNCLR)
    assert before == code_digest(PACKAGE, SNCLR)
    assert code_digest(copy, PurePath) != before  # an objective's own file counts
    with (copy / "step" / "views.py").open("a") as file:
        file.write("# changed\n")
    assert code_digest(copy, SNCLR) != before


def test_images_of_the_same_names_and_other_sizes_are_told_apart(tmp_path, rng):
    for number, side in enumerate((8, 9)):
        (tmp_path / str(number)).mkdir()
        for image in range(3):
            pixels = rng.integers(0, 256, (side, side, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / str(number) / f"{image}.png")
    config = tiny.config(data__name="folder", data__image_size=8).data

    def opened(number: int):
        config.path = str(tmp_path / str(number))
        return open_data(config)

    assert opened(0).identity == opened(1).identity
    assert opened(0).evidence != opened(1).evidence
    assert opened(0).evidence == opened(0).evidence


def test_training_compares_before_it_computes_or_writes(tmp_path, monkeypatch):
    class Compared(Exception):
        pass

    def compare(compute, facts):
        raise Compared(facts(compute()))

    monkeypatch.setattr(snclr_jax.train, "in_agreement", compare)
    monkeypatch.chdir(tmp_path)
    config = tiny.config(batch_size=None)
    images = np.zeros((60, 16, 16, 3), np.uint8)
    with pytest.raises(Compared) as compared:
        train(config, "run", data=images)
    (facts,) = compared.value.args
    assert facts["workdir"] == str(tmp_path / "run") and facts["evaluators"] == []
    assert facts["config"]["batch_size"] is not None  # as it was chosen
    assert facts["images"].keys() == {"train"}
    assert not any(tmp_path.iterdir())
