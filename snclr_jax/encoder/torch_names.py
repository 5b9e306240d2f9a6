"""Encoders under the names and in the layouts of PyTorch's libraries, both ways.

ResNets have torchvision's names, ViTs timm's; both keep convolutions as (out, in, h, w)
and linear layers as (out, in).
"""

from __future__ import annotations

import re

import jax
import numpy as np

from snclr_jax.models.vit import STACKED

Tensors = dict[str, np.ndarray]

# Of the modules that are called otherwise there.
_MODULES = {
    "downsample_conv": "downsample.0",
    "downsample_bn": "downsample.1",
    "patch_embed": "patch_embed.proj",
    "qkv": "attn.qkv",
    "proj": "attn.proj",
    "fc1": "mlp.fc1",
    "fc2": "mlp.fc2",
}
_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "mean": "running_mean",
    "var": "running_var",
}
# What the libraries keep beside what is learned: the updates of a BatchNorm layer, and
# the positions of a ViT, which are fixed here.
BATCHES, POSITIONS = "num_batches_tracked", "pos_embed"
_PATCHES = "patch_embed.proj.weight"


def torch_name(ours: str) -> str:
    """Returns the name that an array has in PyTorch.

    Args:
      ours: Flax's, which begins with its tree and "encoder".

    >>> torch_name("batch_stats/encoder/layer1_0/downsample_bn/mean")
    'layer1.0.downsample.1.running_mean'
    >>> torch_name("params/encoder/blocks_11/qkv/kernel")
    'blocks.11.attn.qkv.weight'
    """
    *modules, leaf = ours.split("/")[2:]
    parts = [_MODULES.get(name, re.sub(r"_(\d+)$", r".\1", name)) for name in modules]
    return ".".join([*parts, _LEAVES.get(leaf, leaf)])


def to_torch(tensors: Tensors, channels: int) -> Tensors:
    """Returns an encoder's arrays, by PyTorch's names and in its layouts.

    Args:
      tensors: by Flax's names, what `Encoder.tensors` returns.
      channels: of the images.
    """
    converted = {}
    for ours, array in _unstack(tensors).items():
        name = torch_name(ours)
        if name == _PATCHES:
            # Inside a patch the order is row, column, channel: see `split_patches`.
            side = round((len(array) / channels) ** 0.5)
            array = array.reshape(side, side, channels, -1)
        if name == "cls_token":
            array = array[None, None]
        elif array.ndim > 1:
            array = np.moveaxis(array, (-1, -2), (0, 1))
        converted[name] = array
    return converted


def learned(tensors: Tensors) -> Tensors:
    """Returns the tensors without what the libraries keep beside what is learned."""
    return {
        name: array
        for name, array in tensors.items()
        if name != POSITIONS and not name.endswith(f".{BATCHES}")
    }


def from_torch(
    tensors: Tensors, expected: dict[str, jax.ShapeDtypeStruct], channels: int
) -> Tensors:
    """Returns the arrays of an encoder by Flax's names and in its layouts.

    Args:
      tensors: by PyTorch's names: exactly those of `to_torch`.
      expected: what the encoder consists of, by Flax's names.
      channels: of the images.

    Raises:
      ValueError: where a tensor is missing, one too many or of another shape; names
        them.
    """
    hollow = {
        name: np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape)
        for name, leaf in expected.items()
    }
    wanted = {name: leaf.shape for name, leaf in to_torch(hollow, channels).items()}
    wrong = [f"{name} is missing" for name in wanted if name not in tensors]
    wrong += [f"{name} is not part of it" for name in tensors if name not in wanted]
    wrong += [
        f"{name} is {tensors[name].shape}, not {shape}"
        for name, shape in wanted.items()
        if name in tensors and tensors[name].shape != shape
    ]
    if wrong:
        more = f"; and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ValueError(f"{'; '.join(wrong[:3])}{more}")

    def ours(name: str, like: np.ndarray) -> np.ndarray:
        array = tensors[torch_name(name)]
        if name.endswith("kernel"):
            array = np.moveaxis(array, (0, 1), (-1, -2))
        return array.reshape(like.shape).astype(like.dtype)

    arrays = {name: ours(name, like) for name, like in _unstack(hollow).items()}
    return _restack(arrays, expected)


def _unstack(tensors: Tensors) -> Tensors:
    """Gives every layer of a ViT its own arrays where `scan` keeps them together."""
    unstacked = {}
    for name, array in tensors.items():
        before, stacked, after = name.partition(f"/{STACKED}/")
        if stacked:
            for layer, own in enumerate(array):
                unstacked[_layer(before, layer, after)] = own
        else:
            unstacked[name] = array
    return unstacked


def _restack(tensors: Tensors, expected: dict[str, jax.ShapeDtypeStruct]) -> Tensors:
    restacked = {}
    for name in expected:
        before, stacked, after = name.partition(f"/{STACKED}/")
        if stacked:
            layers = expected[name].shape[0]
            own = [tensors[_layer(before, layer, after)] for layer in range(layers)]
            restacked[name] = np.stack(own)
        else:
            restacked[name] = tensors[name]
    return restacked


def _layer(before: str, layer: int, after: str) -> str:
    return f"{before}/{STACKED}_{layer}/{after}"
