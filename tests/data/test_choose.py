"""What is chosen for a folder of images, and what is left as it was set."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from snclr_jax.configs import digits, folder

from snclr_jax.data.choose import FIELDS, LEAST_IMAGES, choose, choose_from_data
from snclr_jax.settings.check import LEAST_BATCH, check_config


@pytest.mark.parametrize(
    ("images", "side", "devices", "expected"),
    [
        # batch, image_size, size, stem, queue
        (1_000_000, 500, 8, (256, 256, 224, "imagenet", 65_536)),
        (50_000, 32, 1, (256, 32, 32, "cifar", 16_384)),
        (5_000, 100, 1, (128, 100, 96, "imagenet", 2048)),
        (300, 64, 1, (8, 64, 64, "cifar", 128)),
        (300, 20, 6, (6, 32, 32, "cifar", 126)),
    ],
)
def test_choices_follow_the_rules(images, side, devices, expected):
    config = choose(folder.get_config(), images=images, side=side, devices=devices)
    assert (
        config.batch_size,
        config.data.image_size,
        config.augment.size,
        config.model.stem,
        config.objective.queue.size,
    ) == expected


@pytest.mark.parametrize("images", [32, 50, 100, 200, 777, 12_345, 400_000])
@pytest.mark.parametrize("devices", [1, 3, 8])
def test_choices_are_accepted_and_leave_ten_batches(images, devices):
    config = folder.get_config()
    config.objective.queue.banks = 2
    chosen = choose(config, images=images, side=300, devices=devices)
    check_config(chosen, devices=devices)
    assert chosen.objective.queue.size <= images / 2
    # Small sets end at the least batch that the devices and banks divide.
    assert chosen.batch_size <= max(chosen.objective.queue.size / 10, 2 * LEAST_BATCH)
    assert chosen.batch_size >= 6
    assert config.batch_size is None  # the recipe itself stays


@pytest.mark.parametrize(
    ("images", "devices", "batch", "size", "refused"),
    [
        (1, 1, None, None, "batch_size and objective.queue.size for: 32 are the"),
        (31, 1, None, None, "31 training images are too few .*: 32 are the least"),
        (100, 64, None, None, "for: 128 are the least that make sense on 64 devices"),
        (5, 1, 4, None, "to choose objective.queue.size for: 32 are"),
        (5, 1, 4, 8, None),
        (40, 1, 30, None, None),
    ],
)
def test_sets_that_are_too_small_are_refused(images, devices, batch, size, refused):
    """What nobody has set is never what a refusal blames."""
    config = folder.get_config()
    config.batch_size, config.objective.queue.size = batch, size
    arguments = dict(images=images, side=64, devices=devices)
    if not refused:
        assert choose(config, **arguments).batch_size == batch
        return
    with pytest.raises(ValueError, match=refused):
        choose(config, **arguments)


def test_what_was_set_stays():
    config = folder.get_config()
    config.batch_size, config.augment.size, config.model.stem = 48, 64, "imagenet"
    config = choose(config, images=5_000, side=100, devices=1)
    assert (config.batch_size, config.augment.size) == (48, 64)
    assert (config.data.image_size, config.model.stem) == (73, "imagenet")


def test_without_a_queue_the_batch_is_that_of_the_images():
    config = folder.get_config()
    config.objective.queue.k = config.objective.queue.size = 0
    assert choose(config, images=100_000, side=96, devices=8).batch_size == 256


def test_a_folder_is_looked_at(tmp_path):
    for number in range(LEAST_IMAGES - 1):
        side = (40, 50, 50, 60, 300)[number % 5]
        pixels = np.zeros((side, 2 * side, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    (tmp_path / "99.png").write_bytes(b"no image")
    config = folder.get_config()
    config.data.path = str(tmp_path)
    chosen, sentence = choose_from_data(config, devices=1)
    assert (chosen.augment.size, chosen.augment.local_size) == (48, 16)
    assert sentence.startswith("chosen for 32 images, shorter side 50 pixels")
    assert all(f"{field}=" in sentence for field in (*FIELDS, "objective.queue.size"))
    assert choose_from_data(chosen, devices=1) == (chosen, "")


def test_what_is_not_used_is_named_where_the_rest_is_too_small(tmp_path):
    for name in ("train/0.png", "bus/0.png", "car/0.png"):
        (tmp_path / name).parent.mkdir()
        Image.new("RGB", (40, 40)).save(tmp_path / name)
    config = folder.get_config()
    config.data.path = str(tmp_path)
    with pytest.raises(ValueError, match=r"1 training images .*1 in bus, 1 in car"):
        choose_from_data(config, devices=1)


def test_data_that_say_nothing_are_refused(tmp_path):
    config = folder.get_config()
    config.data.path = str(tmp_path / "none")
    with pytest.raises(ValueError, match="data.path is .*none"):
        choose_from_data(config, devices=1)
    (tmp_path / "1.jpg").write_bytes(b"no image")
    config.data.path = str(tmp_path)
    with pytest.raises(ValueError, match="none of 1 .* be read: .*1.jpg .*not an"):
        choose_from_data(config, devices=1)


def test_any_data_can_be_looked_at():
    config = digits.get_config()
    assert choose_from_data(config, devices=1) == (config, "")
    config = folder.get_config()
    config.data.name, config.data.holdback = "digits", 2000
    chosen, sentence = choose_from_data(config, devices=1)
    # 10,000 of 12,000 pictures, drawn at the size that is asked for.
    assert (chosen.augment.size, chosen.objective.queue.size) == (32, 4096)
    assert "10000 images" in sentence
