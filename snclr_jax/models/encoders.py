"""Which encoder a config means, built and checked."""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from snclr_jax.models import patchnet, resnet, vit

NAMES = (*resnet.STRUCTURE, *vit.WIDTH, "patchnet")


def build_encoder(
    config: Any, dtype: jnp.dtype, *, fused_attention: bool
) -> tuple[nn.Module, int]:
    """Returns the encoder that `config.model` describes, and its feature dimension.

    Raises:
      ValueError: if a field has an unknown name or a size that does not fit.
    """
    check_choice("model.name", config.name, NAMES)
    if config.name in vit.WIDTH:
        return _build_vit(config, dtype, fused_attention)
    _refuse(config, "scan", "a ViT")
    if config.name in resnet.STRUCTURE:
        return _build_resnet(config, dtype)
    _refuse(config, "drop_path", "a ResNet or ViT")
    _refuse(config, "remat", "a ResNet or ViT")
    width = config.width or patchnet.WIDTH
    encoder = patchnet.PatchNet(
        width=width,
        depth=config.depth or patchnet.DEPTH,
        patch_size=config.patch_size,
        bn_scope=config.bn_scope,
        dtype=dtype,
    )
    return encoder, 2 * width


def _build_resnet(config: Any, dtype: jnp.dtype) -> tuple[nn.Module, int]:
    check_choice("model.stem", config.stem, resnet.STEMS)
    if config.depth is not None:
        raise ValueError(
            f"model.depth {config.depth} means nothing to model.name {config.name!r}; "
            "leave it None"
        )
    stage_sizes, bottleneck = resnet.STRUCTURE[config.name]
    width = config.width or resnet.WIDTH
    encoder = resnet.ResNet(
        stage_sizes=stage_sizes,
        bottleneck=bottleneck,
        width=width,
        stem=config.stem,
        bn_scope=config.bn_scope,
        drop_path=config.drop_path,
        remat=config.remat,
        dtype=dtype,
    )
    return encoder, width * 8 * (resnet.EXPANSION if bottleneck else 1)


def _build_vit(
    config: Any, dtype: jnp.dtype, fused_attention: bool
) -> tuple[nn.Module, int]:
    check_choice("model.vit_heads", config.vit_heads, tuple(vit.HEADS))
    width = config.width or vit.WIDTH[config.name]
    heads = vit.HEADS[config.vit_heads][config.name]
    step = math.lcm(4, heads)
    if width % step:
        raise ValueError(
            f"model.width {width} does not fit {heads} attention heads (model.name "
            f"{config.name!r}, model.vit_heads {config.vit_heads!r}) and positions in "
            f"4 parts; use a multiple of {step}, such as {-(-width // step) * step}"
        )
    encoder = vit.VisionTransformer(
        width=width,
        depth=config.depth or vit.DEPTH[config.name],
        heads=heads,
        patch_size=config.patch_size,
        freeze_patch_embed=config.freeze_patch_embed,
        drop_path=config.drop_path,
        remat=config.remat,
        scan=config.scan,
        dtype=dtype,
        fused_attention=fused_attention,
    )
    return encoder, width


def _refuse(config: Any, field: str, needed: str) -> None:
    """Raises where a field is set that this encoder would ignore."""
    value = getattr(config, field)
    if value:
        raise ValueError(
            f"model.{field} {value} means nothing to model.name {config.name!r}; use "
            f"{needed}, or model.{field}={type(value)(0)}"
        )


def check_choice(field: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{field} {value!r} is unknown; use one of {choices}")
