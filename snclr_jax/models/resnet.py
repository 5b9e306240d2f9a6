"""ResNet-18 to ResNet-152 (He et al., 2016), in torchvision's v1.5 form."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from snclr_jax.models.layers import (
    BatchNorm,
    branch_scales,
    he_conv,
    scale_branch,
    sow_map,
)

# He et al. (2016), Table 1: blocks per stage, and whether a block is a bottleneck.
STRUCTURE = {
    "resnet18": ((2, 2, 2, 2), False),
    "resnet34": ((3, 4, 6, 3), False),
    "resnet50": ((3, 4, 6, 3), True),
    "resnet101": ((3, 4, 23, 3), True),
    "resnet152": ((3, 8, 36, 3), True),
}
WIDTH = 64  # He et al. (2016), Table 1: channels of the stem
EXPANSION = 4  # output channels of a bottleneck over its inner channels, same table
STEMS = ("imagenet", "cifar")


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, or a 1x1, 3x3, 1x1 bottleneck, around a shortcut.

        y = ReLU(F(x) + shortcut(x))

    The 3x3 of a bottleneck carries the stride (v1.5; He et al. put it on the first
    1x1). The scale of the last normalization starts at zero, so every block starts as
    its shortcut: MoCo v3's choice (`zero_init_residual`), not torchvision's default.

    Attributes:
      features: inner channels; a bottleneck returns `EXPANSION` times as many.
      stride: of the block, 1 or 2.
      bottleneck: the three-layer form.
      norm: makes each `BatchNorm`, from `name` and `zero_scale`.
      dtype: of the computation.
    """

    features: int
    stride: int
    bottleneck: bool
    norm: Callable[..., nn.Module]
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, scales: jax.Array | None = None) -> jax.Array:
        """Maps (..., h, w, c) on; scales (1, ...) multiply F: see `branch_scales`."""
        # (features, kernel, stride) of each convolution
        if self.bottleneck:
            layers = [
                (self.features, 1, 1),
                (self.features, 3, self.stride),
                (self.features * EXPANSION, 1, 1),
            ]
        else:
            layers = [(self.features, 3, self.stride), (self.features, 3, 1)]

        y = x
        for i, (features, kernel, stride) in enumerate(layers, start=1):
            y = he_conv(features, kernel, stride, self.dtype, f"conv{i}")(y)
            last = i == len(layers)
            y = self.norm(zero_scale=last, name=f"bn{i}")(y)
            if not last:
                y = nn.relu(y)

        if x.shape != y.shape:
            x = he_conv(y.shape[-1], 1, self.stride, self.dtype, "downsample_conv")(x)
            x = self.norm(name="downsample_bn")(x)
        return nn.relu(x + scale_branch(y, None if scales is None else scales[0]))


class ResNet(nn.Module):
    """A ResNet without its classifier.

    Attributes:
      stage_sizes: blocks per stage; each stage doubles the channels, and each but the
        first halves the resolution.
      bottleneck: use the three-layer block.
      width: channels of the stem and of the first stage's inner layers; 128 is the
        "2x" network of Chen et al. (2020), all of whose layers are twice as wide.
      stem: "imagenet" is a 7x7 convolution of stride 2 and a 3x3 max-pool of stride 2;
        "cifar" is a 3x3 convolution of stride 1, for 32-pixel images (Chen et al.
        2020, "A Simple Framework for Contrastive Learning", appendix B.9).
      bn_scope: consecutive images that share statistics; see `BatchNorm`.
      drop_path: stochastic depth's rate at the last block; see `branch_scales`.
      remat: keep each block's input alone and compute the block again for its gradient.
      dtype: of the computation.
    """

    stage_sizes: tuple[int, ...]
    bottleneck: bool
    width: int
    stem: str
    bn_scope: int | None
    drop_path: float
    remat: bool
    dtype: Any

    @nn.compact
    def __call__(
        self, images: jax.Array, keys: jax.Array | None = None, *, train: bool
    ) -> jax.Array:
        """Maps images (..., h, w, c) to the mean of the last stage, (..., f).

        Branches are dropped where there are keys, (...). Sows the mean of the stage
        before the last, "stage3", where intermediates are asked for.
        """
        mean = functools.partial(
            jnp.mean, axis=(-3, -2), dtype=jnp.promote_types(self.dtype, jnp.float32)
        )
        norm = functools.partial(BatchNorm, train, self.bn_scope, self.dtype)
        total = sum(self.stage_sizes)
        scales = iter([None] * total)
        if keys is not None:
            scales = iter(branch_scales(keys, self.drop_path, blocks=total, branches=1))
        residual_block = nn.remat(ResidualBlock) if self.remat else ResidualBlock

        x = images.astype(self.dtype)
        kernel, stride = (7, 2) if self.stem == "imagenet" else (3, 1)
        x = he_conv(self.width, kernel, stride, self.dtype, "conv1")(x)
        x = nn.relu(norm(name="bn1")(x))
        if self.stem == "imagenet":
            # Linen pads one leading axis only.
            flat = x.reshape(-1, *x.shape[-3:])
            # Linen's annotation is of the padding's names alone.
            pad: Any = ((1, 1), (1, 1))
            flat = nn.max_pool(flat, (3, 3), (2, 2), padding=pad)
            x = flat.reshape(*x.shape[:-3], *flat.shape[1:])

        for stage, blocks in enumerate(self.stage_sizes):
            for block in range(blocks):
                x = residual_block(
                    features=self.width * 2**stage,
                    stride=2 if stage > 0 and block == 0 else 1,
                    bottleneck=self.bottleneck,
                    norm=norm,
                    dtype=self.dtype,
                    name=f"layer{stage + 1}_{block}",
                )(x, next(scales))
            before_last = stage == len(self.stage_sizes) - 2
            if before_last and self.is_mutable_collection("intermediates"):
                self.sow("intermediates", f"stage{stage + 1}", mean(x))
        sow_map(self, "dense", lambda: x)
        return mean(x)
