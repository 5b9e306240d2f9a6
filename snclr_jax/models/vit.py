"""Vision transformers (Dosovitskiy et al., 2021) as MoCo v3 trains them."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from snclr_jax.models.layers import split_patches

# Width of each network: Touvron et al. (2021), "Training data-efficient image
# transformers", Table 1; all have depth 12. `timm` heads are 64 features wide, as
# there; MoCo v3's ViT-S and ViT-B both have 12 (Chen et al., 2021, table of
# configurations), and ViT-Ti, which it does not train, follows them here.
WIDTH = {"vit_ti": 192, "vit_s": 384, "vit_b": 768}
DEPTH = 12
HEADS = {
    "mocov3": {"vit_ti": 12, "vit_s": 12, "vit_b": 12},
    "timm": {"vit_ti": 3, "vit_s": 6, "vit_b": 12},
}

_xavier = nn.initializers.xavier_uniform()


def _qkv_init(key: jax.Array, shape: tuple[int, int], dtype: Any) -> jax.Array:
    """Xavier-uniform of three separate square matrices, not of one wide one.

    MoCo v3's initialization: limit sqrt(6 / (fan_in + fan_out / 3)).
    """
    limit = (6.0 / (shape[0] + shape[1] // 3)) ** 0.5
    return jax.random.uniform(key, shape, dtype, -limit, limit)


def sincos_positions(rows: int, columns: int, width: int) -> jax.Array:
    """Fixed two-dimensional sine-cosine positions, as in MoCo v3's code.

        omega_i = 10000 ** (-i / (width / 4)),   i = 0 .. width / 4 - 1
        position(r, c) = [sin(r omega), cos(r omega), sin(c omega), cos(c omega)]

    Dividing by width / 4 - 1, as other implementations do, is another model.

    Args:
      rows, columns: of the patch grid.
      width: of a token, a multiple of 4.

    Returns:
      (rows * columns, width), row by row.
    """
    quarter = width // 4
    omega = 10000.0 ** (-jnp.arange(quarter) / quarter)
    row, column = jnp.meshgrid(jnp.arange(rows), jnp.arange(columns), indexing="ij")
    row_angle = row.reshape(-1, 1) * omega
    column_angle = column.reshape(-1, 1) * omega
    return jnp.concatenate(
        [
            jnp.sin(row_angle),
            jnp.cos(row_angle),
            jnp.sin(column_angle),
            jnp.cos(column_angle),
        ],
        axis=-1,
    )


class TransformerBlock(nn.Module):
    """Pre-norm self-attention and MLP.

        x = x + attention(norm1(x));  x = x + mlp(norm2(x))

    Attributes:
      heads: attention heads, a divisor of the token width.
      dtype: of the computation; LayerNorm statistics and the softmax are float32.
    """

    heads: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        batch, tokens, width = x.shape
        dense = lambda features, name, init=_xavier: nn.Dense(  # noqa: E731
            features, kernel_init=init, dtype=self.dtype, name=name
        )

        y = nn.LayerNorm(epsilon=1e-6, dtype=self.dtype, name="norm1")(x)
        qkv = dense(3 * width, "qkv", _qkv_init)(y)
        qkv = qkv.reshape(batch, tokens, 3, self.heads, width // self.heads)
        y = jax.nn.dot_product_attention(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2])
        x = x + dense(width, "proj")(y.reshape(batch, tokens, width))

        y = nn.LayerNorm(epsilon=1e-6, dtype=self.dtype, name="norm2")(x)
        y = nn.gelu(dense(4 * width, "fc1")(y), approximate=False)
        return x + dense(width, "fc2")(y)


class VisionTransformer(nn.Module):
    """A vision transformer without its classifier; the feature is the class token.

    Initialization follows MoCo v3's code: Xavier-uniform everywhere, the query, key
    and value matrices each on its own, the class token normal with deviation 1e-6.

    Attributes:
      width: of a token.
      depth: transformer blocks.
      heads: attention heads per block.
      patch_size: in pixels.
      freeze_patch_embed: keep the patch projection random: no gradient reaches it
        (Chen et al., 2021, section 4.2). The optimizer must leave it alone as well,
        for weight decay needs no gradient.
      dtype: of the computation.
    """

    width: int
    depth: int
    heads: int
    patch_size: int
    freeze_patch_embed: bool
    dtype: Any

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Maps images (b, h, w, c) to class tokens (b, f)."""
        del train  # layer normalization does the same in both modes
        patches = split_patches(images.astype(self.dtype), self.patch_size)
        batch, rows, columns, _ = patches.shape
        x = nn.Dense(
            self.width, kernel_init=_xavier, dtype=self.dtype, name="patch_embed"
        )(patches.reshape(batch, rows * columns, -1))
        if self.freeze_patch_embed:
            x = jax.lax.stop_gradient(x)
        x = x + sincos_positions(rows, columns, self.width).astype(self.dtype)

        # The class token's position is zero.
        cls = self.param("cls_token", nn.initializers.normal(1e-6), (self.width,))
        cls = jnp.broadcast_to(cls.astype(self.dtype), (batch, 1, self.width))
        x = jnp.concatenate([cls, x], axis=1)
        for i in range(self.depth):
            x = TransformerBlock(self.heads, self.dtype, name=f"blocks_{i}")(x)
        x = nn.LayerNorm(
            epsilon=1e-6,
            dtype=jnp.promote_types(self.dtype, jnp.float32),
            name="norm",
        )(x[:, 0])
        return x
