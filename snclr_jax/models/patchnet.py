"""A small encoder that learns small images on a CPU within minutes."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from snclr_jax.models.convolution import convolution
from snclr_jax.models.layers import BatchNorm, sow_map, split_patches

WIDTH = 48
DEPTH = 1
CONTRAST_FLOOR = 1e-3  # of an image's mean square: where it is flat, noise stays small


def gaussian(size: int, sigma: float) -> jax.Array:
    """Returns the (size, size) product that blurs a side; every row sums to 1.

    Args:
      size: of the side, in pixels.
      sigma: of the Gaussian, in pixels.
    """
    distance = jnp.arange(size)[:, None] - jnp.arange(size)
    kernel = jnp.exp(-0.5 * (distance / sigma) ** 2)
    return kernel / kernel.sum(axis=1, keepdims=True)


def local_contrast(images: jax.Array, sigma: float) -> jax.Array:
    """Removes the local mean of each channel, then the image's contrast.

        x = (x - G x) / sqrt(mean((x - G x)^2) + 1e-3)

    with a Gaussian G (local contrast normalization: Jarrett et al., 2009, "What is the
    best multi-stage architecture for object recognition?", with one divisor per image).
    What a smooth ground or the light looks like then no longer tells images apart, and
    an encoder has to look at shapes from the first step on.

    Args:
      images: (..., h, w, c).
      sigma: of the Gaussian, in pixels.

    Returns:
      (..., h, w, c).
    """
    rows, columns = (
        gaussian(size, sigma).astype(images.dtype) for size in images.shape[-3:-1]
    )
    x = images - jnp.einsum("hi,...ijc,wj->...hwc", rows, images, columns)
    power = jnp.mean(x * x, axis=(-3, -2, -1), keepdims=True)
    return x * jax.lax.rsqrt(power + CONTRAST_FLOOR)


class PatchNet(nn.Module):
    """Residual 3x3 convolutions on a grid of patches, then on a grid half as fine.

        x = ReLU(BN(W patch));   x = x + ReLU(BN(conv(x)))

    The work is wide products over few positions, which a CPU does well: the patch grid
    of a 32-pixel image has 64 positions where a ResNet's first stage has 1024. Patches
    overlap by half; four positions of the first grid are joined into one of the second,
    which has twice the channels. The feature is the second grid's mean, so where a
    thing is in the image matters little.

    Attributes:
      width: channels on the first grid; the feature has twice as many.
      depth: residual convolutions on each grid.
      patch_size: distance of the patches, in pixels; each is twice as wide.
      bn_scope: consecutive images that share statistics; see `BatchNorm`.
      dtype: of the computation.
    """

    width: int
    depth: int
    patch_size: int
    bn_scope: int | None
    dtype: Any

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Maps images (..., h, w, c) to (..., f).

        Sows the mean of the first grid, "fine", where intermediates are asked for.
        """
        mean = functools.partial(
            jnp.mean, axis=(-3, -2), dtype=jnp.promote_types(self.dtype, jnp.float32)
        )
        height, width = images.shape[-3:-1]
        unit = 2 * self.patch_size
        if height % unit or width % unit:
            raise ValueError(
                f"model.patch_size {self.patch_size} does not fit images of "
                f"{height}x{width}: patchnet needs sides that are multiples of {unit}"
            )

        def normalize(x: jax.Array, name: str) -> jax.Array:
            return nn.relu(BatchNorm(train, self.bn_scope, self.dtype, name=name)(x))

        def conv(x: jax.Array, features: int, kernel: int, name: str) -> jax.Array:
            stride = self.patch_size if name == "stem" else 1
            return nn.Conv(
                features,
                (kernel, kernel),
                strides=(stride, stride),
                padding="SAME",
                use_bias=False,
                conv_general_dilated=convolution,
                dtype=self.dtype,
                name=name,
            )(x)

        fine, coarse = self.width, 2 * self.width
        x = local_contrast(images, float(self.patch_size)).astype(self.dtype)
        x = normalize(conv(x, fine, unit, "stem"), "stem_bn")
        for i in range(self.depth):
            x = x + normalize(conv(x, fine, 3, f"fine_{i}"), f"fine_bn_{i}")
        if self.is_mutable_collection("intermediates"):
            self.sow("intermediates", "fine", mean(x))
        x = nn.Dense(coarse, use_bias=False, dtype=self.dtype, name="join")(
            split_patches(x, 2)
        )
        x = normalize(x, "join_bn")
        for i in range(self.depth):
            x = x + normalize(conv(x, coarse, 3, f"coarse_{i}"), f"coarse_bn_{i}")
        sow_map(self, "dense", lambda: x)
        return mean(x)
