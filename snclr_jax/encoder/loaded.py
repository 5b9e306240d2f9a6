"""An encoder as a function of images: what `snclr_jax.load_encoder` returns."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np
from PIL import Image, ImageOps

from snclr_jax.devices.mesh import make_mesh
from snclr_jax.encoder.encode import make_encode
from snclr_jax.encoder.stored import open_encoder

_AT_ONCE = 256  # images in one call of the network


class LoadedEncoder:
    """Maps images to features; compiled once for each number of images.

    Args:
      path: a workdir, a checkpoint in it, or an exported file.
      network: see `open_encoder`.

    Attributes:
      encoder: which it is: config, step, fingerprint.
    """

    def __init__(self, path: str | Path, *, network: str | None = None) -> None:
        mesh = make_mesh(jax.local_devices()[:1])
        encoder = open_encoder(path, network=network, mesh=mesh)
        self.encoder = encoder
        self._encode = make_encode(encoder.model.encode, encoder.config, mesh)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Returns features, float32 (f,) of one image, (b, f) of several.

        Images are prepared as for the run's evaluation: the central square, resized
        (antialiased, bicubic) to `data.image_size`, and its middle.

        Args:
          images: uint8 (h, w, 3) or (b, h, w, 3), RGB, of any height and width.

        Raises:
          ValueError: for another type or shape.
        """
        images = np.asarray(images)
        if images.dtype != np.uint8:
            raise ValueError(
                f"images are {images.dtype}, not uint8 from 0 to 255; of floats in "
                "[0, 1] pass np.uint8(np.round(255 * images))"
            )
        if images.ndim not in (3, 4) or images.shape[-1] != 3 or not images.size:
            raise ValueError(
                f"images have the shape {images.shape}, not (h, w, 3) or (b, h, w, 3): "
                "RGB, channels last; of grey ones pass np.stack([images] * 3, axis=-1)"
            )
        batch = images if images.ndim == 4 else images[None]
        parts = [
            self._features(batch[start : start + _AT_ONCE])
            for start in range(0, len(batch), _AT_ONCE)
        ]
        features = np.concatenate(parts)
        return features if images.ndim == 4 else features[0]

    def _features(self, images: np.ndarray) -> np.ndarray:
        encoder = self.encoder
        side = encoder.config.data.image_size
        squares = np.stack([central_square(image, side) for image in images])
        features = self._encode(encoder.params, encoder.batch_stats, squares)
        return np.asarray(features, np.float32)


def central_square(image: np.ndarray, side: int) -> np.ndarray:
    """Returns the central square, resized as where files are decoded.

    Args:
      image: uint8 (h, w, 3).
      side: s, in pixels.

    Returns:
      uint8 (s, s, 3), what `decode_image` makes of the image as a PNG.
    """
    square = (side, side)
    return np.asarray(
        ImageOps.fit(Image.fromarray(image), square, Image.Resampling.BICUBIC)
    )
