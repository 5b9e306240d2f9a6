"""Features of whole image sets, on all devices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh

from snclr_jax.augment import center_view, normalize
from snclr_jax.data import Split
from snclr_jax.data.pipeline import eval_batches
from snclr_jax.models import Model
from snclr_jax.partition import place_batch, replicated

RAW_PIXELS_SIZE = 32
Encode = Callable[[Any, Any, Array], Array]


def make_encode(model: Model, config, mesh: Mesh) -> Encode:
    """Returns the compiled `encode(params, batch_stats, images) -> (b, f)` features.

    Images are uint8 (b, s, s, 3); they are cropped at the center to the size of a
    training view and normalized, and BatchNorm uses running statistics.
    """

    def encode(params, batch_stats, images: Array) -> Array:
        return model.encode(params, batch_stats, _prepare(images, config))

    return jax.jit(encode, out_shardings=replicated(mesh))


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
            _prepare(images, config), (count, size, size, 3), "linear"
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
) -> np.ndarray:
    """Returns the features of a split in its order, float32 (n, f).

    Args:
      encode: from `make_encode` or `make_raw_pixels`.
      params: encoder parameters, under the key "encoder".
      batch_stats: their running BatchNorm statistics.
      split: the images.
      batch_size: images per call; rounded up to a multiple of the devices.
      mesh: the devices. Every process reads all images and keeps its share.
    """
    batch_size = -(-min(batch_size, split.size) // mesh.size) * mesh.size
    share = batch_size // jax.process_count()
    first = jax.process_index() * share
    features = []
    for images in eval_batches(split, batch_size):
        missing = batch_size - len(images)  # the last batch keeps the compiled shape
        padded = np.pad(images, ((0, missing), (0, 0), (0, 0), (0, 0)))
        placed = place_batch(padded[first : first + share], mesh)
        encoded = encode(params, batch_stats, placed)
        features.append(np.asarray(encoded)[: len(images)])
    return np.concatenate(features)


def labelled_features(
    encode: Encode,
    params: Any,
    batch_stats: Any,
    train: Split,
    test: Split,
    *,
    batch_size: int,
    mesh: Mesh,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns training features and labels, then test features and labels.

    They are the leading arguments of `knn_accuracy` and `linear_probe`; the arguments
    here are those of `extract_features`.
    """
    of_train, of_test = (
        extract_features(
            encode, params, batch_stats, split, batch_size=batch_size, mesh=mesh
        )
        for split in (train, test)
    )
    return of_train, train.labels, of_test, test.labels


def _prepare(images: Array, config) -> Array:
    view = center_view(images, size=config.augment.size)
    return normalize(view, config.data.mean, config.data.std)
