"""Rows of pictures stand beside their names."""

from __future__ import annotations

import numpy as np
import pytest

from snclr_jax import visualize


@pytest.mark.parametrize("width", [10.6, 4.6])
def test_every_row_has_its_name_on_the_left_and_its_pictures_in_order(width, rng):
    long = rng.integers(0, 256, (9, 8, 8, 3), dtype=np.uint8)
    short = rng.integers(0, 256, (2, 6, 6, 1), dtype=np.uint8)
    figure = visualize.strips({"cluster $0$": long, "outliers": short}, width=width)
    assert figure.get_size_inches()[0] <= width + 1e-6
    (axes,) = figure.axes
    names = {text.get_text(): text for text in axes.texts}
    shown = iter(axes.get_images())
    right, bottom = 0, 0
    for name, pictures in (("cluster $0$", long), ("outliers", short)):
        box = names[name].get_window_extent().transformed(axes.transData.inverted())
        right, top = box.x1, bottom
        assert not names[name].get_parse_math(), "a dollar is no formula"
        for picture in pictures:
            image = next(shown)
            wanted = np.broadcast_to(picture, (*picture.shape[:2], 3))
            np.testing.assert_array_equal(image.get_array(), wanted)
            left, end, low, high = image.get_extent()
            assert right < left < end and top <= high < box.y0 < low
            right, bottom = end, low
        assert right <= axes.get_xlim()[1]
    assert next(shown, None) is None


def test_rows_without_any_picture_are_refused():
    with pytest.raises(ValueError, match="no picture; give one row or more"):
        visualize.strips({"near-duplicates": np.zeros((0, 8, 8, 3), np.uint8)})
