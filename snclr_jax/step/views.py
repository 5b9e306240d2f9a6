"""The random views of a batch of images, made inside the compiled step."""

from __future__ import annotations

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh

from snclr_jax.devices.mesh import over_batch
from snclr_jax.step.augment import augment_batch, normalize, view_settings


class Batch(flax.struct.PyTreeNode):
    """The images of one global batch, cropped on the host or resident on the device.

    Attributes:
      image_id: (b,) int32, the index of each image in the training set; (n, b) of the
        n steps of one call, see `several_steps`.
      views: for each view (b, s, s, c) uint8, a random crop made on the host, or None.
      resident: (n, h, w, c) uint8, the whole training set on every device, or None;
        `image_id` indexes it. An argument and not a constant, which XLA would fold.
      labels: (n,) int32 of the whole training set, below 0 where unknown, or None. Read
        by metrics only.
    """

    image_id: Array
    views: tuple[Array, ...] | None = None
    # Any, not None: who reads one knows that it is there.
    resident: Array | Any = None
    labels: Array | Any = None


def random_views(batch: Batch, step: Array, *, config, mesh: Mesh) -> tuple[Array, ...]:
    """Returns the random views of each image, global ones first.

    Each is (b, s, s, c) float32 with normalized channels, s its own size.
    """
    settings = view_settings(config.augment)
    if batch.views is None:
        images = batch.resident[batch.image_id]
        sources = [(images, size) for size, _ in settings]
    else:
        # The crops were made on the host.
        sources = [(view, None) for view in batch.views]

    def view(number: int) -> Array:
        images, size = sources[number]
        images = jax.lax.with_sharding_constraint(images, over_batch(mesh))
        keys = image_keys(config.seed, step, number + 1, images.shape[0])
        view = augment_batch(keys, images, size=size, settings=settings[number][1])
        return normalize(view, config.data.mean, config.data.std)

    return tuple(view(number) for number in range(len(settings)))


def image_keys(seed: int, step: Array | int, number: int, count: int) -> Array:
    """Returns one PRNG key for each of `count` images.

    A function of (seed, step, number, index in the global batch) alone; `number` tells
    apart what is drawn for an image in one step.
    """
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), step), number)
    return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(count))
