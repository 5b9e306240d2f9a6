"""Floating point operations of one instruction, counted from its shapes.

The rules are those of XLA's own HloCostAnalysis, except that a transcendental counts as
one operation (XLA counts them apart). A comparison or an integer addition counts too.
"""

from __future__ import annotations

import functools
import math
import re
from typing import NamedTuple

from snclr_jax.preflight.hlo.text import Array, Computation, Instruction, Program

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


def flops(program: Program, computation: Computation, op: Instruction) -> float:
    """Returns the operations of one instruction, called computations left out.

    dot 2 x result x contracted sizes; convolution 2 x the positions where the kernel
    meets the image (padding and dilation zeros left out) x features; reduction one
    call of its function per element that is combined; sort n log2 n comparisons per
    row; elementwise 1 per element; everything that only moves data 0.

    Raises:
      Uncounted: for a custom call that is not known.
    """
    match op.opcode:
        case opcode if opcode in _ELEMENTWISE:
            return op.results[0].size
        case "dot":
            contracted = _ints(op.attribute("lhs_contracting_dims"))
            left = computation.operand(op, 0).results[0]
            return 2 * op.results[0].size * math.prod(left.shape[i] for i in contracted)
        case "convolution":
            left, right = (computation.operand(op, i).results[0] for i in (0, 1))
            return _convolution(op, left, right, op.results[0])
        case "reduce" | "reduce-window" | "select-and-scatter" | "scatter" | "map":
            return _combinations(computation, op) * _function(program, op)
        case "sort":
            return _sort(op, computation.operand(op, 0).results[0])
        case "all-reduce" | "reduce-scatter" | "all-reduce-start":
            sizes = [computation[name].results[0].size for name in op.operands]
            return sum(sizes)
        case "custom-call":
            return _custom_call(computation, op)
    return 0.0


def _combinations(computation: Computation, op: Instruction) -> float:
    """How often a reduction or scatter calls its function."""
    first = computation.operand(op, 0).results[0]
    match op.opcode:
        case "map":
            return op.results[0].size
        case "reduce":
            return first.size - op.results[0].size
        case "scatter":
            return computation[op.operands[-1]].results[0].size
    window = math.prod(_Window.of(op).size) - 1
    if op.opcode == "reduce-window":
        return op.results[0].size * window
    source = computation.operand(op, 1).results[0].size
    return source * (window + 1)


def _function(program: Program, op: Instruction) -> float:
    """Operations of one call of a scalar function."""
    names = op.called("to_apply") or op.called("select", "scatter")
    return sum(
        flops(program, program.computations[name], each)
        for name in names
        for each in program.computations[name].instructions.values()
    )


def _sort(op: Instruction, keys: Array) -> float:
    (dimension,) = _ints(op.attribute("dimensions"))
    return keys.size * math.ceil(math.log2(max(keys.shape[dimension], 2)))


def _custom_call(computation: Computation, op: Instruction) -> float:
    target = op.attribute("custom_call_target").strip('"')
    shapes = [computation[name].results[0] for name in op.operands]
    # A triangular solve is one of cuBLAS that contracts nothing.
    contracting = r'"lhs_contracting_dimensions":\[([^\]]*)\]'
    found = re.search(contracting, op.attributes)
    if target.startswith("__cublas") and found:
        contracted = math.prod(shapes[0].shape[i] for i in _ints(found[1]))
        return 2 * op.results[0].size * contracted
    if target in _CONVOLUTION_CALLS:
        left, right, result = shapes[0], shapes[1], op.results[0]
        # Both gradients are counted as the forward convolution that they belong to.
        if target == "__cudnn$convBackwardInput":
            left, result = result, left
        elif target == "__cudnn$convBackwardFilter":
            right, result = result, right
        return _convolution(op, left, right, result)
    if target in ("TopK", "__gpu$TopK"):
        # Every element is compared with the smallest of the best k, a heap's price.
        return shapes[0].size * math.ceil(math.log2(max(op.results[0].shape[-1], 2)))
    if _NO_ARITHMETIC.search(target):
        return 0.0
    raise Uncounted(f"custom call {target}")


class _Window(NamedTuple):
    size: tuple[int, ...]
    stride: tuple[int, ...]
    pad: tuple[int, ...]  # before the first element
    lhs_dilate: tuple[int, ...]
    rhs_dilate: tuple[int, ...]

    @classmethod
    def of(cls, op: Instruction) -> _Window:
        fields = dict(re.findall(r"(\w+)=([^\s{}]+)", op.attribute("window")))
        size = _ints(fields.get("size", ""))
        ones = (1,) * len(size)

        def per_dimension(key: str) -> tuple[int, ...]:
            return _ints(fields[key]) if key in fields else ones

        pairs = fields["pad"].split("x") if "pad" in fields else ["0_0"] * len(size)
        pad = tuple(int(pair.split("_")[0]) for pair in pairs)
        return cls(
            size,
            per_dimension("stride"),
            pad,
            per_dimension("lhs_dilate"),
            per_dimension("rhs_dilate"),
        )


def _convolution(op: Instruction, image: Array, kernel: Array, result: Array) -> float:
    left, rest = op.attribute("dim_labels").split("_")
    right, out = rest.split("->")
    groups = int(op.attribute("feature_group_count") or 1)
    batch_groups = int(op.attribute("batch_group_count") or 1)
    window = _Window.of(op)
    positions = 1
    for axis in range(len(left) - 2):
        label = str(axis)
        positions *= _valid_positions(
            image.shape[left.index(label)],
            result.shape[out.index(label)],
            *(field[axis] for field in window),
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
    end = (image - 1) * lhs_dilate
    count = 0
    for tap in range(size):
        first = tap * rhs_dilate - pad
        # Outputs o with 0 <= o * stride + first <= end, counted in closed form where
        # every place holds an element.
        low = max(0, -(first // stride))
        high = min(result - 1, (end - first) // stride)
        if lhs_dilate == 1:
            count += max(0, high - low + 1)
        else:
            count += sum(
                (o * stride + first) % lhs_dilate == 0 for o in range(low, high + 1)
            )
    return count


def _ints(text: str) -> tuple[int, ...]:
    """The integers in a list such as {0,1} or 3x3."""
    return tuple(int(number) for number in re.findall(r"-?\d+", text))
