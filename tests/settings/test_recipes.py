"""Every recipe, and every objective, trains, evaluates and saves, at debug size."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from recipes import RECIPES, recipe

from snclr_jax.objectives import OBJECTIVES
from snclr_jax.run.metrics import read_metrics
from snclr_jax.train import train

pytestmark = pytest.mark.usefixtures("few_digits")
# Programs of their own kind. Others differ from `cifar10` in data and sizes, which
# debug replaces; `imagenet_resnet50` takes long to compile. tests/test_train.py has
# runs of `digits`, and `imagenet_vit_s16` is `imagenet_vit_b16` without a loop over
# layers, whose values tests/models/test_vit.py compares.
FAST = ("cifar10", "imagenet_vit_b16")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in FAST else pytest.mark.slow)
        for name in RECIPES
    ],
)
def test_every_recipe_runs_at_debug_size(name, tmp_path, mesh_of, monkeypatch):
    state, loss = twelve_steps(recipe(name, "debug"), tmp_path, mesh_of, monkeypatch)
    assert loss[-1] > 0
    assert state.objective.keys.shape == (64, 16)


@pytest.mark.slow
@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_runs_with_its_published_settings_at_debug_size(
    name, tmp_path, mesh_of, monkeypatch
):
    twelve_steps(recipe("cifar10", f"{name},debug"), tmp_path, mesh_of, monkeypatch)


def twelve_steps(config, workdir, mesh_of, monkeypatch):
    """Runs a config of debug size to its end; returns the state and all losses."""
    # On one device and for twelve steps, since nearly all of the time is compilation.
    monkeypatch.setattr("snclr_jax.train.make_mesh", lambda: mesh_of(1))
    config.data.holdback = 100
    config.evaluate.train_images = 100
    config.evaluate.batch_size = 100
    state = train(config, str(workdir))
    assert int(state.step) == 12
    loss = [line["loss"] for line in read_metrics(workdir) if "loss" in line]
    assert np.isfinite(loss).all()
    summary = json.loads((Path(workdir) / "summary.json").read_text())
    assert 0 < summary["knn_trained"] < 100
    return state, loss
