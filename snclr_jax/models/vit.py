"""Vision transformers (Dosovitskiy et al., 2021) as MoCo v3 trains them."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from snclr_jax.models.attention import class_attention, self_attention
from snclr_jax.models.layers import (
    MAPS,
    branch_scales,
    scale_branch,
    sow_map,
    split_patches,
)

# Width of each network: Touvron et al. (2021), "Training data-efficient image
# transformers", Table 1, and, for ViT-L, Dosovitskiy et al. (2021), Table 1. `timm`
# heads are 64 features wide, as there; MoCo v3's ViT-S and ViT-B both have 12 (Chen et
# al., 2021, table of configurations), and ViT-Ti, which it does not train, follows them
# here.
WIDTH = {"vit_ti": 192, "vit_s": 384, "vit_b": 768, "vit_l": 1024}
DEPTH = {"vit_ti": 12, "vit_s": 12, "vit_b": 12, "vit_l": 24}
HEADS = {
    "mocov3": {"vit_ti": 12, "vit_s": 12, "vit_b": 12, "vit_l": 16},
    "timm": {"vit_ti": 3, "vit_s": 6, "vit_b": 12, "vit_l": 16},
}

# The name under which `scan` keeps the parameters of all layers, along a leading axis.
STACKED = "blocks"

_xavier: Callable[..., jax.Array] = nn.initializers.xavier_uniform()


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
      fused_attention: see `self_attention`.
    """

    heads: int
    dtype: Any
    fused_attention: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, scales: jax.Array | None = None) -> jax.Array:
        """Maps (b, tokens, width) on; scales (2, b) multiply attention and MLP."""
        batch, tokens, width = x.shape
        attention_scale, mlp_scale = (None, None) if scales is None else scales
        dense = lambda features, name, init=_xavier: nn.Dense(  # noqa: E731
            features, kernel_init=init, dtype=self.dtype, name=name
        )

        y = nn.LayerNorm(epsilon=1e-6, dtype=self.dtype, name="norm1")(x)
        qkv = dense(3 * width, "qkv", _qkv_init)(y)
        qkv = qkv.reshape(batch, tokens, 3, self.heads, width // self.heads)
        sow_map(self, "attention", lambda: class_attention(qkv))
        y = self_attention(qkv, fused=self.fused_attention)
        y = dense(width, "proj")(y.reshape(batch, tokens, width))
        x = x + scale_branch(y, attention_scale)

        y = nn.LayerNorm(epsilon=1e-6, dtype=self.dtype, name="norm2")(x)
        y = nn.gelu(dense(4 * width, "fc1")(y), approximate=False)
        return x + scale_branch(dense(width, "fc2")(y), mlp_scale)


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
      drop_path: stochastic depth's rate at the last block; see `branch_scales`.
      remat: keep each block's input alone and compute the block again for its gradient.
      scan: compile one block and loop over layers, whose parameters are stacked along a
        leading axis under the name `STACKED`.
      dtype: of the computation.
      fused_attention: see `self_attention`.
    """

    width: int
    depth: int
    heads: int
    patch_size: int
    freeze_patch_embed: bool
    drop_path: float
    remat: bool
    scan: bool
    dtype: Any
    fused_attention: bool

    @nn.compact
    def __call__(
        self, images: jax.Array, keys: jax.Array | None = None, *, train: bool
    ) -> jax.Array:
        """Maps images (..., h, w, c) to class tokens (..., f).

        Branches are dropped where there are keys, (...). Sows the class tokens of the
        last 4 blocks side by side, "last4" (..., 4 f), where intermediates are asked
        for; each goes through the last normalization, as where Caron et al. (2021,
        "Emerging properties in self-supervised vision transformers") classify them.
        """
        del train  # layer normalization does the same in both modes
        patches = split_patches(images.astype(self.dtype), self.patch_size)
        *leading, rows, columns, _ = patches.shape
        batch = math.prod(leading)
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
        x, class_tokens = self._blocks(x, None if keys is None else keys.reshape(-1))
        norm = nn.LayerNorm(
            epsilon=1e-6,
            dtype=jnp.promote_types(self.dtype, jnp.float32),
            name="norm",
        )
        if self.is_mutable_collection("intermediates"):
            last = [norm(tokens) for tokens in class_tokens[-4:]]
            last4 = jnp.concatenate(last, axis=-1)
            self.sow("intermediates", "last4", last4.reshape(*leading, -1))
        grid = (*leading, rows, columns, self.width)
        sow_map(self, "dense", lambda: norm(x[:, 1:]).reshape(grid))
        return norm(x[:, 0]).reshape(*leading, -1)

    def _blocks(
        self, x: jax.Array, keys: jax.Array | None
    ) -> tuple[jax.Array, Sequence[jax.Array]]:
        """Applies all transformer blocks to tokens (b, tokens, width).

        Returns:
          The tokens after the last block, and, where intermediates are asked for, the
          class token (b, width) after every one.
        """
        wanted = self.is_mutable_collection("intermediates")
        scales = None
        if keys is not None:
            scales = branch_scales(keys, self.drop_path, blocks=self.depth, branches=2)
        block = TransformerBlock
        if self.remat:
            # A loop body is a computation of its own: no barrier has to keep XLA from
            # merging the second computation of a block with the first.
            block = nn.remat(block, prevent_cse=not self.scan)
        block = functools.partial(block, self.heads, self.dtype, self.fused_attention)
        if not self.scan:
            class_tokens = []
            for i in range(self.depth):
                own = None if scales is None else scales[i]
                x = block(name=f"{STACKED}_{i}")(x, own)
                if wanted:
                    class_tokens.append(x[:, 0])
            return x, class_tokens

        def layer(block: nn.Module, x: jax.Array, scales: jax.Array | None) -> Any:
            x = block(x, scales)
            return x, x[:, 0] if wanted else None

        over_layers = nn.scan(
            layer,
            variable_axes={"params": 0, MAPS: 0},
            split_rngs={"params": True},
            length=self.depth,
        )
        return over_layers(block(name=STACKED), x, scales)


def last_attention(maps: dict[str, Any]) -> jax.Array:
    """Returns the last block's `class_attention` on the grid of a square image.

    Args:
      maps: what the blocks have sown, by their names; Linen keeps a tuple of each.

    Returns:
      float32 (b, heads, side, side).
    """
    if STACKED in maps:
        (weights,) = maps[STACKED]["attention"]
        weights = weights[-1]
    else:
        (weights,) = maps[f"{STACKED}_{len(maps) - 1}"]["attention"]
    side = math.isqrt(weights.shape[-1])
    return weights.reshape(*weights.shape[:-1], side, side)
