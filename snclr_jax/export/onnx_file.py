"""An encoder as an ONNX program, its weights and the preparation of images inside."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from snclr_jax import __version__
from snclr_jax.encoder.stored import Encoder
from snclr_jax.encoder.torch_names import to_torch
from snclr_jax.export.onnx_graph import OLDEST_OPSET, Graph
from snclr_jax.export.onnx_networks import add_network
from snclr_jax.run.files import replaced
from snclr_jax.step.channels import channels_of

INPUT, OUTPUT, BATCH = "images", "features", "batch"
_MOST_BYTES = 2**31  # of a protocol buffer


def write_onnx(path: Path, encoder: Encoder, *, opset: int = OLDEST_OPSET) -> None:
    """Writes a program that maps images as they are stored to features.

        session = onnxruntime.InferenceSession(path)
        (features,) = session.run(None, {"images": images})

    It takes uint8 (b, s, s, c) for any b, with s = `data.image_size`, computes in
    float32 whatever `model.dtype` is, and gives float32 (b, f).

    Args:
      path: file to write.
      encoder: of any network.
      opset: version of ONNX's operators.

    Raises:
      ValueError: where the version is too old, or newer than the package onnx knows, or
        the weights are more than a file may hold.
    """
    _check_opset(opset)
    config = encoder.config
    channels = channels_of(config.data)
    tensors = to_torch(encoder.tensors(), channels)
    size = sum(array.nbytes for array in tensors.values())
    if size >= _MOST_BYTES:
        raise ValueError(
            f"the encoder has {size / 2**30:.1f} GiB of weights, and an ONNX file "
            "holds less than 2; use --format=stablehlo"
        )
    side, features = config.data.image_size, encoder.model.feature_dim
    graph = Graph(tensors)
    x = _prepare(graph, INPUT, encoder)
    graph("Identity", add_network(graph, x, config.model, config.augment.size))
    graph.nodes[-1].output[0] = OUTPUT
    shape = [BATCH, side, side, channels]
    inputs = [helper.make_tensor_value_info(INPUT, TensorProto.UINT8, shape)]
    outputs = [
        helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [BATCH, features])
    ]
    opsets = [helper.make_opsetid("", opset)]
    model = helper.make_model(
        helper.make_graph(graph.nodes, "encoder", inputs, outputs, graph.constants()),
        opset_imports=opsets,
        # The oldest that has the operators: runtimes refuse files of later ones.
        ir_version=helper.find_min_ir_version_for(opsets),
        producer_name="snclr_jax",
        producer_version=__version__,
    )
    stated = {
        "architecture": config.model.name,
        "network": encoder.network,
        "step": str(encoder.step),
        "fingerprint": encoder.fingerprint,
    }
    helper.set_model_props(model, stated)
    onnx.checker.check_model(model, full_check=True)
    with replaced(path) as part:
        part.write_bytes(model.SerializeToString())


def _prepare(graph: Graph, images: str, encoder: Encoder) -> str:
    """Adds `encode.prepare`: the middle, from 0 to 1, normalized, channels first."""
    data, size = encoder.config.data, encoder.config.augment.size
    first = (data.image_size - size) // 2
    corners = (np.full(2, each, np.int64) for each in (first, first + size))
    x = graph("Slice", images, *corners, np.asarray([1, 2], np.int64))
    x = graph("Div", graph("Cast", x, to=TensorProto.FLOAT), np.float32(255))
    x = graph("Sub", x, np.asarray(data.mean, np.float32))
    x = graph("Div", x, np.asarray(data.std, np.float32))
    return graph("Transpose", x, perm=[0, 3, 1, 2])


def _check_opset(opset: int) -> None:
    newest = onnx.defs.onnx_opset_version()
    if opset < OLDEST_OPSET:
        raise ValueError(
            f"--opset={opset} is too old: LayerNormalization came with {OLDEST_OPSET}; "
            f"use --opset={OLDEST_OPSET}, and a runtime that reads it (onnxruntime "
            "1.12 or later)"
        )
    if opset > newest:
        raise ValueError(
            f"--opset={opset} is newer than the installed onnx {onnx.__version__} "
            f"knows; use {OLDEST_OPSET} to {newest}, or pip install -U onnx"
        )
