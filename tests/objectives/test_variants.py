"""Recipes that train another objective, and what is refused of its settings."""

from __future__ import annotations

import pytest
from snclr_jax.configs import digits

from snclr_jax.objectives import OBJECTIVES
from snclr_jax.settings.check import check_config

OPERATIONS = ("jitter", "grayscale", "blur", "solarize")


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_recipe_takes_every_objective_and_keeps_its_queue(name):
    own = digits.get_config()
    for variant in (name, f"{name},debug"):
        config = digits.get_config(variant)
        check_config(config, devices=8)
        assert config.objective.name == name
        if "queue" in config.objective:
            size = 64 if "debug" in variant else own.objective.queue.size
            assert config.objective.queue.size == size


@pytest.mark.parametrize("name", ["ressl", "sce"])
def test_the_target_of_a_method_with_a_weak_view_is_cropped_and_flipped_alone(name):
    own, config = digits.get_config().augment, digits.get_config(name).augment
    weak = {operation: 0.0 for operation in OPERATIONS}
    assert config.view2.to_dict() == own.view2.to_dict() | weak
    assert (config.view1, config.local) == (own.view1, own.local)


@pytest.mark.parametrize("name", ["moco_v2", "mochi", "ressl", "sce"])
def test_a_queue_without_rows_is_refused(name):
    config = digits.get_config(name)
    config.objective.queue.size = 0
    with pytest.raises(ValueError, match="queue.size 0 leaves nothing.* a batch, 128"):
        check_config(config, devices=8)


def test_the_batch_may_take_the_place_of_the_queue():
    config = digits.get_config("sce")
    config.objective.queue.size = 0
    config.objective.in_batch = True
    check_config(config, devices=8)
