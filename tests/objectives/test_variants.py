"""Recipes that train another objective, and what is refused of its settings."""

from __future__ import annotations

import pytest
from recipes import RECIPES, recipe
from snclr_jax.configs import cifar10, digits
from snclr_jax.configs.published import PUBLISHED

from snclr_jax.data.choose import choose_of_objective
from snclr_jax.objectives import OBJECTIVES
from snclr_jax.settings.check import check_config
from snclr_jax.settings.ranges import get_field

OPERATIONS = ("jitter", "grayscale", "blur", "solarize")
GLOBAL = ("view1", "view2")


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_takes_every_objective_and_keeps_its_queue(name):
    own = recipe(name).objective.queue.size
    for objective in OBJECTIVES:
        settings = PUBLISHED.get(name, {}).get(objective, {})
        # A row of the memory for each image, however many these will be.
        kept = None if objective == "memory_dcl" else own
        size = settings.get("objective.queue.size", kept)
        for variant, rows in ((objective, size), (f"{objective},debug", 64)):
            config = recipe(name, variant)
            # The sizes of a folder are chosen from its images.
            if rows == 64 or name != "folder":
                sized = choose_of_objective(config, images=10_000, devices=8)
                check_config(sized, devices=8)
            assert config.objective.name == objective
            if "queue" in config.objective:
                assert config.objective.queue.size == rows


def test_a_recipe_keeps_what_it_says_of_soft_neighbors():
    config = digits.get_config("soft_dcl")
    found = config.objective
    assert (found.queue.k, found.attention.temperature) == (3, 0.1)
    assert (found.queue.push, found.temperature) == ("mean", 0.1)
    assert found.neighbor_warmup_epochs == 3.0
    config.epochs = 2 * config.epochs
    assert found.neighbor_warmup_epochs == 6.0


def test_memory_dcl_warms_up_where_a_recipe_says_nothing_of_it():
    config = cifar10.get_config("memory_dcl")
    config.epochs = 60
    assert config.objective.neighbor_warmup_epochs == pytest.approx(12.0)
    assert cifar10.get_config("soft_dcl").objective.neighbor_warmup_epochs == 0


