"""Projector and predictor."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from snclr_jax.models.layers import BatchNorm

# PyTorch's default for a linear layer, uniform within 1/sqrt(fan_in), which MoCo v3's
# heads keep.
_uniform_fan_in = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class MLPHead(nn.Module):
    """The projector or predictor of MoCo v3 (Chen et al., 2021, section 5).

    Hidden layers are linear without bias, batch normalization, ReLU; the last layer is
    linear without bias.

    Attributes:
      hidden: features of each hidden layer; empty for one linear layer.
      features: output features.
      last_bn: end with a batch normalization without scale and bias.
      bn_scope: consecutive images that share statistics; see `BatchNorm`.
      dtype: of the hidden layers.
    """

    hidden: tuple[int, ...]
    features: int
    last_bn: bool
    bn_scope: int | None
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps (..., f) to (..., features), float32."""
        x = x.astype(self.dtype)
        for i, features in enumerate(self.hidden):
            x = nn.Dense(
                features,
                use_bias=False,
                kernel_init=_uniform_fan_in,
                dtype=self.dtype,
                name=f"dense_{i}",
            )(x)
            x = BatchNorm(train, self.bn_scope, self.dtype, name=f"bn_{i}")(x)
            x = nn.relu(x)

        # Similarities of outputs rounded to bfloat16 reorder neighbors, and this layer
        # is a small part of the work.
        output_dtype = jnp.promote_types(self.dtype, jnp.float32)
        last = len(self.hidden)
        x = nn.Dense(
            self.features,
            use_bias=False,
            kernel_init=_uniform_fan_in,
            dtype=output_dtype,
            name=f"dense_{last}",
        )(x)
        if self.last_bn:
            x = BatchNorm(
                train, self.bn_scope, output_dtype, affine=False, name=f"bn_{last}"
            )(x)
        return x
