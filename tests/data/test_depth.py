"""Images of more than 8 bits: what of their levels is kept."""

from __future__ import annotations

import io

import numpy as np
import pytest
from bad_pictures import encoded, noise
from PIL import Image
from snclr_jax.configs import digits, folder

from snclr_jax.data import open_data
from snclr_jax.data.choose import choose_from_data
from snclr_jax.data.crop import DRAWS, View
from snclr_jax.data.decode import Encoded, UnreadableImage, decode_image
from snclr_jax.data.decode_views import decode_views
from snclr_jax.data.depth import note_on_range
from snclr_jax.data.form import Form

WHOLE = View(8, (1.0, 1.0), (1.0, 1.0))


@pytest.fixture
def x_rays(tmp_path):
    """12 bits in files of 16, with a defect pixel; and one image of 8 bits."""
    for number in range(3):
        levels = np.linspace(100, 4000, 4096).astype(np.uint16).reshape(64, 64)
        levels[number, 0] = 65535
        kind = ("png", "tif", "tiff")[number]
        Image.fromarray(levels).save(tmp_path / f"{number}.{kind}")
    noise(side=64).save(tmp_path / "3.png")
    config = folder.get_config()
    config.data.path, config.data.image_size = str(tmp_path), 64
    return config


def both_ways(content: bytes, levels) -> list[np.ndarray]:
    return [
        decode_image(io.BytesIO(content), 8, name="it", form=Form(levels)),
        *decode_views(
            Encoded(content, "it", Form(levels)), [WHOLE], np.full((1, DRAWS), 0.5)
        ),
    ]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_the_range_becomes_all_grays(kind):
    levels = np.arange(64, dtype=np.uint16).reshape(8, 8) * 65
    for got in both_ways(encoded(Image.fromarray(levels), kind), (1000, 3048)):
        want = (np.clip(levels.astype(int), 1000, 3047) - 1000) // 8
        np.testing.assert_array_equal(got, np.stack(3 * [want], axis=-1))


def test_floats_have_no_full_range():
    image = Image.fromarray(np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8))
    content = encoded(image, "TIFF")
    for got in both_ways(content, (0.0, 1.0)):
        assert (got[0, 0] == 0).all() and (got[-1, -1] == 255).all()
    with pytest.raises(UnreadableImage, match="floats .* data.range .*'0,1'"):
        decode_image(io.BytesIO(content), 8, name="it")


def test_a_small_part_of_the_range_is_noted_until_one_is_set(x_rays):
    data = open_data(x_rays.data)
    note = note_on_range(x_rays.data, data.train)
    assert "the levels 103 to 3997 of 65535 and become 15 of 256 grays" in note
    x_rays.data.range = "0,4096"
    assert note_on_range(x_rays.data, data.train) == ""
    pixels = open_data(x_rays.data).train.images()
    assert pixels[0, -1, -2].tolist() == [249] * 3  # 3999 of 4096
    assert data.train.images()[0, -1, -2].tolist() == [15] * 3


def test_ordinary_images_need_no_word():
    config = digits.get_config("debug")
    assert note_on_range(config.data, open_data(config.data).train) == ""


def test_auto_becomes_the_levels_that_are_used(x_rays):
    x_rays.update(batch_size=2)
    x_rays.augment.update(size=32, local_size=16)
    x_rays.model.stem, x_rays.objective.queue.size = "cifar", 8
    assert choose_from_data(x_rays, devices=1) == (x_rays, "")
    x_rays.data.range = "auto"
    chosen, sentence = choose_from_data(x_rays, devices=1)
    assert sentence.endswith(f"4 images: data.range={chosen.data.range!r}")
    low, high = map(float, chosen.data.range.split(","))
    assert 100 < low < 110 and 3990 < high < 4000
    assert x_rays.data.range == "auto"


def test_auto_leaves_images_of_8_bits_as_they_are():
    config = digits.get_config("debug")
    config.data.range = "auto"
    assert choose_from_data(config, devices=1)[0].data.range == "full"
