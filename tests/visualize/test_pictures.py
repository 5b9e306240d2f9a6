"""What a person sees of images of any channels."""

from __future__ import annotations

import numpy as np
import pytest

from snclr_jax.explore.thumbnails import thumbnail
from snclr_jax.visualize.gallery import gallery
from snclr_jax.visualize.pictures import in_color

IMAGES = np.random.RandomState(0).randint(0, 256, (2, 8, 8, 5), np.uint8)


@pytest.mark.parametrize(("channels", "shown"), [(1, (0, 0, 0)), (3, (0, 1, 2))])
def test_gray_is_gray_and_of_many_the_first_three_are_shown(channels, shown):
    got = in_color(IMAGES[..., :channels])
    np.testing.assert_array_equal(got, IMAGES[..., shown])
    np.testing.assert_array_equal(in_color(IMAGES), IMAGES[..., :3])


def test_of_two_channels_none_is_blue():
    got = in_color(IMAGES[..., :2])
    np.testing.assert_array_equal(got[..., :2], IMAGES[..., :2])
    assert not got[..., 2].any()


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_pages_and_figures_take_any_channels(channels):
    images = IMAGES[..., :channels]
    assert thumbnail(images[0], 8) == thumbnail(in_color(images)[0], 8)
    one = np.ones((2, 1))
    found = type("Found", (), {})()
    found.similarity = found.weight = one
    found.age, found.valid = one.astype(int), one > 0
    found.query_label = found.neighbor_label = None
    found.query_name, found.neighbor_name = ["a", "b"], one.astype(str)
    drawn = gallery(images, images[:, None], found).axes[0].images
    np.testing.assert_array_equal(drawn[0].get_array(), in_color(images)[0])
