"""What more than one network uses: normalization, stochastic depth, convolution."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from snclr_jax.models.convolution import convolution

MAPS = "maps"  # Linen's collection of what `Model.maps` and `Model.dense` read

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
        conv_general_dilated=convolution,
        dtype=dtype,
        name=name,
    )


class BatchNorm(nn.Module):
    """Batch normalization (Ioffe and Szegedy, 2015), with every network's constants.

        y = scale * (x - mean) / sqrt(var + 1e-5) + bias

    Mean and variance are those of a group: all pixels of one view of `bn_scope`
    consecutive images of the global batch. The groups are positions in the batch, not
    on devices, so the result is the same however the batch is sharded, and only single
    numbers per image and channel ever cross devices. The running statistics move by 0.1
    (PyTorch's ``momentum``) for each view in turn, towards the mean over groups of each
    group's mean and unbiased variance. As in PyTorch, which exported encoders are
    loaded into, training normalizes by the biased variance, and the running one holds
    n / (n - 1) times it, of the n pixels of a group; of a single one it is 0.

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
        """Normalizes for each channel c, in training (b, v, ..., c), else (..., c).

        Raises:
          ValueError: if b is not a multiple of `bn_scope`.
        """
        channels = x.shape[-1:]
        stored = functools.partial(self.variable, "batch_stats")
        running_mean = stored("mean", jnp.zeros, channels, jnp.float32)
        running_var = stored("var", jnp.ones, channels, jnp.float32)
        if self.affine:
            start = nn.initializers.zeros if self.zero_scale else nn.initializers.ones
            scale = self.param("scale", start, channels, jnp.float32)
            bias = self.param("bias", nn.initializers.zeros, channels, jnp.float32)
        else:
            scale = jnp.ones(channels, jnp.float32)
            bias = jnp.zeros(channels, jnp.float32)
        if not self.train:
            factor = scale * jax.lax.rsqrt(running_var.value + 1e-5)
            return ((x - running_mean.value) * factor + bias).astype(self.dtype)

        # Initialization looks at a single image.
        batch = x.shape[0]
        size = batch if self.is_initializing() else self.bn_scope or batch
        if batch % size:
            raise ValueError(
                f"model.bn_scope {size} does not divide a batch of {batch} images; use "
                "a divisor, or None for statistics of the whole batch"
            )
        # jax.custom_vjp loses what its function returns, to a type checker.
        normalized: Any = batch_normalize(x, scale, bias, size, self.dtype)
        y, mean, var = normalized
        if not self.is_initializing():
            of_group = x.size // mean.size
            unbiased = var * (of_group / max(of_group - 1, 1))
            for running, groups in ((running_mean, mean), (running_var, unbiased)):
                for view in groups.mean(axis=0):
                    running.value = 0.9 * running.value + 0.1 * view
        return y


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def batch_normalize(
    x: jax.Array, scale: jax.Array, bias: jax.Array, size: int, dtype: Any
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Normalizes each view of each `size` consecutive images by its own statistics.

    With n = (x - mean) / sqrt(var + 1e-5) and E the mean over a group, the gradient is

        dx = scale / sqrt(var + 1e-5) * (dy - E[dy] - n E[n dy])

    from two sums, which one pass makes and which cross the devices together; JAX's own
    derivative needs one after the other, and reads x once more. Forward, one pass makes
    the mean and the variance.

    Args:
      x: (b, v, ..., c), v views of b images.
      scale, bias: (c,).
      size: a divisor of b.
      dtype: of y.

    Returns:
      y of the shape of x, and the mean and variance of each group, (b / size, v, c):
      no gradient flows through these.
    """
    return _normalize(x, scale, bias, size, dtype)


# Of many layers, equal shapes are traced and lowered once: of ResNet-50's step, a
# third of the program.
@functools.partial(jax.jit, static_argnums=(3, 4))
def _normalize(x, scale, bias, size, dtype):
    mean, var = _moments(x, size)
    factor = _per_image(scale * _inverse(var), x)
    return ((x - _per_image(mean, x)) * factor + bias).astype(dtype), mean, var


def _normalize_and_keep(x, scale, bias, size, dtype):
    y, mean, var = _normalize(x, scale, bias, size, dtype)
    return (y, mean, var), (x, scale, mean, var)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _normalize_backward(size, dtype, kept, gradients):
    del dtype
    x, scale, mean, var = kept
    inverse = _inverse(var)
    dy = gradients[0].astype(mean.dtype)
    normal = (x - _per_image(mean, x)) * _per_image(inverse, x)
    pixels = tuple(range(2, x.ndim - 1))
    dy_mean, normal_dy_mean = (
        _group_mean(gradient.mean(axis=pixels), size) for gradient in (dy, normal * dy)
    )
    centered = dy - _per_image(dy_mean, x) - normal * _per_image(normal_dy_mean, x)
    dx = (centered * _per_image(scale * inverse, x)).astype(x.dtype)
    of_group = x.size // dy_mean.size
    dscale, dbias = (
        (of_group * mean.sum(axis=(0, 1))).astype(scale.dtype)
        for mean in (normal_dy_mean, dy_mean)
    )
    return dx, dscale, dbias


batch_normalize.defvjp(_normalize_and_keep, _normalize_backward)


def _moments(x: jax.Array, size: int) -> tuple[jax.Array, jax.Array]:
    """Returns mean and variance of each group of x (b, v, ..., c): (b / size, v, c)."""
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    pixels = tuple(range(2, x.ndim - 1))
    # E[x^2] - E[x]^2 cancels where the mean is many standard deviations from zero, as
    # in the first projector layer of a fresh ViT. So inside an image, it is taken of
    # the distance to a pixel of it, and between images the definition is used.
    origin = x[(slice(None), slice(None), *(slice(0, 1) for _ in pixels))]
    distance = x - origin
    mean = distance.mean(axis=pixels)
    inside = jnp.maximum((distance * distance).mean(axis=pixels) - mean * mean, 0.0)
    mean = mean + origin.squeeze(pixels)
    # Pixels first: what is regrouped, and may have to move, is small.
    groups = _group_mean(mean, size)
    between = mean - _per_image(groups, mean)
    return groups, _group_mean(inside + between * between, size)


def _inverse(var: jax.Array) -> jax.Array:
    return jax.lax.rsqrt(var + 1e-5)


def _group_mean(images: jax.Array, size: int) -> jax.Array:
    """Returns the means (b / size, ...) of `size` consecutive entries of (b, ...)."""
    return images.reshape(-1, size, *images.shape[1:]).mean(axis=1)


def _per_image(groups: jax.Array, x: jax.Array) -> jax.Array:
    """Repeats (groups, v, c) for the images of each: (b, v, 1, ..., c), to meet x."""
    images = jnp.repeat(groups, x.shape[0] // groups.shape[0], axis=0)
    return jnp.expand_dims(images, tuple(range(2, x.ndim - 1)))


def sow_map(module: nn.Module, name: str, make: Callable[[], jax.Array]) -> None:
    """Keeps a map where one is asked for; else nothing is computed."""
    if module.is_mutable_collection(MAPS) and not module.is_initializing():
        module.sow(MAPS, name, make())


def activation(x: jax.Array) -> jax.Array:
    """Returns the length of the features at each position, float32 (..., h, w)."""
    return jnp.linalg.norm(x.astype(jnp.float32), axis=-1)


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
      keys: (...), one PRNG key per image, or per view of each.
      rate: of the last block, in [0, 1).
      blocks: residual blocks of the network.
      branches: residual branches of each block.

    Returns:
      (blocks, branches, ...): 0, or the inverse of the probability of being kept.
    """
    keep = 1 - jnp.linspace(0.0, rate, blocks)

    def draw(number: jax.Array, keep: jax.Array) -> jax.Array:
        own = jax.vmap(jax.random.fold_in, (0, None))(keys.reshape(-1), number)
        kept = jax.vmap(lambda key: jax.random.bernoulli(key, keep, (branches,)))(own)
        return jnp.where(kept.T, 1 / keep, 0.0).reshape(branches, *keys.shape)

    return jax.vmap(draw)(jnp.arange(blocks), keep)


def scale_branch(y: jax.Array, scale: jax.Array | None) -> jax.Array:
    """Multiplies y by one number for each of its leading entries; None leaves it."""
    if scale is None:
        return y
    # In float32: bfloat16 would round the inverse probability.
    scale = jnp.expand_dims(scale, tuple(range(scale.ndim, y.ndim)))
    return (y * scale).astype(y.dtype)


def split_patches(images: jax.Array, patch_size: int) -> jax.Array:
    """Cuts images into a grid of non-overlapping square patches.

    Args:
      images: (..., h, w, c).
      patch_size: side of a patch in pixels, a divisor of h and of w.

    Returns:
      (..., h / patch_size, w / patch_size, patch_size * patch_size * c); inside a
      patch the order is row, column, channel.

    Raises:
      ValueError: if `patch_size` does not divide both sides of the image.
    """
    *leading, height, width, channels = images.shape
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
    grid = images.reshape(*leading, rows, patch_size, columns, patch_size, channels)
    return grid.swapaxes(-3, -4).reshape(*leading, rows, columns, -1)
