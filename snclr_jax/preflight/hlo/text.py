"""Reading XLA's text of a compiled program: computations of instructions.

Only what a count of work needs is kept. The text is what `compiled.as_text()` returns:
scheduled, partitioned for one device, operands by name and after what they name.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from typing import NamedTuple

_HEADER = re.compile(r"^(ENTRY )?%([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%([\w.\-]+) = (.*)$")
_ARRAY = re.compile(r"\b([a-z]+\d*\w*)\[([\d,<=]*)\](?:\{([^}]*)\})?")
_NAME = re.compile(r"%([\w.\-]+)")
_OP_NAME = re.compile(r'metadata=\{[^}]*?op_name="([^"]*)"')
_CLOSING = {"(": ")", "{": "}"}


class Array(NamedTuple):
    """One array of a result; see `Instruction.memory` for `space`."""

    dtype: str
    shape: tuple[int, ...]
    space: int

    @property
    def size(self) -> int:
        """Elements."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> float:
        """Bytes without the padding of a tiled layout."""
        digits = re.search(r"\d+", self.dtype)
        # Tokens and opaque values have no size; a pred is a byte.
        bits = int(digits[0]) if digits else 8 * (self.dtype == "pred")
        return self.size * bits / 8


@dataclasses.dataclass(eq=False, repr=False)
class Instruction:
    """One line of a computation.

    Attributes:
      program: that it belongs to.
      name, opcode: as printed.
      results: the arrays of its result, tuples flattened.
      operands: instructions of the same computation.
      literal: what stands between the parentheses (a constant's value).
      attributes: the rest of the line.
      users: the instructions that read it.
    """

    program: Program
    name: str
    opcode: str
    results: tuple[Array, ...]
    operands: tuple[Instruction, ...]
    literal: str
    attributes: str
    users: list[Instruction] = dataclasses.field(default_factory=list)

    @functools.cached_property
    def op_name(self) -> str:
        """The name stack of the traced function it comes from, or ""."""
        match = _OP_NAME.search(self.attributes)
        return match[1] if match else ""

    @property
    def bytes(self) -> float:
        """Bytes of its results."""
        return sum(array.bytes for array in self.results)

    @property
    def memory(self) -> float:
        """Bytes of its results in main memory: without a TPU's memory on the chip.

        Elsewhere a memory space says how memory is allocated, not where it lies.
        """
        on_tpu = self.program.on_tpu
        return sum(a.bytes for a in self.results if not (on_tpu and a.space))

    def attribute(self, key: str) -> str:
        """The value of `key=`, up to the next comma outside of braces; or ""."""
        match = re.search(rf"(?:^|[ ,]){key}=", self.attributes)
        if not match:
            return ""
        rest = self.attributes[match.end() :]
        end = _closing(rest, 0) + 1 if rest[0] in _CLOSING else rest.find(",")
        return rest[:end] if end > 0 else rest

    def called(self, *keys: str) -> list[Computation]:
        """The computations that the attributes `keys` name."""
        names = [name for key in keys for name in _NAME.findall(self.attribute(key))]
        return [self.program.computations[name] for name in names]

    @property
    def fused(self) -> Computation:
        """The computation inside a fusion."""
        return self.called("calls")[0]


class Computation(dict[str, Instruction]):
    """Instructions by name, in order; the one marked ROOT is `root`."""

    root: Instruction

    @functools.cached_property
    def parameters(self) -> dict[int, Instruction]:
        """Parameters by number."""
        ops = (op for op in self.values() if op.opcode == "parameter")
        return {int(op.literal): op for op in ops}


class Program:
    """A compiled program.

    Attributes:
      computations: by name.
      entry: where it starts.
      devices: over how many it is partitioned or replicated.
      on_tpu: its layouts are tiled, as only a TPU's are.
    """

    entry: Computation

    def __init__(self, text: str) -> None:
        self.computations: dict[str, Computation] = {}
        self.on_tpu = ":T(" in text
        header = text[: text.find("\n")]
        counts = re.findall(r"(?:num_partitions|replica_count)=(\d+)", header)
        self.devices = math.prod(map(int, counts))
        inside = Computation()
        for line in text.splitlines():
            if match := _INSTRUCTION.match(line):
                inside[match[2]] = self._parse(inside, match[2], match[3])
                if match[1]:
                    inside.root = inside[match[2]]
            elif match := _HEADER.match(line):
                inside = self.computations[match[2]] = Computation()
                if match[1]:
                    self.entry = inside
        if not hasattr(self, "entry"):
            raise ValueError("this is not the text of a compiled program: no ENTRY")

    def _parse(self, inside: Computation, name: str, rest: str) -> Instruction:
        """Parses `TYPE opcode(operands), attributes`."""
        end = _closing(rest, 0) + 1 if rest[0] == "(" else rest.index(" ")
        opening = rest.index("(", end)
        closing = _closing(rest, opening)
        literal, opcode = rest[opening + 1 : closing], rest[end:opening].strip()
        names = [] if opcode == "constant" else _NAME.findall(literal)
        op = Instruction(
            self,
            name,
            opcode,
            results=tuple(map(_array, _ARRAY.findall(rest[:end]))),
            operands=tuple(inside[operand] for operand in names),
            literal=literal,
            attributes=rest[closing + 1 :],
        )
        for operand in dict.fromkeys(op.operands):
            operand.users.append(op)
        return op


def _array(fields: tuple[str, str, str]) -> Array:
    dtype, shape, layout = fields
    space = re.search(r"S\((\d+)\)", layout)
    sizes = tuple(int(size) for size in re.findall(r"\d+", shape))
    return Array(dtype, sizes, int(space[1]) if space else 0)


def _closing(text: str, opening: int) -> int:
    """Index of the bracket that closes the one at `opening`; skips quoted text."""
    opens, closes = text[opening], _CLOSING[text[opening]]
    depth = 0
    for token in re.compile(rf'"(?:[^"\\]|\\.)*"|[{opens}{closes}]').finditer(
        text, opening
    ):
        depth += (token[0] == opens) - (token[0] == closes)
        if depth == 0:
            return token.start()
    raise ValueError(f"unbalanced {opens} in: {text[:200]}")
