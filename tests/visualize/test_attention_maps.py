"""Maps of an encoder lie over its views, and are drawn beside them."""

from __future__ import annotations

import numpy as np
import pytest

from snclr_jax import visualize


class Stub:
    """An encoder with maps of its own and views of 8 pixels."""

    def __init__(self, **maps):
        self._maps = maps

    def maps(self, images):
        return self._maps

    def views(self, images):
        return np.zeros((*np.shape(images)[:-3], 8, 8, 3), np.uint8)


def test_attention_is_the_mean_of_the_heads_over_every_pixel():
    heads = np.array([[[0, 0], [0, 0]], [[0.2, 0.4], [0.2, 0.4]]], np.float32)
    images = np.zeros((1, 9, 9, 3), np.uint8)
    (found,) = visualize.attention(Stub(attention=heads[None]), images)
    # A patch has 4 pixels; their middle lies between pixels 1 and 2, and 5 and 6.
    row = [0.1, 0.1, 0.1125, 0.1375, 0.1625, 0.1875, 0.2, 0.2]
    np.testing.assert_allclose(found, np.tile(row, (8, 1)), atol=1e-6)
    one = visualize.attention(Stub(attention=heads), images[0])
    np.testing.assert_array_equal(one, found)


def test_activation_lies_where_the_features_are():
    values = np.array([[[1, 2], [3, 4]], [[8, 8], [8, 8]]], np.float32)
    first, second = visualize.activation(
        Stub(activation=values), np.zeros((2, 9, 9, 3))
    )
    assert (first[0, 0], first[0, 7], first[7, 0], first[7, 7]) == (1, 2, 3, 4)
    np.testing.assert_array_equal(second, np.full((8, 8), 8, np.float32))


def test_a_map_that_an_encoder_has_not_is_named_with_the_one_it_has():
    images = np.zeros((1, 9, 9, 3))
    with pytest.raises(ValueError, match="is no ViT, .* use visualize.activation"):
        visualize.attention(Stub(activation=np.ones((1, 2, 2))), images)
    with pytest.raises(ValueError, match="is a ViT, .* use visualize.attention"):
        visualize.activation(Stub(attention=np.ones((1, 3, 2, 2))), images)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [10.6, 4.6])
def test_every_picture_has_its_map_beside_it(theme, width, rng):
    pictures = rng.integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    maps = rng.normal(size=(5, 8, 8)).astype(np.float32)
    figure = visualize.overlays(pictures, maps, width=width, theme=theme)
    assert figure.get_size_inches()[0] <= width + 1e-6
    (axes,) = figure.axes
    shown = [image.get_array() for image in axes.get_images()]
    assert len(shown) == 3 * 5
    for number in range(5):
        picture, grey, drawn = shown[3 * number : 3 * number + 3]
        np.testing.assert_array_equal(picture, pictures[number])
        np.testing.assert_allclose(grey, pictures[number].mean(axis=-1))
        np.testing.assert_array_equal(drawn, maps[number])
    corners = {tuple(image.get_extent()[::2]) for image in axes.get_images()}
    assert len(corners) == 10, "side by side, none over another"
    with pytest.raises(ValueError, match=r"\(5, 8, 8, 3\) do not fit .*\(5, 8, 7\)"):
        visualize.overlays(pictures, maps[..., 1:])
