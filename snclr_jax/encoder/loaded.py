"""An encoder as a function of images: what `snclr_jax.load_encoder` returns."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict
from PIL import Image

from snclr_jax.data.decode import decode_image
from snclr_jax.data.form import Form
from snclr_jax.data.pixels import channels_given, pixels_of, to_square
from snclr_jax.devices.mesh import make_mesh
from snclr_jax.encoder.encode import Encode, make_encode
from snclr_jax.encoder.stored import Encoder, open_encoder

_AT_ONCE = 256  # images in one call of the network


class LoadedEncoder:
    """Maps images to features; compiled once for each number of images.

    Args:
      encoder: from `open_encoder`.
      mesh: the devices that it is on.

    Attributes:
      encoder: which it is: config, step, fingerprint.
    """

    def __init__(self, encoder: Encoder, mesh: Mesh) -> None:
        self.encoder = encoder
        model = encoder.model
        self._encode, self._dense, self._maps = (
            make_encode(method, encoder.config, mesh)
            for method in (model.encode, model.dense, model.maps)
        )

    def __call__(self, images: Any, *, dense: bool = False) -> np.ndarray:
        """Returns features, float32 (f,) of one image, (b, f) of several.

        Images are prepared as for the run's evaluation: the central square, resized
        (antialiased, bicubic) to `data.image_size`, and its middle.

        Args:
          images: one image, or several: a list of images of any sizes, or an array
            (b, h, w), (b, h, w, 1), (b, h, w, 3) or (b, h, w, 4), or (b, h, w, c) of
            a run on images of c channels. An image is the path of a file, or what
            `pixels_of` takes: an array, a PIL image, a tensor.
          dense: return features of every place instead, (rows, columns, f) of one
            image, (b, rows, columns, f) of several, which lie evenly over
            `views(images)`. Of a ResNet or patchnet their mean over rows and columns is
            the feature; of a ViT they are its patches, and the feature is that of its
            class token: see `Model.dense`.

        Raises:
          ValueError: where there is no image, or one that cannot be read; names it.
          OSError: where no file can be read now.
        """
        method = self._dense if dense else self._encode
        return self._of(images, functools.partial(self._apply, method))

    def maps(self, images: Any) -> dict[str, np.ndarray]:
        """Returns where the encoder looks, float32, see `Model.maps`.

        Args:
          images: as for features; one image has maps without the first axis.
        """
        return self._of(images, functools.partial(self._apply, self._maps))

    def views(self, images: Any) -> np.ndarray:
        """Returns what the encoder sees of images, uint8 (v, v, c) or (b, v, v, c)."""
        size = self.encoder.config.augment.size
        first = (self.encoder.config.data.image_size - size) // 2
        middle = slice(first, first + size)
        return self._of(images, lambda squares: squares[:, middle, middle])

    def _of(self, images: Any, function: Callable[[np.ndarray], Any]) -> Any:
        """Returns arrays of one image, or of several, some at a time."""
        config = self.encoder.config
        if _is_one(images, channels_given(Form.of(config.data))):
            squares = read_squares([images], ["the image"], config)
            return jax.tree.map(lambda array: array[0], function(squares))
        if not len(images):
            raise ValueError("images are empty; give one image, or a list of them")
        names = [f"image {number}" for number in range(len(images))]
        parts = [slice(i, i + _AT_ONCE) for i in range(0, len(images), _AT_ONCE)]
        arrays = [
            function(read_squares(images[part], names[part], config)) for part in parts
        ]
        return jax.tree.map(lambda *parts: np.concatenate(parts), *arrays)

    def _apply(self, method: Encode, squares: np.ndarray) -> Any:
        arrays = method(self.encoder.params, self.encoder.batch_stats, squares)
        return jax.tree.map(lambda array: np.asarray(array, np.float32), arrays)


def load(path: str | Path, *, network: str | None = None) -> LoadedEncoder:
    """Returns the encoder at a path on the first device, see `open_encoder`."""
    mesh = make_mesh(jax.local_devices()[:1])
    return LoadedEncoder(open_encoder(path, network=network, mesh=mesh), mesh)


def read_squares(
    images: Sequence[Any], names: Sequence[str], config: ConfigDict
) -> np.ndarray:
    """Returns uint8 (b, s, s, c), as an evaluation of the run reads the images.

    Args:
      images: see `LoadedEncoder`.
      names: what to call them in an error.
      config: the run's.

    Raises:
      ValueError: for one that cannot be read.
      OSError: where no file can be read now.
    """
    side, form = config.data.image_size, Form.of(config.data)
    return np.stack(
        [_square(*each, side, form) for each in zip(images, names, strict=True)]
    )


def _is_one(images: Any, channels: tuple[int, ...]) -> bool:
    """Whether what is given is one image, of so many channels, not several."""
    if isinstance(images, str | os.PathLike | Image.Image):
        return True
    if isinstance(images, list | tuple):
        return False
    if not hasattr(images, "shape"):
        raise ValueError(
            f"images are a {type(images).__name__}; give the path of a file, an array, "
            "a PIL image, or a list of these"
        )
    shape = images.shape
    if len(shape) != 3:
        return len(shape) == 2
    # Of three axes, one of channels tells an image from several grey ones.
    return shape[-1] in channels or (hasattr(images, "numpy") and shape[0] in channels)


def _square(image: Any, name: str, side: int, form: Form) -> np.ndarray:
    """Returns uint8 (s, s, c), as an evaluation reads the image."""
    if not isinstance(image, str | os.PathLike):
        return to_square(pixels_of(image, name, form), side)
    path = os.fspath(image)
    if os.path.isdir(path):
        raise ValueError(
            f"{name} is the folder {path}; give the files in it, such as "
            f"sorted(pathlib.Path({path!r}).glob('*.jpg'))"
        )
    if not os.path.exists(path):
        raise ValueError(f"{name}: there is no file {path}; check its path")
    return decode_image(path, side, name=path, form=form)
