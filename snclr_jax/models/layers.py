"""What more than one network uses: normalization, convolution and image patches."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax

# PyTorch's kaiming_normal_(mode="fan_out"), which torchvision uses: not truncated.
_he_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def he_conv(features: int, kernel: int, stride: int, dtype: Any, name: str) -> nn.Conv:
    """Returns a square convolution as torchvision's ResNets have it.

    Args:
      features: output channels.
      kernel: side of the window, odd; both sides are padded by kernel // 2.
      stride: in both directions.
      dtype: of the computation.
      name: the name in the parameter tree.

    Returns:
      An unbound Linen module.
    """
    # Padding "SAME" pads a strided convolution on the far side first; PyTorch pads
    # both sides alike, and published weights expect that.
    pad = kernel // 2
    return nn.Conv(
        features,
        (kernel, kernel),
        strides=(stride, stride),
        padding=((pad, pad), (pad, pad)),
        use_bias=False,
        kernel_init=_he_fan_out,
        dtype=dtype,
        name=name,
    )


def batch_norm(
    *,
    train: bool,
    dtype: Any,
    affine: bool = True,
    zero_scale: bool = False,
    name: str,
) -> nn.BatchNorm:
    """Returns batch normalization with the constants of every network here.

        y = scale * (x - mean) / sqrt(var + 1e-5) + bias

    The running statistics move by 0.1 of each batch's (PyTorch's ``momentum=0.1``
    is Flax's ``momentum=0.9``), with the biased variance where PyTorch stores the
    unbiased one. The reduction is over the whole batch axis: under ``jit`` that is
    the global batch, whatever its sharding.

    Args:
      train: normalize by the batch's statistics and update the running ones;
        otherwise normalize by the running ones.
      dtype: the type of the output; the statistics are at least float32.
      affine: learn a scale and a bias.
      zero_scale: start the scale at 0 instead of 1.
      name: the name in the parameter tree.

    Returns:
      An unbound Linen module.
    """
    # The one-pass variance E[x^2] - E[x]^2 cancels where the mean is many standard
    # deviations from zero, as in the first projector layer of a fresh ViT.
    return nn.BatchNorm(
        use_running_average=not train,
        momentum=0.9,
        epsilon=1e-5,
        dtype=dtype,
        use_scale=affine,
        use_bias=affine,
        scale_init=nn.initializers.zeros if zero_scale else nn.initializers.ones,
        use_fast_variance=False,
        name=name,
    )


def split_patches(images: jax.Array, patch_size: int) -> jax.Array:
    """Cuts images into a grid of non-overlapping square patches.

    Args:
      images: (b, h, w, c).
      patch_size: side of a patch in pixels, a divisor of h and of w.

    Returns:
      (b, h / patch_size, w / patch_size, patch_size * patch_size * c); inside a
      patch the order is row, column, channel.

    Raises:
      ValueError: if `patch_size` does not divide both sides of the image.
    """
    batch, height, width, channels = images.shape
    if height % patch_size or width % patch_size:
        fits = [
            size
            for size in range(2, min(height, width) + 1)
            if height % size == 0 and width % size == 0
        ]
        raise ValueError(
            f"model.patch_size {patch_size} does not divide the image "
            f"{height}x{width}; use one of {fits}, or resize the images"
        )
    rows, columns = height // patch_size, width // patch_size
    grid = images.reshape(batch, rows, patch_size, columns, patch_size, channels)
    return grid.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows, columns, -1)
