"""Recipes that train another objective, and what is refused of its settings."""

from __future__ import annotations

import pytest
from recipes import RECIPES, recipe
from snclr_jax.configs import digits
from snclr_jax.configs.published import PUBLISHED

from snclr_jax.objectives import OBJECTIVES
from snclr_jax.settings.check import check_config
from snclr_jax.settings.ranges import get_field

OPERATIONS = ("jitter", "grayscale", "blur", "solarize")


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_takes_every_objective_and_keeps_its_queue(name):
    own = recipe(name).objective.queue.size
    for objective in OBJECTIVES:
        settings = PUBLISHED.get(name, {}).get(objective, {})
        size = settings.get("objective.queue.size", own)
        for variant, rows in ((objective, size), (f"{objective},debug", 64)):
            config = recipe(name, variant)
            # The sizes of a folder are chosen from its images.
            if name != "folder" or rows == 64:
                check_config(config, devices=8)
            assert config.objective.name == objective
            if "queue" in config.objective:
                assert config.objective.queue.size == rows


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_settings_are_those_of_the_variant(name):
    own = recipe(name)
    for objective, settings in PUBLISHED[name].items():
        config = recipe(name, objective)
        for field, value in settings.items():
            assert get_field(config, field) == value, (objective, field)
        # A share of other epochs would be another warm-up, as would the recipe's own.
        assert ("epochs" in settings) == ("optim.warmup_epochs" in settings)
        warmup = config.optim.warmup_epochs
        config.epochs = 2 * config.epochs
        assert config.optim.warmup_epochs == 2 * warmup
        small = recipe(name, f"{objective},debug")
        assert (small.epochs, small.batch_size, small.optim.warmup_epochs) == (1, 16, 0)
        assert config.data == own.data


def test_a_published_objective_keeps_the_epochs_that_were_asked_for():
    config = recipe("imagenet_resnet50", "400,info_nce")
    assert (config.epochs, config.optim.learning_rate) == (400, 0.3)
    assert (config.objective.temperature, config.objective.scale) == (1.0, 4.0)


def test_an_unknown_variant_names_each_that_there_is_once():
    with pytest.raises(ValueError, match=r"variant 'nncrl' is unknown; .*") as refused:
        recipe("cifar10", "nncrl")
    for name in ("mini_ssl", "debug", *OBJECTIVES):
        assert str(refused.value).count(f"'{name}'") == 1


def test_both_cifar_sets_differ_where_their_sources_do():
    ten, hundred = recipe("cifar10", "cacr"), recipe("cifar100", "cacr")
    assert (ten.objective.t_negative, hundred.objective.t_negative) == (0.9, 2.0)
    assert hundred.data.mean == recipe("cifar100").data.mean != ten.data.mean


@pytest.mark.parametrize("name", ["ressl", "sce"])
def test_the_target_of_a_method_with_a_weak_view_is_cropped_and_flipped_alone(name):
    own, config = digits.get_config().augment, digits.get_config(name).augment
    weak = {operation: 0.0 for operation in OPERATIONS}
    assert config.view2.to_dict() == own.view2.to_dict() | weak
    assert (config.view1, config.local) == (own.view1, own.local)
    for each in RECIPES:
        config = recipe(each, name)
        if not config.objective.get("symmetric"):
            assert not any(config.augment.view2[field] for field in OPERATIONS), each
    # Both views are targets there.
    assert recipe("imagenet_resnet50", "sce").augment.view2.jitter == 0.8


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