# Of the sources, by hand: images, epochs, the peak rate that these have, widths of the
# projector with its output, temperature, rows of the queue. None is not said there.
PRINTED = {
    ("cifar10", "info_nce"): (256, 1000, 0.3, (4096, 256), 0.2, None),
    ("cifar10", "simclr"): (256, 1000, 0.4, (2048, 256), 0.2, None),
    ("cifar10", "nnclr"): (256, 1000, 0.4, (2048, 2048, 256), 0.2, 65_536),
    ("cifar10", "byol"): (256, 1000, 1.0, (4096, 256), None, None),
    ("cifar10", "all4one"): (256, 1000, 1.0, (2048, 2048, 256), 0.2, 98_304),
    ("cifar10", "ressl"): (256, 1000, 0.05, (4096, 256), 0.1, 65_536),
    ("cifar10", "swav"): (256, 1000, 0.6, (2048, 128), 0.1, 3840),
    ("cifar10", "barlow"): (256, 1000, 0.3, (2048, 2048, 2048), None, None),
    ("cifar10", "vicreg"): (256, 1000, 0.3, (2048, 2048, 2048), None, None),
    ("cifar10", "sce"): (256, 200, 0.06, (512, 128), 0.1, 4096),
    ("cifar10", "dcl"): (256, 100, 1e-3, (512, 128), 0.1, None),
    ("cifar10", "dclw"): (256, 100, 1e-3, (512, 128), 0.1, None),
    ("cifar10", "mv_infonce"): (256, 200, 1.0, None, 0.5, None),
    ("cifar10", "mv_dhel"): (256, 200, 1.0, None, 0.5, None),
    ("cifar10", "cacr"): (128, 200, 0.06, None, None, None),
    ("imagenet100", "all4one"): (256, 400, 1.0, (2048, 2048, 256), 0.2, 98_304),
    ("imagenet_resnet50", "info_nce"): (4096, 100, 9.6, (4096, 256), 1.0, None),
    ("imagenet_resnet50", "cacr_momentum"): (4096, 1000, 4.8, (4096, 256), 1.0, None),
    ("imagenet_resnet50", "moco_v2"): (256, 200, 0.03, (2048, 128), 0.2, 65_536),
    ("imagenet_resnet50", "mochi"): (256, 200, 0.03, (2048, 128), 0.2, 65_536),
    ("imagenet_resnet50", "simclr"): (4096, 100, 4.8, (2048, 2048, 128), 0.1, None),
    ("imagenet_resnet50", "nnclr"): (4096, 1000, None, None, 0.1, 98_304),
    ("imagenet_resnet50", "byol"): (2048, 100, 3.6, (4096, 256), None, None),
    ("imagenet_resnet50", "dcl"): (256, 100, 1.2, (2048, 128), 0.1, None),
    ("imagenet_resnet50", "dclw"): (256, 100, 1.2, (2048, 128), 0.1, None),
    ("imagenet_resnet50", "mv_infonce"): (256, 100, 0.3, None, 0.1, None),
    ("imagenet_resnet50", "mv_dhel"): (256, 100, 0.3, None, 0.1, None),
    ("imagenet_resnet50", "sce"): (4096, 100, 9.6, None, 0.1, 65_536),
    ("imagenet_resnet50", "ressl"): (256, 200, 0.05, (4096, 512), 0.1, 131_072),
    ("imagenet_resnet50", "swav"): (4096, 100, 4.8, (2048, 128), 0.1, 0),
    ("imagenet_resnet50", "groco"): (1024, 100, 3.0, (2048, 2048, 2048), None, None),
    ("imagenet_resnet50", "barlow"): (2048, 1000, 1.6, (8192, 8192, 8192), None, None),
    ("imagenet_resnet50", "vicreg"): (2048, 1000, 1.6, (8192, 8192, 8192), None, None),
    ("imagenet_vit_s16", "info_nce"): (4096, 300, 2.4e-3, None, 0.2, None),
    ("imagenet_vit_b16", "info_nce"): (4096, 300, 2.4e-3, None, 0.2, None),
    ("imagenet_vit_b16", "cacr_momentum"): (4096, 300, 2.4e-3, None, 0.2, None),
}
# solo-learn's asymmetric and symmetric views, and what takes neither: crops, blur and
# solarization of the first view and of the second.
MILD, STRONG = ((0.08, 0.0, 0.0), (0.08, 0.0, 0.2)), 2 * ((0.08, 0.5, 0.0),)
VIEWS = {
    **dict.fromkeys(("info_nce", "nnclr", "byol", "all4one", "barlow"), MILD),
    **dict.fromkeys(("simclr", "swav"), STRONG),
    "vicreg": 2 * ((0.2, 0.0, 0.1),),
    "ressl": ((0.08, 0.5, 0.0), (0.08, 0.0, 0.0)),
    "sce": ((0.2, 0.5, 0.0), (0.2, 0.0, 0.0)),
    **dict.fromkeys(("dcl", "dclw", "mv_infonce", "mv_dhel"), 2 * ((0.08, 0.0, 0.0),)),
    "cacr": 2 * ((0.2, 0.0, 0.0),),
}


def test_published_settings_are_those_of_the_sources():
    for name, objectives in PUBLISHED.items():
        for objective in objectives:
            config = recipe(name, objective)
            own = config.objective
            batch, epochs, peak, widths, temperature, rows = PRINTED[
                name.replace("cifar100", "cifar10"), objective
            ]
            found = {
                "batch": config.batch_size,
                "epochs": config.epochs,
                "peak": config.optim.learning_rate * config.batch_size / 256,
                "widths": (*config.model.projector_hidden, config.model.embedding_dim),
                "temperature": own.get("temperature"),
                "rows": own.queue.size if "queue" in own else None,
            }
            said = (batch, epochs, peak and pytest.approx(peak), widths, temperature)
            expected = dict(zip(found, (*said, rows), strict=True))
            expected = {key: x for key, x in expected.items() if x is not None}
            assert {key: found[key] for key in expected} == expected, (name, objective)


def test_views_on_cifar_are_those_of_the_sources():
    for objective, expected in VIEWS.items():
        views = (recipe("cifar10", objective).augment[view] for view in GLOBAL)
        found = tuple((view.crop_scale[0], view.blur, view.solarize) for view in views)
        assert found == expected, objective
    assert set(VIEWS) == set(PUBLISHED["cifar10"])


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
