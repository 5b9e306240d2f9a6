"""A graph of ONNX operators, put together one call at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

# Nothing that a later version changed is used, so that this one and later ones read the
# same nodes: LayerNormalization came with it.
OLDEST_OPSET = 17
_BATCH_NORM_EPSILON = 1e-5
_LAYER_NORM_EPSILON = 1e-6


class Graph:
    """Nodes in the order of their computation, and the constants that they read.

        graph = Graph({"fc.weight": weight})
        y = graph("MatMul", "x", "fc.weight")

    Args:
      tensors: constants by name, under PyTorch's names and in its layouts.
    """

    def __init__(self, tensors: dict[str, np.ndarray]) -> None:
        self.tensors = tensors
        self.nodes: list[NodeProto] = []
        self._read: dict[str, np.ndarray] = {}

    def __call__(
        self, operator: str, *inputs: str | np.ndarray | np.generic, **attributes: Any
    ) -> str:
        """Adds a node; returns the name of its output.

        Args:
          operator: its ONNX name.
          inputs: names of outputs, of the graph's input or of `tensors`, or constants.
          attributes: of the operator.
        """
        output = f"{operator}_{len(self.nodes)}"
        names = [
            each if isinstance(each, str) else self._constant(np.asarray(each))
            for each in inputs
        ]
        for name in names:
            if name in self.tensors:
                self._read[name] = self.tensors[name]
        self.nodes.append(
            helper.make_node(operator, names, [output], name=output, **attributes)
        )
        return output

    def constants(self) -> list[TensorProto]:
        """Returns what the nodes read of `tensors`, and their own constants."""
        return [
            numpy_helper.from_array(array, name) for name, array in self._read.items()
        ]

    def conv(
        self, x: str, name: str, stride: int = 1, pads: tuple[int, int] | None = None
    ) -> str:
        """A square convolution without bias.

        Args:
          x: name of its input.
          name: of the layer.
          stride: in both directions.
          pads: pixels of zeros before and behind, in both directions; None is half of
            an odd kernel, as `he_conv` has it.
        """
        kernel = self.tensors[f"{name}.weight"].shape[-1]
        lo, hi = pads or (kernel // 2, kernel // 2)
        return self(
            "Conv", x, f"{name}.weight", strides=[stride] * 2, pads=[lo, lo, hi, hi]
        )

    def batch_norm(self, x: str, name: str) -> str:
        """Batch normalization on the running statistics."""
        leaves = ("weight", "bias", "running_mean", "running_var")
        inputs = [f"{name}.{leaf}" for leaf in leaves]
        return self("BatchNormalization", x, *inputs, epsilon=_BATCH_NORM_EPSILON)

    def layer_norm(self, x: str, name: str) -> str:
        """Layer normalization over the last axis."""
        inputs = x, f"{name}.weight", f"{name}.bias"
        return self("LayerNormalization", *inputs, epsilon=_LAYER_NORM_EPSILON)

    def linear(self, x: str, name: str) -> str:
        """x W' + b over the last axis."""
        y = self("MatMul", x, self.tensors[f"{name}.weight"].T)
        return self("Add", y, f"{name}.bias")

    def pixel_mean(self, x: str) -> str:
        """Maps (b, c, h, w) to the mean over the pixels, (b, c)."""
        return self("Flatten", self("GlobalAveragePool", x))

    def _constant(self, array: np.ndarray) -> str:
        name = f"constant_{len(self._read)}"
        self._read[name] = array
        return name
