"""The encoders as ONNX operators; the arithmetic is that of `models/`, in float32."""

from __future__ import annotations

import numpy as np
from ml_collections import ConfigDict

from snclr_jax.export.onnx_graph import Graph
from snclr_jax.export.torch_file import attention_heads, positions
from snclr_jax.models.patchnet import CONTRAST_FLOOR, gaussian
from snclr_jax.models.resnet import STRUCTURE
from snclr_jax.models.vit import WIDTH


def add_network(graph: Graph, x: str, model: ConfigDict, size: int) -> str:
    """Adds an encoder; returns the name of its features, (b, f).

    Args:
      graph: with the encoder's tensors.
      x: name of the normalized images, (b, 3, size, size).
      model: `config.model`.
      size: side of the images, in pixels.
    """
    if model.name in STRUCTURE:
        return _resnet(graph, x, model)
    if model.name in WIDTH:
        return _vit(graph, x, model, size)
    return _patchnet(graph, x, model, size)


def _resnet(graph: Graph, x: str, model: ConfigDict) -> str:
    imagenet = model.stem == "imagenet"
    x = graph.conv(x, "conv1", stride=2 if imagenet else 1)
    x = graph("Relu", graph.batch_norm(x, "bn1"))
    if imagenet:
        x = graph("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    stage_sizes, bottleneck = STRUCTURE[model.name]
    for stage, blocks in enumerate(stage_sizes):
        for block in range(blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            name = f"layer{stage + 1}.{block}"
            x = _residual_block(graph, x, name, stride, bottleneck)
    return graph.pixel_mean(x)


def _residual_block(
    graph: Graph, x: str, name: str, stride: int, bottleneck: bool
) -> str:
    strides = (1, stride, 1) if bottleneck else (stride, 1)
    y = x
    for i, each in enumerate(strides, start=1):
        y = graph.conv(y, f"{name}.conv{i}", stride=each)
        y = graph.batch_norm(y, f"{name}.bn{i}")
        if i < len(strides):
            y = graph("Relu", y)
    if f"{name}.downsample.0.weight" in graph.tensors:
        x = graph.conv(x, f"{name}.downsample.0", stride=stride)
        x = graph.batch_norm(x, f"{name}.downsample.1")
    return graph("Relu", graph("Add", x, y))


def _vit(graph: Graph, x: str, model: ConfigDict, size: int) -> str:
    patch, side = model.patch_size, size // model.patch_size
    token = graph.tensors["cls_token"]
    width, heads = token.shape[-1], attention_heads(model)
    shape = graph("Shape", x, end=1)  # the batch
    token = graph("Expand", token, graph("Concat", shape, _ints(1, width), axis=0))
    kernel, bias = "patch_embed.proj.weight", "patch_embed.proj.bias"
    x = graph("Conv", x, kernel, bias, strides=[patch, patch])
    x = graph("Reshape", x, _ints(0, width, side**2))
    x = graph("Transpose", x, perm=[0, 2, 1])
    x = graph("Add", graph("Concat", token, x, axis=1), positions(side, width))
    layer = 0
    while f"blocks.{layer}.norm1.weight" in graph.tensors:
        x = _transformer_block(graph, x, f"blocks.{layer}", heads, width)
        layer += 1
    return graph.layer_norm(graph("Gather", x, np.int64(0), axis=1), "norm")


def _transformer_block(graph: Graph, x: str, name: str, heads: int, width: int) -> str:
    y = graph.linear(graph.layer_norm(x, f"{name}.norm1"), f"{name}.attn.qkv")
    # (b, tokens, 3, heads, h) -> (3, b, heads, tokens, h)
    y = graph("Reshape", y, _ints(0, 0, 3, heads, width // heads))
    y = graph("Transpose", y, perm=[2, 0, 3, 1, 4])
    query, key, value = (graph("Gather", y, np.int64(i), axis=0) for i in range(3))
    key = graph("Transpose", key, perm=[0, 1, 3, 2])
    query = graph("Mul", query, np.float32((width // heads) ** -0.5))
    weights = graph("Softmax", graph("MatMul", query, key), axis=-1)
    y = graph("Transpose", graph("MatMul", weights, value), perm=[0, 2, 1, 3])
    y = graph("Reshape", y, _ints(0, 0, width))
    x = graph("Add", x, graph.linear(y, f"{name}.attn.proj"))
    y = graph.linear(graph.layer_norm(x, f"{name}.norm2"), f"{name}.mlp.fc1")
    # GELU by erf, y (1 + erf(y / sqrt(2))) / 2: its own operator is younger.
    gate = graph("Erf", graph("Div", y, np.float32(2**0.5)))
    y = graph("Mul", y, graph("Add", gate, np.float32(1)))
    y = graph("Mul", y, np.float32(0.5))
    return graph("Add", x, graph.linear(y, f"{name}.mlp.fc2"))


def _patchnet(graph: Graph, x: str, model: ConfigDict, size: int) -> str:
    patch = model.patch_size
    x = _local_contrast(graph, x, patch, size)
    x = graph.conv(x, "stem", stride=patch, pads=(patch // 2, patch - patch // 2))
    x = graph("Relu", graph.batch_norm(x, "stem_bn"))
    x = _residual_convolutions(graph, x, "fine")
    # A product with each 2 x 2 positions side by side is a convolution of stride 2.
    join = graph.tensors["join.weight"]
    join = join.reshape(len(join), 2, 2, -1).transpose(0, 3, 1, 2)
    x = graph("Conv", x, join, strides=[2, 2])
    x = graph("Relu", graph.batch_norm(x, "join_bn"))
    return graph.pixel_mean(_residual_convolutions(graph, x, "coarse"))


def _residual_convolutions(graph: Graph, x: str, grid: str) -> str:
    layer = 0
    while f"{grid}.{layer}.weight" in graph.tensors:
        y = graph.batch_norm(graph.conv(x, f"{grid}.{layer}"), f"{grid}_bn.{layer}")
        x = graph("Add", x, graph("Relu", y))
        layer += 1
    return x


def _local_contrast(graph: Graph, x: str, patch: int, size: int) -> str:
    kernel = np.asarray(gaussian(size, float(patch)), np.float32)
    blurred = graph("MatMul", graph("MatMul", kernel, x), kernel.T)
    x = graph("Sub", x, blurred)
    # All channels and pixels in one row, whose mean is a pool.
    row = graph("Reshape", graph("Mul", x, x), _ints(0, 1, -1, 1))
    power = graph("Add", graph("GlobalAveragePool", row), np.float32(CONTRAST_FLOOR))
    return graph("Div", x, graph("Sqrt", power))


def _ints(*values: int) -> np.ndarray:
    return np.asarray(values, np.int64)
