"""Files of PyTorch's libraries: torchvision, timm and Detectron2, as safetensors."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from snclr_jax import __version__
from snclr_jax.encoder.stored import Encoder
from snclr_jax.encoder.tensor_file import write_tensors
from snclr_jax.encoder.torch_names import BATCHES, POSITIONS, Tensors, to_torch
from snclr_jax.models.vit import HEADS, sincos_positions
from snclr_jax.step.channels import channels_of


def save_torchvision(path: Path, encoder: Encoder) -> None:
    """Writes a ResNet under torchvision's names, without its classifier."""
    _save(path, library_tensors(encoder), encoder)


def save_detectron2(path: Path, encoder: Encoder) -> None:
    """Writes a ResNet under the names of Detectron2's own ResNets."""
    tensors = to_torch(encoder.tensors(), channels_of(encoder.config.data))
    renamed = {detectron2_name(name): tensor for name, tensor in tensors.items()}
    _save(path, renamed, encoder)


def save_timm(path: Path, encoder: Encoder) -> None:
    """Writes a ViT under timm's names, its fixed positions included."""
    heads = attention_heads(encoder.config.model)
    _save(path, library_tensors(encoder), encoder, num_heads=str(heads))


def library_tensors(encoder: Encoder) -> Tensors:
    """Returns an encoder's arrays, and what its library keeps beside what is learned:

    of a ViT the fixed positions, of BatchNorm layers the count of their updates.
    """
    tensors = to_torch(encoder.tensors(), channels_of(encoder.config.data))
    if "cls_token" in tensors:
        side = encoder.config.augment.size // encoder.config.model.patch_size
        tensors[POSITIONS] = positions(side, tensors["cls_token"].shape[-1])
    for name in list(tensors):
        module, _, leaf = name.rpartition(".")
        if leaf == "running_mean":
            # PyTorch counts a layer's updates, and reads the count only where the
            # statistics are a plain average.
            tensors[f"{module}.{BATCHES}"] = np.asarray(encoder.step, np.int64)
    return tensors


def detectron2_name(torchvision: str) -> str:
    """Returns what Detectron2 calls a tensor of torchvision's.

    >>> detectron2_name("layer1.0.downsample.1.running_var")
    'res2.0.shortcut.norm.running_var'
    >>> detectron2_name("bn1.weight")
    'stem.conv1.norm.weight'
    """
    name = re.sub(r"^layer(\d)", lambda match: f"res{int(match[1]) + 1}", torchvision)
    name = re.sub(r"^(conv1|bn1)\.", r"stem.\1.", name)
    name = re.sub(r"\bbn(\d)\.", r"conv\1.norm.", name)
    return name.replace("downsample.0", "shortcut").replace(
        "downsample.1", "shortcut.norm"
    )


def positions(side: int, width: int) -> np.ndarray:
    """Returns timm's "pos_embed", (1, side^2 + 1, width): zero for the class token."""
    patches = np.asarray(sincos_positions(side, side, width))
    return np.concatenate([np.zeros((1, width), np.float32), patches])[None]


def attention_heads(model: ConfigDict) -> int:
    """Returns the attention heads of a ViT's blocks, which no shape tells.

    Args:
      model: `config.model`.
    """
    return HEADS[model.vit_heads][model.name]


def _save(path: Path, tensors: Tensors, encoder: Encoder, **header: str) -> None:
    header |= {
        "format": "pt",  # which says that the tensors are laid out as PyTorch's
        "exported_by": f"snclr_jax {__version__}",
        "architecture": encoder.config.model.name,
        "network": encoder.network,
        "step": str(encoder.step),
        "fingerprint": encoder.fingerprint,
    }
    tensors = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    write_tensors(path, tensors, header)
