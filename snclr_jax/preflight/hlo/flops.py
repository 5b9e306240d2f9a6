"""Floating point operations of one instruction, counted from its shapes.

The rules are those of XLA's own HloCostAnalysis, except that a transcendental counts as
one operation (XLA counts them apart). A comparison or an integer addition counts too.
"""

from __future__ import annotations

import functools
import math
import re

from snclr_jax.preflight.hlo.text import Array, Instruction

_ELEMENTWISE = frozenset(
    """abs add and atan2 cbrt ceil clamp clz compare complex convert cosine
    count-leading-zeros divide erf exponential exponential-minus-one floor imag
    is-finite log log-plus-one logistic maximum minimum multiply negate not or
    popcnt power real reduce-precision remainder round-nearest-afz
    round-nearest-even rsqrt select shift-left shift-right-arithmetic
    shift-right-logical sign sine sqrt subtract tan tanh xor""".split()
)
_CONVOLUTION_CALLS = (
    "__cudnn$convForward",
    "__cudnn$convBiasActivationForward",
    "__cudnn$convBackwardInput",
    "__cudnn$convBackwardFilter",
)
# Custom calls that move, allocate or synchronize and compute nothing.
_NO_ARITHMETIC = re.compile(
    r"AllocateBuffer|AsyncCollective|GatherScatter|ConcatBitcast|Sharding|PadToStatic"
    r"|SliceToDynamic|annotate_device_placement|AssumeGatherIndicesInBound"
)


class Uncounted(Exception):
    """The instruction's arithmetic is unknown; the argument names it."""


def flops(op: Instruction) -> float:
    """Returns the operations of one instruction, called computations left out.

    dot 2 x result x contracted sizes; convolution 2 x the positions where the kernel
    meets the image (padding and dilation zeros left out) x features; reduction one
    call of its function per element that is combined; sort n log2 n comparisons per
    row; elementwise 1 per element; everything that only moves data 0.

    Raises:
      Uncounted: for a custom call that is not known.
    """
    arrays = [operand.results[0] for operand in op.operands if operand.results]
    match op.opcode:
        case opcode if opcode in _ELEMENTWISE:
            return op.results[0].size
        case "dot":
            contracted = _ints(op.attribute("lhs_contracting_dims"))
            return _product(op, arrays[0], contracted)
        case "convolution":
            return _convolution(op, arrays[0], arrays[1], op.results[0])
        case "reduce" | "reduce-window" | "select-and-scatter" | "scatter" | "map":
            return _combinations(op, arrays) * _function(op)
        case "sort":
            (dimension,) = _ints(op.attribute("dimensions"))
            return arrays[0].size * _log2(arrays[0].shape[dimension])
        case "all-reduce" | "reduce-scatter" | "all-reduce-start":
            return sum(array.size for array in arrays)
        case "custom-call":
            return _custom_call(op, arrays)
    return 0.0


def _product(op: Instruction, left: Array, contracted: tuple[int, ...]) -> float:
    return 2 * op.results[0].size * math.prod(left.shape[i] for i in contracted)


def _log2(size: int) -> int:
    return math.ceil(math.log2(max(size, 2)))


def _combinations(op: Instruction, arrays: list[Array]) -> float:
    """How often a reduction or scatter calls its function."""
    match op.opcode:
        case "map":
            return op.results[0].size
        case "reduce":
            return arrays[0].size - op.results[0].size
        case "scatter":
            return arrays[-1].size
    if op.opcode == "reduce-window":
        return _windows(op, arrays[0].shape)
    return arrays[1].size * math.prod(axis[0] for axis in _window(op))


def _windows(op: Instruction, shape: tuple[int, ...]) -> float:
    """Combinations of a reduce-window.

    A TPU's compiler writes a softmax's sum, which every element of the row needs, as
    windows that each hold the whole row and padding: that is one reduction of the row.
    """
    outputs = window = 1
    for length, results, (size, stride, pad, *_) in zip(
        shape, op.results[0].shape, _window(op), strict=True
    ):
        whole = pad >= (results - 1) * stride and size >= length + pad
        outputs *= 1 if whole else results
        window *= length if whole else size
    return outputs * (window - 1)


def _function(op: Instruction) -> float:
    """Operations of one call of a scalar function."""
    functions = op.called("to_apply") or op.called("select", "scatter")
    return sum(flops(inner) for function in functions for inner in function.values())


def _custom_call(op: Instruction, arrays: list[Array]) -> float:
    target = op.attribute("custom_call_target").strip('"')
    # A triangular solve is one of cuBLAS that contracts nothing.
    contracting = r'"lhs_contracting_dimensions":\[([^\]]*)\]'
    match = re.search(contracting, op.attributes)
    if target.startswith("__cublas") and match:
        return _product(op, arrays[0], _ints(match[1]))
    if target in _CONVOLUTION_CALLS:
        left, right, result = arrays[0], arrays[1], op.results[0]
        # Both gradients are counted as the forward convolution that they belong to.
        if target == "__cudnn$convBackwardInput":
            left, result = result, left
        elif target == "__cudnn$convBackwardFilter":
            right, result = result, right
        return _convolution(op, left, right, result)
    if target in ("TopK", "__gpu$TopK"):
        # Every element is compared with the smallest of the best k, a heap's price.
        return arrays[0].size * _log2(op.results[0].shape[-1])
    if _NO_ARITHMETIC.search(target):
        return 0.0
    raise Uncounted(f"custom call {target}")


def _window(op: Instruction) -> list[tuple[int, ...]]:
    """Of each axis: size, stride, padding in front, dilations of image and kernel."""
    fields = dict(re.findall(r"(\w+)=([^\s{}]+)", op.attribute("window")))
    size = _ints(fields.get("size", ""))
    ones = "1x" * len(size)
    pad = _ints(fields.get("pad", "0_0x" * len(size)))[::2]
    stride, *dilations = (
        _ints(fields.get(key, ones)) for key in ("stride", "lhs_dilate", "rhs_dilate")
    )
    return list(zip(size, stride, pad, *dilations, strict=True))


def _convolution(op: Instruction, image: Array, kernel: Array, result: Array) -> float:
    left, rest = op.attribute("dim_labels").split("_")
    right, out = rest.split("->")
    groups = int(op.attribute("feature_group_count") or 1)
    batch_groups = int(op.attribute("batch_group_count") or 1)
    positions = math.prod(
        _valid_positions(
            image.shape[left.index(str(axis))],
            result.shape[out.index(str(axis))],
            *field,
        )
        for axis, field in enumerate(_window(op))
    )
    features = image.shape[left.index("f")] // groups * result.shape[out.index("f")]
    return 2.0 * positions * features * (image.shape[left.index("b")] // batch_groups)


@functools.cache
def _valid_positions(
    image: int,
    result: int,
    size: int,
    stride: int,
    pad: int,
    lhs_dilate: int,
    rhs_dilate: int,
) -> int:
    """How many (output, kernel) pairs of one axis meet an element of the image."""
    count = 0
    for first in range(-pad, size * rhs_dilate - pad, rhs_dilate):
        low = max(0, -(first // stride))
        high = min(result - 1, ((image - 1) * lhs_dilate - first) // stride)
        inside = range(first + low * stride, first + high * stride + 1, stride)
        # Where every position holds an element, there is nothing to look at.
        holes = lhs_dilate > 1
        count += sum(p % lhs_dilate == 0 for p in inside) if holes else len(inside)
    return count


def _ints(text: str) -> tuple[int, ...]:
    """The integers in a list such as {0,1} or 3x3."""
    return tuple(int(number) for number in re.findall(r"-?\d+", text))
