"""Features of whole image sets, on all devices."""

from __future__ import annotations

from itertools import chain, pairwise
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh

from snclr_jax.data import Split
from snclr_jax.data.shared import own_batches
from snclr_jax.devices.mesh import place_batch
from snclr_jax.devices.shares import shares
from snclr_jax.encoder.encode import Encode, make_encode
from snclr_jax.models.layers import split_patches
from snclr_jax.run.metrics import progress_bar

RAW_PIXELS_SIZE = 32
RAW_PLACE_SIZE = 4


def make_raw_pixels(config, mesh: Mesh) -> Encode:
    """Returns an `encode` without a network: the prepared pixels, as (b, s s c).

    Larger views are shrunk to `RAW_PIXELS_SIZE`, so that the
    pixels of a large set fit into memory.
    """
    size = min(config.augment.size, RAW_PIXELS_SIZE)

    def shrink(params, batch_stats, view: Array) -> Array:
        del params, batch_stats
        shape = (len(view), size, size, view.shape[-1])
        return jax.image.resize(view, shape, "linear").reshape(len(view), -1)

    return make_encode(shrink, config, mesh)


def make_raw_places(config, grid: tuple[int, int], mesh: Mesh) -> Encode:
    """Returns a `Model.dense` without a network: (b, rows, columns, p p 3) pixels.

    Args:
      config: reads `augment.size` and the channel statistics.
      grid: rows and columns; each place has p x p pixels, at most `RAW_PLACE_SIZE`.
      mesh: the devices.
    """
    rows, columns = grid
    side = max(1, min(config.augment.size // max(grid), RAW_PLACE_SIZE))

    def shrink(params, batch_stats, view: Array) -> Array:
        del params, batch_stats
        shape = (len(view), rows * side, columns * side, 3)
        return split_patches(jax.image.resize(view, shape, "linear"), side)

    return make_encode(shrink, config, mesh)


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
      mesh: the devices. Each process reads its share of the images, and all of them
        have all features.
      description: of a progress bar; None shows none.

    Raises:
      ValueError, OSError: on every process, where one cannot read its images.
    """
    batch_size = -(-min(batch_size, split.size) // mesh.size) * mesh.size
    every, height = shares(split.size), batch_size // jax.process_count()
    rows = [
        [share[start : start + height] for share in every]
        for start in range(0, max(map(len, every)), height)
    ]
    own = [of_processes[jax.process_index()] for of_processes in rows]
    batches, features = own_batches(split, own, height), None
    if description is not None:
        batches = progress_bar(batches, total=len(own), desc=description, unit="batch")
    started = (encode(params, batch_stats, place_batch(each, mesh)) for each in batches)
    # The next batch is read, and started, while the devices are at one: no waiting.
    ahead = pairwise(chain(started, [None]))
    for of_processes, (encoded, _) in zip(rows, ahead, strict=True):
        encoded = jax.device_get(encoded)
        if features is None:
            # Filled in place: to join parts at the end would take the memory twice.
            features = jax.tree.map(
                lambda values: np.empty((split.size, *values.shape[1:]), np.float32),
                encoded,
            )
        for whole, values in zip(
            *map(jax.tree.leaves, (features, encoded)), strict=True
        ):
            for start, part in zip(
                range(0, batch_size, height), of_processes, strict=True
            ):
                whole[part.start : part.stop] = values[start : start + len(part)]
    return features
