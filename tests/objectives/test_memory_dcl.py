"""The settings of MemoryDCL; its numbers are those of `test_every_objective.py`."""

from __future__ import annotations

import pytest
from snclr_jax.configs import digits, omniglot

from snclr_jax.objectives.memory_dcl import MemoryDCL
from snclr_jax.settings.check import check_config, notes
from snclr_jax.settings.objective import build_objective


def recipe(size=12_000):
    config = digits.get_config("memory_dcl")
    config.objective.queue.size = size
    return config


def test_a_recipe_gives_its_neighbors_and_warm_up_but_no_size():
    found = omniglot.get_config("memory_dcl").objective
    assert (found.queue.k, found.neighbor_warmup_epochs) == (5, 20.0)
    assert (found.neighbor_weight, found.queue.size) == (6.0, None)


@pytest.mark.parametrize(("images", "devices", "size"), [(3872, 1, 3872), (10, 8, 16)])
def test_each_image_gets_a_row(images, devices, size):
    section = digits.get_config("memory_dcl").objective
    chosen = MemoryDCL.choose(section, images=images, devices=devices)
    assert chosen == {"queue.size": size}


@pytest.mark.parametrize(("k", "rank", "size"), [(5, 5, 64), (3, 64, 64)])
def test_a_rank_that_is_a_neighbors_or_no_rows_is_refused(k, rank, size):
    config = recipe(size)
    config.objective.queue.k, config.objective.queue.rank = k, rank
    with pytest.raises(ValueError, match=f"queue.rank {rank} .*size={size}; use"):
        check_config(config, devices=1)
    config.objective.queue.k = 0  # asks for no row
    check_config(config, devices=1)


def test_images_that_have_too_few_others_are_noted():
    config = recipe(24)
    objective = build_objective(config)
    (note,) = objective.notes(config, 20)
    assert "rank 20: none of 20 training images has so many others" in note
    assert objective.notes(config, 21) == []


def test_without_neighbors_there_is_no_bank():
    section = digits.get_config("memory_dcl").objective
    section.queue.k = 0
    assert MemoryDCL.choose(section, images=3872, devices=8) == {"queue.size": 0}


def test_images_keep_a_row_each_where_memory_is_short():
    savings = build_objective(recipe()).savings()
    assert set(savings) == {"queue.dtype", "queue.block"}


def test_a_bank_that_is_shorter_than_the_images_is_noted():
    (note,) = build_objective(recipe(4096)).notes(recipe(4096), 12_000)
    assert "size 4096 is less than 12000 training images" in note
    assert note in notes(recipe(4096), 12_000)
    assert build_objective(recipe()).notes(recipe(), 12_000) == []
