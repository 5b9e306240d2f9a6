"""Convolution with gradients that are fast on a CPU as well.

XLA's own filter gradient is one product over all pixels of the batch; on a CPU it takes
several times as long as the forward pass where these are many. Its input gradient
multiplies by the zeros of a stride. And inside a loop, such as gradient accumulation's,
XLA computes every gradient of a convolution in one thread, unless it is written as the
forward pass is. benchmarks/RESULTS.md has the figures. GPUs and TPUs get XLA's own
gradients.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

# lo and hi of the rows, and of the columns.
Padding = tuple[tuple[int, int], tuple[int, int]]

# Measured: a sum over so many images, and so many pixels, is the fastest.
IMAGES, PIXELS = 8, 1024

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def convolution(
    x: Array,
    kernel: Array,
    strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    **settings: Any,
) -> Array:
    """Does `lax.conv_general_dilated` for Linen's `Conv`, of rows, columns, channels.

    Args:
      x: (b, h, w, c).
      kernel: (rows, columns, c, f).
      strides: of rows and columns.
      padding: lo and hi of rows and columns, or their name, such as "SAME".
      settings: what Linen passes beside; dilations and groups must be 1.

    Returns:
      (b, h', w', f).
    """
    for name in ("lhs_dilation", "rhs_dilation"):
        if any(each != 1 for each in settings[name]):
            raise NotImplementedError(name)
    if settings["feature_group_count"] != 1:
        raise NotImplementedError("feature_group_count")
    if isinstance(padding, str):
        sides, size = x.shape[1:3], kernel.shape[:2]
        padding = lax.padtype_to_pads(sides, size, strides, padding)
    pads: Any = tuple(map(tuple, padding))
    return _convolve(x, kernel, tuple(strides), pads)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolve(
    x: Array, kernel: Array, strides: tuple[int, ...], padding: Padding
) -> Array:
    return lax.platform_dependent(
        x,
        kernel,
        cpu=functools.partial(_on_cpu, strides=strides, padding=padding),
        default=functools.partial(_by_xla, strides=strides, padding=padding),
    )


def _forward(x, kernel, strides, padding):
    return _convolve(x, kernel, strides, padding), (x, kernel)


def _backward(strides, padding, kept, dy):
    fixed = dict(strides=strides, padding=padding)
    return lax.platform_dependent(
        *kept,
        dy,
        cpu=functools.partial(_gradients_on_cpu, **fixed),
        default=functools.partial(_gradients_by_xla, **fixed),
    )


_convolve.defvjp(_forward, _backward)


def _by_xla(x: Array, kernel: Array, *, strides, padding) -> Array:
    return lax.conv_general_dilated(
        x, kernel, strides, padding, dimension_numbers=_DIMENSIONS
    )


def _gradients_by_xla(x: Array, kernel: Array, dy: Array, *, strides, padding):
    convolve = functools.partial(_by_xla, strides=strides, padding=padding)
    return jax.vjp(convolve, x, kernel)[1](dy)


def _on_cpu(x: Array, kernel: Array, *, strides, padding) -> Array:
    if _is_product(kernel, padding):
        rows, columns = strides
        return jnp.dot(x[:, ::rows, ::columns], kernel[0, 0])
    return _by_xla(x, kernel, strides=strides, padding=padding)


def _gradients_on_cpu(x: Array, kernel: Array, dy: Array, *, strides, padding):
    if _is_product(kernel, padding):
        convolve = functools.partial(_on_cpu, strides=strides, padding=padding)
        dx, by_kernel = jax.vjp(convolve, x, kernel)[1](dy)
        # Measured: from few channels to more, the sum below is faster.
        if kernel.shape[2] >= kernel.shape[3] or strides != (1, 1):
            return dx, by_kernel
    else:
        dx = _input_gradient(x, kernel, dy, strides, padding)
    return dx, _filter_gradient(x, kernel, dy, strides, padding)


def _is_product(kernel: Array, padding: Padding) -> bool:
    return kernel.shape[:2] == (1, 1) and padding == ((0, 0), (0, 0))


def _input_gradient(x, kernel, dy, strides, padding) -> Array:
    """The forward convolutions of dy by turned parts of the kernel, one of each place.

    Pixels a stride apart are seen by the same taps. By XLA it is one convolution with
    zeros between the pixels of dy: at a stride of 2 three of four products are by them.
    """
    short = [
        (0, max(s - size, 0)) for s, size in zip(strides, kernel.shape, strict=False)
    ]
    kernel = jnp.pad(kernel, [*short, (0, 0), (0, 0)])  # each place has a tap
    rows, columns = (
        [_at_place(place, *sizes) for place in range(sizes[3])]
        for sizes in zip(
            kernel.shape, x.shape[1:], dy.shape[1:], strides, padding, strict=False
        )
    )

    def of_place(row, column) -> Array:
        taps, pads = zip(row, column, strict=True)
        turned = jnp.flip(kernel[taps], (0, 1)).swapaxes(2, 3)
        return _by_xla(dy, turned, strides=(1, 1), padding=pads)

    places = [jnp.stack([of_place(row, each) for each in columns], 3) for row in rows]
    dx = jnp.stack(places, 2)
    dx = dx.reshape(dx.shape[0], math.prod(dx.shape[1:3]), -1, dx.shape[-1])
    return dx[:, : x.shape[1], : x.shape[2]]


def _at_place(place, size, length, steps, stride, padding) -> tuple:
    """Returns the taps that see pixels place, place + stride, ..., and dy's padding.

    y[o] = sum_u x[stride o + u - lo] k[u], so pixel stride q + place has dy[q + c - t]
    times k[first + stride t], with first and c as below.
    """
    c, first = divmod(place + padding[0], stride)
    taps = len(range(first, size, stride))
    lo = taps - 1 - c
    return slice(first, size, stride), (
        lo,
        -(-length // stride) + taps - 1 - lo - steps,
    )


def _filter_gradient(x, kernel, dy, strides, padding) -> Array:
    """The forward convolution of x by dy: channels are the images, images the channels.

    A few images at a time, and their sum.
    """
    pads = [
        (lo, size + (steps - 1) * stride - length - lo)
        for size, length, steps, stride, (lo, _) in zip(
            kernel.shape, x.shape[1:], dy.shape[1:], strides, padding, strict=False
        )
    ]
    dtype = jnp.promote_types(dy.dtype, jnp.float32)

    def of_images(x: Array, dy: Array) -> Array:
        gradient = lax.conv_general_dilated(
            x.transpose(3, 1, 2, 0),
            dy.transpose(1, 2, 0, 3),
            (1, 1),
            pads,
            rhs_dilation=strides,
            dimension_numbers=_DIMENSIONS,
            preferred_element_type=dtype,
        )
        return gradient.transpose(1, 2, 0, 3)

    at_once = _images_at_once(x, dy)
    if at_once == x.shape[0]:
        return of_images(x, dy).astype(kernel.dtype)

    # Images far apart, not neighbors: those of one device stay with it.
    parts = [values.reshape(at_once, -1, *values.shape[1:]) for values in (x, dy)]

    def add(total: Array, number: Array) -> tuple[Array, None]:
        return total + of_images(*(part[:, number] for part in parts)), None

    nothing = jnp.zeros(kernel.shape, dtype)
    total, _ = lax.scan(add, nothing, jnp.arange(x.shape[0] // at_once))
    return total.astype(kernel.dtype)


def _images_at_once(x: Array, dy: Array) -> int:
    """Returns the divisor of the batch whose filter gradient is fast."""
    batch, pixels = x.shape[0], math.prod(dy.shape[1:3])
    most = max(IMAGES, PIXELS // pixels)
    if 2 * most >= batch:
        return batch
    return max(count for count in range(1, most + 1) if batch % count == 0)
