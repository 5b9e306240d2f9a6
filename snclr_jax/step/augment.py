"""Random views of images, computed on the device inside the compiled step.

Crop, flip, colour jitter, grayscale, blur, solarize: the transforms and the order of
BYOL (Grill et al. 2020, appendix B) and MoCo v3, with torchvision's ranges. A view
depends on the image and its key alone, never on the batch around it. Inside this file
an image is planar, "c h w", so that every resampling is a product of matrices.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from snclr_jax.step.channels import COLOR

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as in Pillow and torchvision
_CROP_ATTEMPTS = 10  # torchvision's RandomResizedCrop
_SOLARIZE_THRESHOLD = 0.5  # BYOL, appendix B


def view_settings(augment: Any) -> tuple[tuple[int, Any], ...]:
    """Returns (size in pixels, settings) of every view of an image, global ones first.

    Args:
      augment: `config.augment`. Global views follow `view1` and `view2` in turn.
    """
    pair = (augment.view1, augment.view2)
    whole = [(augment.size, pair[i % 2]) for i in range(augment.global_views)]
    return (*whole, *[(augment.local_size, augment.local)] * augment.local_views)


def augment_batch(
    keys: Array, images: Array, *, size: int | None, settings: Any
) -> Array:
    """Draws one random view of every image: `random_view` over the batch.

    Args:
      keys: PRNG keys "b", one per image.
      images: "b h w c", and `size`, `settings`: as in `random_view`.

    Returns:
      float32 "b size size c" in [0, 1], not yet normalised.

    Raises:
      ValueError: if colors are to change, and the images are not RGB.
    """

    def view(key: Array, image: Array) -> Array:
        return random_view(key, image, size=size, settings=settings)

    return jax.vmap(view)(keys, images)


def random_view(key: Array, image: Array, *, size: int | None, settings: Any) -> Array:
    """Draws one random view of one image.

    A transform whose probability is exactly 0, and a colour operation of strength 0,
    are left out of the compiled program. The random numbers of one transform do not
    depend on which others are in use. Of images that are not RGB, contrast is that
    around the mean of all channels.

    Args:
      key: one PRNG key.
      image: "h w c", uint8 in [0, 255] or floating point in [0, 1].
      size: height and width of the view, in pixels; None where the image is a random
        crop already and keeps its size.
      settings: any object with these attributes:
        `crop_scale`, `crop_ratio`: ranges of the crop's share of the area and of its
        width / height; a scale of (1, 1) leaves a "size size 3" image uncropped;
        `flip`, `jitter`, `grayscale`, `blur`, `solarize`: probabilities;
        `brightness`, `contrast`, `saturation`: strengths s, the factor is uniform in
        [max(0, 1 - s), 1 + s];
        `hue`: at most 0.5, the shift is uniform in [-hue, hue] turns;
        `blur_sigma`: range of the Gaussian's standard deviation, in pixels.

    Returns:
      float32 "size size c" in [0, 1].

    Raises:
      ValueError: if saturation, hue or grayscale are in use and the image is not RGB.
    """
    of_color = settings.grayscale > 0
    if settings.jitter > 0:
        of_color |= settings.saturation > 0 or settings.hue > 0
    if image.ndim != 3 or (of_color and image.shape[-1] != COLOR):
        raise ValueError(
            f"colors change in RGB images of shape (h, w, 3), got {image.shape}; set "
            "saturation, hue and grayscale of the views to 0"
        )
    crop, flip, jitter, grayscale, blur, solarize = _draws(key)
    pixels = _crop_and_flip(crop, flip, _unit_range(image), size, settings)
    if settings.jitter > 0:
        pixels = _jitter(jitter, pixels, settings)
    if settings.grayscale > 0:
        drop = grayscale < settings.grayscale
        pixels = jnp.where(drop, _gray(pixels), pixels)
    if settings.blur > 0:
        pixels = _blur(blur, pixels, settings)
    if settings.solarize > 0:
        bright = pixels >= _SOLARIZE_THRESHOLD
        invert = bright & (solarize < settings.solarize)
        pixels = jnp.where(invert, 1.0 - pixels, pixels)
    return jnp.moveaxis(pixels, 0, -1).astype(jnp.float32)


def center_view(images: Array, *, size: int) -> Array:
    """Cuts the middle out of every image, for evaluation; nothing is resized.

    Args:
      images: "b h w c", uint8 in [0, 255] or floating point in [0, 1].
      size: height and width of the views, in pixels.

    Returns:
      float32 "b size size c" in [0, 1].

    Raises:
      ValueError: if the images are smaller than `size`.
    """
    height, width = images.shape[1:3]
    if min(height, width) < size:
        raise ValueError(
            f"center_view cannot cut {size} x {size} pixels out of images of "
            f"{height} x {width}; resize them when they are read, or lower size"
        )
    top, left = (height - size) // 2, (width - size) // 2
    return _unit_range(images[:, top : top + size, left : left + size])


def normalize(images: Array, mean: Sequence[float], std: Sequence[float]) -> Array:
    """Standardises every channel of "... c" images in [0, 1]: (x - mean) / std.

    `mean` and `std` hold one value per channel, on the scale of [0, 1].

    Raises:
      ValueError: where they are of another number of channels.
    """
    channels = images.shape[-1]
    if not len(mean) == len(std) == channels:
        raise ValueError(
            f"images of {channels} channels do not fit {len(mean)} values of data.mean "
            f"and {len(std)} of data.std; give one for each channel"
        )
    return (images - jnp.asarray(mean)) / jnp.asarray(std)


def _unit_range(image: Array) -> Array:
    scale = 255.0 if jnp.issubdtype(image.dtype, jnp.integer) else 1.0
    return jnp.asarray(image, jnp.float32) / scale


def _draws(key: Array) -> list[Array]:
    """Returns the uniform draws in [0, 1) of each transform, in their order.

    One call draws them all: every call of the generator takes XLA about as long to
    compile as a whole transform.
    """
    counts = [2 * _CROP_ATTEMPTS + 2, 1, 9, 1, 2, 1]
    ends = list(itertools.accumulate(counts))
    return jnp.split(jax.random.uniform(key, ends[-1:]), ends[:-1])


def _between(draw: Array, low: Array | float, high: Array | float) -> Array:
    """Moves a uniform draw in [0, 1) to [low, high)."""
    return low + (high - low) * draw


def _crop_and_flip(
    draws: Array, flip_draw: Array, image: Array, size: int | None, settings: Any
) -> Array:
    """Random resized crop and flip, two matrix products: "h w c" -> "c size size"."""
    height, width, _ = image.shape
    pixels = jnp.moveaxis(image, -1, 0)
    flip = settings.flip > 0 and flip_draw < settings.flip
    low, high = settings.crop_ratio
    whole = tuple(settings.crop_scale) == (1, 1) and low <= 1 <= high
    if size is None or (whole and height == width == size):
        return jnp.where(flip, pixels[..., ::-1], pixels)
    top, left, box_height, box_width = _crop_box(draws, height, width, settings)
    rows = _interpolation(top, box_height, height, size)
    columns = _interpolation(left, box_width, width, size)
    return _separable(rows, pixels, jnp.where(flip, columns[::-1], columns))


def _crop_box(
    draws: Array, height: int, width: int, settings: Any
) -> tuple[Array, Array, Array, Array]:
    """Returns (top, left, height, width) of a crop, in whole pixels as torchvision.

    The share of the area and the logarithm of width / height are uniform in their
    ranges; of ten draws the first that fits counts. Where none does, the crop is the
    largest one in the middle that keeps to `crop_ratio`.
    """
    area, ratio, position = jnp.split(draws, [_CROP_ATTEMPTS, 2 * _CROP_ATTEMPTS])
    low, high = settings.crop_ratio
    area = height * width * _between(area, *settings.crop_scale)
    ratio = jnp.exp(_between(ratio, math.log(low), math.log(high)))
    widths = jnp.round(jnp.sqrt(area * ratio)).astype(jnp.int32)
    heights = jnp.round(jnp.sqrt(area / ratio)).astype(jnp.int32)
    fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
    first, any_fits = jnp.argmax(fits), fits.any()
    middle_height = min(height, round(width / low))
    middle_width = min(width, round(height * high))
    box_height = jnp.where(any_fits, heights[first], middle_height)
    box_width = jnp.where(any_fits, widths[first], middle_width)
    position = jnp.where(any_fits, position, 0.5)
    top = jnp.floor(position[0] * (height - box_height + 1))
    left = jnp.floor(position[1] * (width - box_width + 1))
    return top, left, box_height, box_width


def _interpolation(start: Array, length: Array, source: int, target: int) -> Array:
    """Matrix "target source" that crops [start, start + length) and resizes it.

    Row i is max(0, 1 - |j + 1/2 - center_i| / max(1, length / target)) over the pixels
    j of the crop, divided by its sum: bilinear when the crop grows, antialiased when it
    shrinks, as Pillow's BILINEAR.
    """
    step = length / target
    center = start + (jnp.arange(target) + 0.5) * step
    pixel = jnp.arange(source)
    distance = jnp.abs(pixel + 0.5 - center[:, None])
    weight = jnp.maximum(0.0, 1.0 - distance / jnp.maximum(step, 1.0))
    weight = jnp.where((pixel >= start) & (pixel < start + length), weight, 0.0)
    return weight / weight.sum(axis=1, keepdims=True)


def _separable(rows: Array, pixels: Array, columns: Array) -> Array:
    """rows @ channel @ columns^T for every channel."""
    exact = jax.lax.Precision.HIGHEST
    return jnp.einsum("ih,chw,jw->cij", rows, pixels, columns, precision=exact)


def _gray(pixels: Array) -> Array:
    if len(pixels) != COLOR:
        return pixels.mean(axis=0, keepdims=True)
    red, green, blue = pixels
    return (_LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue)[None]


def _jitter(draws: Array, pixels: Array, settings: Any) -> Array:
    """Brightness, contrast, saturation and hue in random order, as in torchvision.

    With a factor a the first three are one expression with different coefficients,
    clip(a x + (1 - a) o), where o is 0, the mean of gray(x), or gray(x). Any order is
    therefore these affine steps, the hue, and these affine steps again, each of them
    the identity on one side of the hue: the order differs from image to image, yet no
    step is computed once for every operation that it might be.
    """
    # Sorting one random number per operation makes every order equally likely.
    rank, factor, shift, apply = jnp.split(draws, [4, 7, 8])
    strengths = (settings.brightness, settings.contrast, settings.saturation)
    low = jnp.asarray([max(0.0, 1.0 - s) for s in strengths])
    high = jnp.asarray([1.0 + s for s in strengths])
    factor = _between(factor, low, high)
    used = jnp.asarray([i for i, s in enumerate(strengths) if s > 0], jnp.int32)
    order = used[jnp.argsort(rank[used])]

    def affine_steps(x: Array, active: Array) -> Array:
        for step in range(order.size):
            a = jnp.where(active[step], factor[order[step]], 1.0)
            gray = _gray(x)
            other = (order[step] == 1) * gray.mean() + (order[step] == 2) * gray
            x = jnp.clip(a * x + (1.0 - a) * other, 0.0, 1.0)
        return x

    if settings.hue > 0:
        before = rank[order] < rank[3]
        shift = _between(shift, -settings.hue, settings.hue)
        jittered = _shift_hue(affine_steps(pixels, before), shift)
        jittered = affine_steps(jittered, ~before)
    else:
        jittered = affine_steps(pixels, jnp.full(order.shape, True))
    return jnp.where(apply < settings.jitter, jittered, pixels)


def _shift_hue(pixels: Array, shift: Array) -> Array:
    """Turns the hue by `shift` turns in the HSV hexcone (Smith 1978)."""
    red, green, blue = pixels
    value = pixels.max(axis=0)
    chroma = value - pixels.min(axis=0)
    divisor = jnp.where(chroma > 0, chroma, 1.0)
    # Never `value == red`: the compiler may compute red twice and round it differently,
    # and then no channel is the largest. Two orders of nearly equal ones do no harm.
    sixths = jnp.select(
        [(red >= green) & (red >= blue), green >= blue],
        [(green - blue) / divisor, 2.0 + (blue - red) / divisor],
        4.0 + (red - green) / divisor,
    )
    hue = sixths / 6.0 + shift
    hue = 6.0 * (hue - jnp.floor(hue))
    closeness = [abs(hue - 3.0) - 1.0, 2.0 - abs(hue - 2.0), 2.0 - abs(hue - 4.0)]
    return value - chroma * (1.0 - jnp.clip(jnp.stack(closeness), 0.0, 1.0))


def _blur(draws: Array, pixels: Array, settings: Any) -> Array:
    """Gaussian blur as two banded matrix products."""
    apply, sigma = draws
    size = pixels.shape[-1]
    matrix = _gaussian(_between(sigma, *settings.blur_sigma), size)
    matrix = jnp.where(apply < settings.blur, matrix, jnp.eye(size))
    return _separable(matrix, pixels, matrix)


def _gaussian(sigma: Array, size: int) -> Array:
    """Matrix "size size" whose row i is exp(-(i - j)^2 / (2 sigma^2)), with sum 1.

    Beyond the borders the image is its mirror image about the outermost pixel. The
    kernel ends where that mirror image would, which cuts it only when sigma is large
    against the image.
    """
    j = jnp.arange(size)
    i = j[:, None]

    def kernel(distance: Array) -> Array:
        weight = jnp.exp(-0.5 * (distance / sigma) ** 2)
        return jnp.where(jnp.abs(distance) < size, weight, 0.0)

    matrix = kernel(i - j)
    matrix += jnp.where(j > 0, kernel(i + j), 0.0)
    matrix += jnp.where(j < size - 1, kernel(2 * (size - 1) - i - j), 0.0)
    return matrix / matrix.sum(axis=1, keepdims=True)
