"""The config is refused before anything is compiled, naming the field and the fix."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest
from recipes import RECIPES, recipe
from snclr_jax.configs import base, digits, evaluate, imagenet_resnet50
from snclr_jax.configs.objectives import choose_objective

from snclr_jax.data.choose import choose
from snclr_jax.objectives import OBJECTIVES
from snclr_jax.run.workdir import as_json
from snclr_jax.settings.check import check_against_data, check_config, notes
from snclr_jax.settings.ranges import check_fields


def assert_refused(config, field, value, message):
    """Sets one field, at a dotted path, to a value that must be refused."""
    *sections, name = field.split(".")
    target = config
    for section in sections:
        target = target[section]
    target[name] = value
    with pytest.raises(ValueError, match=message):
        check_config(config, devices=8)


@pytest.mark.parametrize(
    "field, value, message",
    [
        (
            "objective.queue.size",
            1001,
            "objective.queue.size 1001 is not a multiple of 8 devices.*1008",
        ),
        ("objective.queue.k", 5000, "never holds objective.queue.k=5000"),
        ("objective.queue.banks", 3, "objective.queue.banks"),
        ("objective.queue.push", "third", "objective.queue.push 'third'.*second"),
        ("objective.queue.size", 0, "never holds"),
        ("objective.queue.search", "fast", "objective.queue.search 'fast'.*approx"),
        (
            "objective.queue.recall",
            0.0,
            "objective.queue.recall 0.0 must be greater than 0",
        ),
        (
            "objective.queue.recall",
            1.5,
            "objective.queue.recall 1.5 must be at most 1",
        ),
        ("objective.queue.block", 0, "objective.queue.block 0 must be at least 1"),
        (
            "objective.queue.dtype",
            "float64",
            "objective.queue.dtype 'float64' needs model.dtype",
        ),
        ("batch_size", 100, "batch_size 100 is not a multiple of the 8 devices.*104"),
        ("batch_size", 0, "batch_size 0 must be at least 1"),
        ("epochs", 0, "epochs 0"),
        ("objective.form", "papr", "objective.form 'papr'.*paper"),
        ("objective.name", "snlcr", "objective.name 'snlcr'.*mean 'snclr'.*use one of"),
        (
            "objective.name",
            "json:none",
            "objective.name 'json:none' cannot be imported",
        ),
        ("objective.name", "json:loads", "'json:loads' is not a subclass of Objective"),
        (
            "objective.temperature",
            0.0,
            "objective.temperature 0.0 must be at least 1e-06",
        ),
        ("objective.scale", 1e-300, "objective.scale 1e-300 must be greater than 0"),
        ("objective.neighbor_weight", -1.0, "objective.neighbor_weight -1.0"),
        ("objective.attention.kind", "dot", "objective.attention.kind 'dot'.*linear"),
        ("objective.attention.gamma", 0.0, "objective.attention.gamma"),
        ("ema.momentum", 1.5, "ema.momentum 1.5 must be between 0 and 1"),
        ("ema.final_momentum", -1.0, "ema.final_momentum -1.0 must be between 0 and 1"),
        ("optim.name", "adam", "optim.name 'adam'.*adamw"),
        ("optim.beta2", 1.0, "optim.beta2 1.0 must be at least 0 and below 1"),
        (
            "objective.attention.threshold",
            1.5,
            "objective.attention.threshold 1.5 .* below 1",
        ),
        ("model.width", 0, "model.width 0 must be at least 1"),
        ("model.projector_hidden", (64, 0), r"model.projector_hidden \(64, 0\) must"),
        ("data.max_bad", 1.5, "data.max_bad 1.5 must be between 0 and 1"),
        ("data.std", (0.2, 0.0, 0.2), "data.std .* must be above 0"),
        ("data.mean", (123.7, 116.3, 103.5), "data.mean .* must be between 0 and 1"),
        ("data.mean", (0.5, 0.5), r"data.mean has 2 values, .* is 3; give 3, or \(\)"),
        ("data.channels", 17, "data.channels 17 must be at most 16"),
        ("data.channels", 0, "data.channels 0 must be at least 1"),
        ("augment.global_views", 17, "augment.global_views 17 must be at most 16"),
        ("data.name", "cifar", "data.name 'cifar'.*tfds"),
        ("augment.size", 64, "augment.size 64 is larger than data.image_size 32"),
        ("augment.view1.flip", 2.0, "augment.view1.flip 2.0"),
        ("augment.view2.hue", 0.7, "augment.view2.hue 0.7 must be at most 0.5"),
        ("augment.view1.crop_scale", (0.5, 1.5), "augment.view1.crop_scale"),
        ("augment.view1.crop_ratio", (2.0, 1.0), "increasing"),
        ("evaluate.network", "ema", "evaluate.network 'ema'.*target"),
    ],
)
def test_bad_field_is_named_with_its_fix(field, value, message):
    config = base.get_config()
    assert_refused(config, field, value, message)


def test_the_base_and_a_queueless_config_are_accepted():
    config = base.get_config()
    check_config(config, devices=8)
    config.objective.queue.k, config.objective.queue.size = 0, 0
    check_config(config, devices=8)


def test_a_queue_that_is_not_searched_must_still_fit_the_devices():
    config = base.get_config()
    config.objective.queue.k, config.objective.queue.size = 0, 1001
    with pytest.raises(ValueError, match="objective.queue.size 1001.*1008"):
        check_config(config, devices=8)


def test_an_objective_that_is_named_alone_is_told_how_to_be():
    config = digits.get_config("debug")
    config.objective.name = "dcl"
    with pytest.raises(ValueError, match="behind the recipe, as --config=digits:dcl"):
        check_config(config, devices=1)


def test_a_batch_larger_than_the_data_is_refused():
    with pytest.raises(ValueError, match="1 training images are too few"):
        check_against_data(base.get_config(), 1)
    with pytest.raises(ValueError, match="batch_size 256.*100 images"):
        check_against_data(base.get_config(), 100)


def test_what_the_host_crops_is_refused_calls_of_several_steps_before_a_run():
    config = digits.get_config()
    config.steps_per_call, config.data.resident = 10, False
    with pytest.raises(ValueError, match="steps_per_call 10: .*use 1, or data.res"):
        check_against_data(config, 12_000)
    config.data.resident = None
    check_against_data(config, 12_000)
    with pytest.raises(ValueError, match="steps_per_call 10"):
        check_against_data(config, 10**7)


def test_presets_hold_every_choice_of_the_table():
    authors = base.apply_preset(digits.get_config(), preset="authors")
    assert authors.objective.form == "soft_cross_entropy"
    assert authors.objective.scale == pytest.approx(4 * authors.objective.temperature)
    assert authors.objective.attention.kind == "cosine"
    assert not authors.objective.queue.exclude_same_image
    assert authors.optim.decay_all
    paper = base.apply_preset(digits.get_config(), preset="paper")
    assert (paper.objective.form, paper.objective.scale) == ("paper", 1.0)
    assert paper.objective.attention.kind == "linear"
    assert paper.objective.queue.exclude_same_image
    for config in (authors, paper):
        assert (
            config.objective.attention.temperature,
            config.objective.attention.gamma,
        ) == (1.0, 1.0)
        assert config.objective.attention.threshold is None
        assert not config.objective.attention.stop_gradient
        assert (config.objective.queue.banks, config.objective.queue.push) == (
            1,
            "second",
        )
        check_config(config, devices=8)
    with pytest.raises(ValueError, match="preset 'ours'"):
        base.apply_preset(digits.get_config(), preset="ours")


def test_the_scale_of_the_authors_follows_a_later_temperature():
    config = digits.get_config("authors,debug")
    config.objective.temperature = 0.3
    assert config.objective.scale == pytest.approx(1.2)
    assert json.loads(config.to_json())["objective"]["scale"] == pytest.approx(1.2)
    config.objective.scale = 2.0
    config.objective.temperature = 0.1
    assert config.objective.scale == 2.0
    # The preset that comes last counts.
    config = digits.get_config("authors,paper")
    config.objective.temperature = 0.3
    assert config.objective.scale == 1.0


def test_variants_are_reached_through_the_recipe():
    assert digits.get_config("authors").objective.form == "soft_cross_entropy"
    assert digits.get_config("debug").epochs == 1
    with pytest.raises(ValueError, match="variant 'fast'"):
        digits.get_config("fast")


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("variant", ["", *base.VARIANTS, "authors,debug"])
def test_every_recipe_is_accepted_in_every_variant(name, variant):
    config = recipe(name, variant)
    check_config(choose(config, images=10_000, side=300, devices=8), devices=8)


def test_recipes_are_those_of_their_page():
    page = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text()
    for name in RECIPES:
        assert f"| `{name}` |" in page, name


def test_epochs_of_resnet50_are_an_argument():
    config = imagenet_resnet50.get_config()
    assert (config.epochs, config.optim.learning_rate) == (100, 0.6)
    config = imagenet_resnet50.get_config("800,authors")
    assert (config.epochs, config.ema.momentum) == (800, 0.996)
    assert config.objective.form == "soft_cross_entropy"
    assert imagenet_resnet50.get_config("authors").epochs == 100
    with pytest.raises(ValueError, match="variant '300' .*'800', 'debug'"):
        imagenet_resnet50.get_config("300")


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_mini_ssl_is_a_variant_of_both_cifar_recipes(name):
    check_config(recipe(name, "mini_ssl,debug"), devices=8)
    config = recipe(name, "mini_ssl")
    check_config(config, devices=8)
    assert config.optim.name == "sgd" and config.augment.view1 == config.augment.view2
    assert config.ema.momentum == config.ema.final_momentum == 0.99
    assert config.data.mean == recipe(name).data.mean
    with pytest.raises(ValueError, match="'mini' is unknown; use .*'mini_ssl', 'debug"):
        recipe(name, "mini")


@pytest.mark.parametrize("name", RECIPES)
def test_warm_ups_are_a_share_of_the_epochs_unless_they_are_set(name):
    config = recipe(name)
    epochs, rate, weight = _warm_ups(config)
    config.epochs = 2
    assert _warm_ups(config) == pytest.approx(
        [2, 2 * rate / epochs, 2 * weight / epochs]
    )
    assert _warm_ups(config)[1] > 0
    stored = as_json(config)
    assert stored["optim"]["warmup_epochs"] == config.optim.warmup_epochs
    config.optim.warmup_epochs = 3.0
    assert _warm_ups(config)[1] == 3.0
    config.epochs = 4
    assert _warm_ups(config)[1] == 3.0


def _warm_ups(config):
    objective = config.objective
    return [
        config.epochs,
        config.optim.warmup_epochs,
        objective.neighbor_warmup_epochs,
    ]


def test_a_recipes_own_epochs_have_its_own_warm_ups_to_the_bit():
    assert _warm_ups(digits.get_config()) == [15, 1.0, 3.0]
    assert _warm_ups(digits.get_config("authors")) == [15, 1.0, 0.0]
    assert _warm_ups(digits.get_config("debug")) == [1, 0.0, pytest.approx(0.2)]
    assert _warm_ups(recipe("cifar100")) == [200, 10.0, 0.0]
    tune = evaluate.get_config().finetune
    assert tune.warmup_epochs == 5.0
    tune.epochs = 2
    assert tune.warmup_epochs == pytest.approx(0.1)


def test_what_a_run_is_too_short_for_is_said_at_its_start():
    config = digits.get_config("swav")
    config.epochs = 5
    # 15 of the authors' 200.
    assert config.objective.queue_from_epoch == pytest.approx(0.375)
    assert config.objective.freeze_epochs == pytest.approx(0.025)
    rate, *others = notes(config, 12_000)
    assert not others
    config.objective.queue_from_epoch = 15.0
    assert notes(config, 12_000) == [
        rate,
        "objective.queue_from_epoch 15 is not before the end of 5 epochs: the codes "
        "never use the queue; lower it, or use more epochs",
    ]
    config.objective.queue.size = 0
    config.objective.freeze_epochs = 5.0
    (_, frozen) = notes(config, 12_000)
    assert "freeze_epochs 5 is not before the end of 5 epochs: the prot" in frozen
    config = digits.get_config()
    config.objective.neighbor_warmup_epochs = 15.0
    (_, warm) = notes(config, 12_000)
    assert "15 epochs: neighbors never get their full weight" in warm
    config.objective.queue.k = 0
    assert "never" not in "".join(notes(config, 12_000))


def test_each_field_that_counts_epochs_says_what_a_short_run_lacks():
    for name, cls in OBJECTIVES.items():
        fields = [field.name for field in dataclasses.fields(cls)]
        counting = {field for field in fields if field.endswith(base.EPOCHS)}
        assert counting == set(cls().waits), name


def test_notes_say_what_is_unusual():
    config = digits.get_config()
    rate = "peak learning rate 0.008: optim.learning_rate 0.016 x batch_size 128 / 256"
    assert notes(config, 12_000) == [rate]
    (_, long) = notes(config, 1024)
    assert (
        "objective.queue.size 4096 is 4.0 times the training set of 1024 images" in long
    )
    config.objective.queue.size = 640
    (_, short) = notes(config, 12_000)
    assert "objective.queue.size 640 is 5.0 batches" in short
    config.objective.queue.k = 0
    config.augment.local_views = 6
    (_, views) = notes(config, 12_000)
    assert "14 pairs" in views and "1.75 times the pixels" in views
    assert "1.00 times for the target" in views
    choose_objective(config, "mv_dhel")
    (_, views) = notes(config, 12_000)
    assert "1.75 times the pixels" in views and "target" not in views
    config.augment.local_views, config.model.bn_scope = 0, 4
    (_, norm) = notes(config, 12_000)
    assert "BatchNorm sees 4 images at a time" in norm


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("augment.global_views", 1, "augment.global_views 1 must be at least 2"),
        ("augment.size", 64, "augment.size 64 .*data.image_size 32"),
        ("seed", 2**32, "seed 4294967296 must be at most 4294967295"),
        ("model.bn_scope", 48, "model.bn_scope 48 must divide batch_size 128"),
        ("model.bn_scope", 1, "model.bn_scope 1 must be at least 2"),
        (
            "model.patch_size",
            6,
            "augment.size 32 .* 12.*patch_size 6; use 36",
        ),
        ("data.pictures_per_digit", 300, "digit 300 .* memory.* 262144"),
        ("data.path", "photos", "data.path 'photos' is not read .*data.name=folder"),
        ("data.path", "gs://bucket/photos", "is a URL, .* mount the bucket"),
        ("optim.warmup_epochs", 15.0, "optim.warmup_epochs 15 must be less than epo"),
        ("accumulate", 32, "accumulate 32 does not divide the 16 images .* 256"),
        ("accumulate", 2, "model.bn_scope is None.* divides 8"),
    ],
)
def test_views_and_parts_that_do_not_fit_are_refused(field, value, message):
    config = digits.get_config()
    assert_refused(config, field, value, message)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (
            "objective.queue.k",
            2.5,
            r"config.objective.queue.k is 2.5 \(float\), an integer is needed",
        ),
        (
            "objective.queue.k",
            True,
            r"config.objective.queue.k is True \(bool\), an integer",
        ),
        (
            "objective.queue.k",
            None,
            r"config.objective.queue.k is None \(NoneType\), an integer",
        ),
        ("model.width", "64", r"config.model.width is '64' \(str\), an integer"),
        ("model.scan", 1, r"config.model.scan is 1 \(int\), True or False"),
        ("objective.scale", "1", r"config.objective.scale is '1' \(str\), a number"),
        (
            "objective.scale",
            math.nan,
            r"config.objective.scale is nan \(float\), .* at most 3",
        ),
        ("data.path", 3, r"config.data.path is 3 \(int\), a string"),
        ("log.to", "wandb", r"config.log.to is 'wandb' \(str\), a tuple of strings"),
        ("log.to", (1,), r"config.log.to\[0\] is 1 \(int\), a string is needed"),
        ("data.mean", 0.5, r"config.data.mean is 0.5 \(float\), a tuple of 3 numbers"),
        ("augment.view1.crop_scale", (1.0,), "crop_scale is .*a tuple of 2 numbers"),
        ("data.std", (1, 1, "1"), r"config.data.std\[2\] is '1' \(str\), a number"),
        ("model.projector_hidden", (2.5,), r"projector_hidden\[0\] is 2.5 .*integer"),
        ("optim", None, "config.optim is None .*section with the fields .*'momentum'"),
    ],
)
def test_a_value_of_another_type_is_refused(field, value, message):
    config = base.get_config()
    with config.ignore_type():
        assert_refused(config, field, value, message)


def test_what_is_as_good_as_the_type_is_accepted():
    config = base.get_config()
    with config.ignore_type():
        config.data.mean = [0.5, 0.5, 0.5]
        config.model.projector_hidden = []
        config.optim.warmup_epochs = 5
    check_config(config, devices=8)


def test_missing_and_unknown_fields_are_named():
    config = base.get_config()
    with config.unlocked():
        del config.objective.queue.banks
    with pytest.raises(
        ValueError, match="config.objective.queue.banks is missing; start from"
    ):
        check_config(config, devices=8)
    config = base.get_config()
    with config.unlocked():
        config.objective.queue.length = 8
    with pytest.raises(
        ValueError, match="config.objective.queue.length is not a field .*'size'"
    ):
        check_config(config, devices=8)


def test_fields_that_are_chosen_later_may_be_unset():
    config = base.get_config()
    with config.ignore_type():
        config.batch_size = None
    check_fields(config, unset=("batch_size",))
    with pytest.raises(ValueError, match="config.batch_size is None"):
        check_fields(config)


def test_steps_that_cannot_be_counted_are_refused():
    config = digits.get_config()
    config.epochs = 10**8
    with pytest.raises(ValueError, match="epochs 1e\\+08 of 93 steps .* less than 23"):
        check_against_data(config, 12_000)


def test_local_views_must_fit_the_images_where_there_are_any():
    config = digits.get_config()
    config.augment.local_size = 64
    check_config(config, devices=8)
    config.augment.local_views = 2
    with pytest.raises(ValueError, match="augment.local_size 64 .*image_size 32"):
        check_config(config, devices=8)


def test_parts_of_whole_groups_are_accepted():
    config = digits.get_config()
    config.accumulate, config.model.bn_scope = 2, 8
    check_config(config, devices=8)
    config.model.bn_scope = 16  # a group would lie in two parts
    with pytest.raises(ValueError, match="accumulate 2 leaves 8"):
        check_config(config, devices=8)
