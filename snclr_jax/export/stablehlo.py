"""An encoder as one compiled-anywhere program, its weights and preparation inside."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
from jax import Array

from snclr_jax.encoder.encode import prepare
from snclr_jax.encoder.stored import Encoder
from snclr_jax.run.files import replaced
from snclr_jax.step.channels import channels_of

PLATFORMS = ("cpu", "cuda", "tpu")


def save_stablehlo(path: Path, encoder: Encoder) -> None:
    """Writes a program that maps images as they are stored to features.

        features = jax.export.deserialize(path.read_bytes()).call(images)

    It takes uint8 (b, s, s, c) for any b, with s = `data.image_size`, gives float32
    (b, f), and needs JAX but not this package.
    """
    params, batch_stats = jax.device_get((encoder.params, encoder.batch_stats))

    def features(images: Array) -> Array:
        pixels = prepare(images, encoder.config)
        features = encoder.model.encode(params, batch_stats, pixels)
        return features.astype(jnp.float32)

    data = encoder.config.data
    side, channels = data.image_size, channels_of(data)
    (batch,) = jax.export.symbolic_shape("b")
    images = jax.ShapeDtypeStruct((batch, side, side, channels), jnp.uint8)
    program = jax.export.export(jax.jit(features), platforms=PLATFORMS)(images)
    with replaced(path) as part:
        part.write_bytes(bytes(program.serialize()))
