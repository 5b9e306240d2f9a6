"""What more than one network uses: normalization, stochastic depth, convolution."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

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


class BatchNorm(nn.Module):
    """Batch normalization (Ioffe and Szegedy, 2015), with every network's constants.

        y = scale * (x - mean) / sqrt(var + 1e-5) + bias

    Mean and variance are those of a group: all pixels of `bn_scope` consecutive images
    of the global batch. The groups are places in the batch, not on devices, so the
    result is the same however the batch is sharded, and only single numbers per image
    and channel ever cross devices. The running statistics move by 0.1 (PyTorch's
    ``momentum``) of the mean over groups of each group's mean and variance, with the
    biased variance where PyTorch stores the unbiased one.

    Attributes:
      train: normalize by the batch's statistics and update the running ones;
        otherwise normalize by the running ones.
      bn_scope: consecutive images that share statistics; None is the whole batch.
      dtype: the type of the output; the statistics are at least float32.
      affine: learn a scale and a bias.
      zero_scale: start the scale at 0 instead of 1.
    """

    train: bool
    bn_scope: int | None
    dtype: Any
    affine: bool = True
    zero_scale: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalizes (b, ..., c) for each channel c.

        Raises:
          ValueError: if b is not a multiple of `bn_scope`.
        """
        channels = x.shape[-1:]
        stored = functools.partial(self.variable, "batch_stats")
        running_mean = stored("mean", jnp.zeros, channels, jnp.float32)
        running_var = stored("var", jnp.ones, channels, jnp.float32)
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        mean = self._group_mean(x) if self.train else running_mean.value[None]
        centered = x - self._per_image(mean, x)
        # The one-pass variance E[x^2] - E[x]^2 cancels where the mean is many standard
        # deviations from zero, as in the first projector layer of a fresh ViT.
        square = centered * centered
        var = self._group_mean(square) if self.train else running_var.value[None]
        if self.train and not self.is_initializing():
            for running, groups in ((running_mean, mean), (running_var, var)):
                running.value = 0.9 * running.value + 0.1 * groups.mean(axis=0)

        factor = jax.lax.rsqrt(var + 1e-5)
        if self.affine:
            start = nn.initializers.zeros if self.zero_scale else nn.initializers.ones
            factor = factor * self.param("scale", start, channels, jnp.float32)
        y = centered * self._per_image(factor, x)
        if self.affine:
            zeros = nn.initializers.zeros
            y = y + self.param("bias", zeros, channels, jnp.float32)
        return y.astype(self.dtype)

    def _group_mean(self, x: jax.Array) -> jax.Array:
        """Returns the means (groups, c) of x (b, ..., c)."""
        batch, channels = x.shape[0], x.shape[-1]
        # Initialization looks at a single image.
        size = batch if self.is_initializing() else self.bn_scope or batch
        if batch % size:
            raise ValueError(
                f"model.bn_scope {size} does not divide a batch of {batch} images; use "
                "a divisor, or None for statistics of the whole batch"
            )
        # Pixels first: what is regrouped, and may have to move, is small.
        images = x.mean(axis=tuple(range(1, x.ndim - 1)))
        return images.reshape(batch // size, size, channels).mean(axis=1)

    @staticmethod
    def _per_image(groups: jax.Array, x: jax.Array) -> jax.Array:
        """Repeats (groups, c) for the images of each group: (b, 1, ..., c)."""
        batch, channels = x.shape[0], x.shape[-1]
        images = jnp.repeat(groups, batch // groups.shape[0], axis=0)
        return images.reshape(batch, *(1,) * (x.ndim - 2), channels)


def branch_scales(
    keys: jax.Array, rate: float, *, blocks: int, branches: int
) -> jax.Array:
    """Draws stochastic depth: what each image's residual branches are multiplied by.

    Branch r of block l is dropped with probability ``rate * l / (blocks - 1)``, else
    divided by the probability of being kept, so that its expectation stays (Huang et
    al., 2016, "Deep networks with stochastic depth", section 3; they draw for a whole
    batch and scale at test time, and number blocks from 1). Each draw is a function of
    the image's key, l and r alone.

    Args:
      keys: (b,), one PRNG key per image.
      rate: of the last block, in [0, 1).
      blocks: residual blocks of the network.
      branches: residual branches of each block.

    Returns:
      (blocks, branches, b): 0, or the inverse of the probability of being kept.
    """
    keep = 1 - jnp.linspace(0.0, rate, blocks)

    def draw(number: jax.Array, keep: jax.Array) -> jax.Array:
        own = jax.vmap(jax.random.fold_in, (0, None))(keys, number)
        kept = jax.vmap(lambda key: jax.random.bernoulli(key, keep, (branches,)))(own)
        return jnp.where(kept.T, 1 / keep, 0.0)

    return jax.vmap(draw)(jnp.arange(blocks), keep)


def scale_branch(y: jax.Array, scale: jax.Array | None) -> jax.Array:
    """Multiplies y (b, ...) by one number per image (b,); None leaves it alone."""
    if scale is None:
        return y
    # In float32: bfloat16 would round the inverse probability.
    return (y * scale.reshape(-1, *(1,) * (y.ndim - 1))).astype(y.dtype)


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
