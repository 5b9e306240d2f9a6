"""Features of whole image sets, on all devices."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh

from snclr_jax.data import Split
from snclr_jax.data.pipeline import eval_batches
from snclr_jax.devices.mesh import own_rows, place_batch, replicated
from snclr_jax.encoder.encode import Encode, prepare
from snclr_jax.run.metrics import progress_bar

RAW_PIXELS_SIZE = 32


def make_raw_pixels(config, mesh: Mesh) -> Encode:
    """Returns an `encode` without a network: the prepared pixels, as (b, s s 3).

    Larger views are shrunk to `RAW_PIXELS_SIZE`, so that the
    pixels of a large set fit into memory.
    """
    size = min(config.augment.size, RAW_PIXELS_SIZE)

    def encode(params, batch_stats, images: Array) -> Array:
        del params, batch_stats
        count = images.shape[0]
        small = jax.image.resize(
            prepare(images, config), (count, size, size, 3), "linear"
        )
        return small.reshape(count, -1)

    return jax.jit(encode, out_shardings=replicated(mesh))


def extract_features(
    encode: Encode,
    params: Any,
    batch_stats: Any,
    split: Split,
    *,
    batch_size: int,
    mesh: Mesh,
    description: str | None = None,
) -> Any:
    """Returns the features of a split in its order, float32 (n, f).

    Args:
      encode: from `make_encode` or `make_raw_pixels`; where it returns several arrays
        by name, so does this.
      params: encoder parameters, under the key "encoder".
      batch_stats: their running BatchNorm statistics.
      split: the images.
      batch_size: images per call; rounded up to a multiple of the devices.
      mesh: the devices. Every process reads all images and keeps its share.
      description: of a progress bar; None shows none.
    """
    batch_size = -(-min(batch_size, split.size) // mesh.size) * mesh.size
    own = own_rows(batch_size, mesh)
    batches, features = eval_batches(split, batch_size), None
    if description is not None:
        total = -(-split.size // batch_size)
        batches = progress_bar(batches, total=total, desc=description, unit="batch")
    for start, images in zip(range(0, split.size, batch_size), batches, strict=True):
        missing = batch_size - len(images)  # the last batch keeps the compiled shape
        padded = np.pad(images, ((0, missing), (0, 0), (0, 0), (0, 0)))
        placed = place_batch(padded[own], mesh)
        encoded = jax.device_get(encode(params, batch_stats, placed))
        if features is None:
            # Filled in place: to join parts at the end would take the memory twice.
            features = jax.tree.map(
                lambda rows: np.empty((split.size, *rows.shape[1:]), np.float32),
                encoded,
            )
        for whole, rows in zip(*map(jax.tree.leaves, (features, encoded)), strict=True):
            whole[start : start + len(images)] = rows[: len(images)]
    return features
