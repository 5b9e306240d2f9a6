"""Convolutions of ResNets on this CPU: XLA's own gradients, and those of this package.

    python benchmarks/convolutions.py

Every shape of ResNet-18 (32 pixels, widths 64 and 16) and of ResNet-50 (224 pixels,
width 64) that has 1x1, 3x3 or 7x7 kernels, in float32. The two take turns; printed are
the fastest of five, in milliseconds, and their sums over the layers of the network.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from snclr_jax.models import convolution as ours

ROUNDS = 5


class Shape(NamedTuple):
    """A convolution of images, and how many layers of the network have it."""

    batch: int
    side: int
    inside: int
    out: int
    kernel: int
    stride: int
    layers: int


def resnet18(width: int, batch: int) -> Iterator[Shape]:
    """Yields the convolutions of ResNet-18 with the stem of small images."""
    yield Shape(batch, 32, 3, width, 3, 1, 1)
    yield Shape(batch, 32, width, width, 3, 1, 4)
    for stage in range(1, 4):
        side, inside = 32 >> stage, width << (stage - 1)
        yield Shape(batch, 2 * side, inside, 2 * inside, 3, 2, 1)
        yield Shape(batch, side, 2 * inside, 2 * inside, 3, 1, 3)
        yield Shape(batch, 2 * side, inside, 2 * inside, 1, 2, 1)


def resnet50(batch: int) -> Iterator[Shape]:
    """Yields those of ResNet-50."""
    yield Shape(batch, 224, 3, 64, 7, 2, 1)
    inside = 64
    for stage, blocks in enumerate((3, 4, 6, 3)):
        side, width = 56 >> stage, 64 << stage
        before = side if stage == 0 else 2 * side
        stride = 1 if stage == 0 else 2
        yield Shape(batch, before, inside, width, 1, 1, 1)
        yield Shape(batch, before, width, width, 3, stride, 1)
        yield Shape(batch, side, width, 4 * width, 1, 1, blocks)
        yield Shape(batch, before, inside, 4 * width, 1, stride, 1)
        yield Shape(batch, side, 4 * width, width, 1, 1, blocks - 1)
        yield Shape(batch, side, width, width, 3, 1, blocks - 1)
        inside = 4 * width


def compare(name: str, shapes: Iterator[Shape]) -> None:
    """Prints what forward pass and both gradients take, by XLA and by ours."""
    sums = np.zeros((3, 2))
    for shape in shapes:
        times = milliseconds(shape)
        sums += shape.layers * times
        show(f"{name} {tuple(shape)}", times)
    show(f"{name}, all layers", sums)


def show(name: str, times: np.ndarray) -> None:
    parts = zip(("forward", "input", "filter"), times, strict=True)
    words = (f"{part} {xla:.1f} / {own:.1f}" for part, (xla, own) in parts)
    print(f"{name}: {', '.join(words)}", flush=True)


def milliseconds(shape: Shape) -> np.ndarray:
    """Returns the times (3, 2) of a shape."""
    batch, side, inside, out, kernel, stride, _ = shape
    pad = kernel // 2
    fixed = dict(strides=(stride, stride), padding=((pad, pad), (pad, pad)))
    rng = np.random.default_rng(0)
    x, w = (
        jnp.asarray(rng.normal(size=size), jnp.float32)
        for size in ((batch, side, side, inside), (kernel, kernel, inside, out))
    )
    dy = jnp.ones_like(ours._by_xla(x, w, **fixed))
    forward, gradients = (
        [functools.partial(function, **fixed) for function in pair]
        for pair in (
            (ours._by_xla, ours._on_cpu),
            (ours._gradients_by_xla, ours._gradients_on_cpu),
        )
    )
    functions = [
        *(jax.jit(lambda x, w, dy, of=of: of(x, w)) for of in forward),
        # One gradient at a time: the other is left out by the compiler.
        *(jax.jit(lambda x, w, dy, of=of: of(x, w, dy)[0]) for of in gradients),
        *(jax.jit(lambda x, w, dy, of=of: of(x, w, dy)[1]) for of in gradients),
    ]
    for function in functions:
        jax.block_until_ready(function(x, w, dy))
    times = np.empty((ROUNDS, len(functions)))
    for turn in np.ndindex(times.shape):
        started = time.perf_counter()
        jax.block_until_ready(functions[turn[1]](x, w, dy))
        times[turn] = 1e3 * (time.perf_counter() - started)
    return times.min(axis=0).reshape(3, 2)


def main() -> None:
    compare("ResNet-18, width 64", resnet18(64, batch=64))
    compare("ResNet-18, width 16", resnet18(16, batch=128))
    compare("ResNet-50", resnet50(batch=16))


if __name__ == "__main__":
    main()
