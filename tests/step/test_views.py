"""Many views of an image: what is drawn, who predicts whom, and on which devices."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from snclr_jax.step.augment import view_settings
from snclr_jax.step.views import Batch, image_keys, random_views

MANY = {
    "augment__global_views": 3,
    "augment__local_views": 2,
    "augment__local_size": 16,
}


def test_views_have_their_own_size_and_settings():
    config = tiny.config(**MANY)
    augment = config.augment
    augment.view2.flip = 0.125
    augment.local.flip = 0.25
    views = view_settings(augment)
    assert [size for size, _ in views] == [32, 32, 32, 16, 16]
    flips = [settings.flip for _, settings in views]
    assert flips == [augment.view1.flip, 0.125, augment.view1.flip, 0.25, 0.25]


@pytest.mark.parametrize("resident", [True, False])
def test_no_two_views_are_drawn_alike(mesh_of, resident):
    config = tiny.config(**MANY)
    mesh = mesh_of(4)
    batch = tiny.batch(config, mesh, resident=resident)
    draw = jax.jit(functools.partial(random_views, config=config, mesh=mesh))
    views = draw(batch, jnp.int32(3))
    assert [view.shape for view in views] == [(16, 32, 32, 3)] * 3 + [
        (16, 16, 16, 3)
    ] * 2
    for first, second in ((0, 1), (0, 2), (1, 2), (3, 4)):
        difference = np.abs(views[first] - views[second]).max(axis=(1, 2, 3))
        assert (difference > 0.1).all()


def test_keys_differ_by_seed_step_number_and_image():
    def keys(*arguments):
        return np.asarray(jax.random.key_data(image_keys(*arguments)))

    base = keys(0, 5, 1, 8)
    np.testing.assert_array_equal(base, keys(0, 5, 1, 8))
    assert len({tuple(key) for key in base}) == 8
    for other in (keys(1, 5, 1, 8), keys(0, 6, 1, 8), keys(0, 5, 2, 8)):
        assert not (base == other).all(axis=1).any()


def test_views_are_solarized_before_their_channels_are_normalized(mesh_of, rng):
    """Nothing else is drawn; every second global view is solarized."""
    config = tiny.config(**tiny.NOTHING_DRAWN, **MANY)
    config.augment.view2.solarize = 1.0
    sides = (32, 32, 32, 16, 16)
    crops = [rng.integers(0, 256, (4, side, side, 3), np.uint8) for side in sides]
    batch = Batch(image_id=jnp.arange(4), views=tuple(map(jnp.asarray, crops)))
    found = random_views(batch, jnp.int32(0), config=config, mesh=mesh_of(1))
    expected = [crop / 255 for crop in crops]
    expected[1] = np.where(expected[1] >= 0.5, 1 - expected[1], expected[1])
    mean, std = np.array(config.data.mean), np.array(config.data.std)
    for view, by_hand in zip(found, expected, strict=True):
        np.testing.assert_allclose(view, (by_hand - mean) / std, atol=1e-5)


def test_a_view_that_the_network_cannot_take_is_refused_at_the_start(mesh_of):
    config = tiny.config(augment__local_views=1, augment__local_size=20)
    with pytest.raises(ValueError, match="patch_size 4 does not fit images of 20x20"):
        tiny.build(config, mesh_of(1))
