"""What a network sees of images as they are stored, and what it makes of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import ml_collections
from jax import Array
from jax.sharding import Mesh

from snclr_jax.devices.mesh import replicated
from snclr_jax.step.augment import center_view, normalize

# (params, batch_stats, images) -> (b, f), or several such by name
Encode = Callable[[Any, Any, Any], Any]


def prepare(images: Array, config: ml_collections.ConfigDict) -> Array:
    """Returns what a network sees of images as they are stored.

    Args:
      images: uint8 (b, s, s, c), of side `data.image_size`.
      config: reads `augment.size` and the channel statistics.

    Returns:
      float32 (b, v, v, c): the middle `augment.size` pixels, normalized.
    """
    view = center_view(images, size=config.augment.size)
    return normalize(view, config.data.mean, config.data.std)


def make_encode(encode: Encode, config, mesh: Mesh) -> Encode:
    """Returns `encode` compiled for images as they are stored.

    They are uint8 (b, s, s, c), cropped at the center to the size of a training view
    and normalized.

    Args:
      encode: `Model.encode`, or `Model.layers` for the features of several depths.
      config: reads `augment.size` and the channel statistics.
      mesh: the devices.
    """

    def prepare_and_encode(params, batch_stats, images: Array):
        return encode(params, batch_stats, prepare(images, config))

    return jax.jit(prepare_and_encode, out_shardings=replicated(mesh))
