"""Reading XLA's text of a compiled program: computations of instructions.

Only what a count of work needs is kept. The text is what `compiled.as_text()` returns:
scheduled, partitioned for one device, operands by name.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections import defaultdict
from typing import NamedTuple

_HEADER = re.compile(r"^(ENTRY )?%([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%([\w.\-]+) = (.*)$")
_ARRAY = re.compile(r"\b([a-z]+\d*\w*)\[([\d,<=]*)\](?:\{([^}]*)\})?")
_SPACE = re.compile(r"S\((\d+)\)")
_NAME = re.compile(r"%([\w.\-]+)")
_OP_NAME = re.compile(r'metadata=\{[^}]*?op_name="([^"]*)"')
_CLOSING = {"(": ")", "{": "}"}


class Array(NamedTuple):
    """One array of a result; `space` 0 is the main memory (see `Program.on_chip`)."""

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


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation.

    Attributes:
      name, opcode: as printed.
      results: the arrays of its result, tuples flattened.
      operands: names of instructions of the same computation.
      literal: what stands between the parentheses (a constant's value).
      attributes: the rest of the line.
    """

    name: str
    opcode: str
    results: tuple[Array, ...]
    operands: tuple[str, ...]
    literal: str
    attributes: str

    @functools.cached_property
    def op_name(self) -> str:
        """The name stack of the traced function it comes from, or ""."""
        found = _OP_NAME.search(self.attributes)
        return found[1] if found else ""

    def attribute(self, key: str) -> str:
        """The value of `key=`, up to the next comma outside of braces; or ""."""
        found = re.search(rf"(?:^|[ ,]){key}=", self.attributes)
        if not found:
            return ""
        rest = self.attributes[found.end() :]
        end = _closing(rest, 0) + 1 if rest[0] in _CLOSING else rest.find(",")
        return rest[:end] if end > 0 else rest

    def called(self, *keys: str) -> list[str]:
        """Names of the computations that the attributes `keys` hold."""
        return [name for key in keys for name in _NAME.findall(self.attribute(key))]


class Computation:
    """Instructions by name, in order; the last one marked ROOT is `root`."""

    def __init__(self) -> None:
        self.instructions: dict[str, Instruction] = {}
        self.root: Instruction  # set by `Program`

    def __getitem__(self, name: str) -> Instruction:
        return self.instructions[name]

    @functools.cached_property
    def users(self) -> dict[str, list[Instruction]]:
        """The instructions that read each instruction."""
        users = defaultdict(list)
        for instruction in self.instructions.values():
            for operand in set(instruction.operands):
                users[operand].append(instruction)
        return users

    @functools.cached_property
    def parameters(self) -> dict[int, Instruction]:
        """Parameters by number."""
        return {
            int(each.literal): each
            for each in self.instructions.values()
            if each.opcode == "parameter"
        }

    def operand(self, instruction: Instruction, index: int) -> Instruction:
        """The instruction that is operand `index`."""
        return self.instructions[instruction.operands[index]]


class Program:
    """A compiled program.

    Attributes:
      computations: by name.
      entry: where it starts.
      devices: over how many it is partitioned or replicated.
      on_tpu: its layouts are tiled, as only a TPU's are.
    """

    def __init__(self, text: str) -> None:
        self.computations: dict[str, Computation] = {}
        self.on_tpu = ":T(" in text
        header = text[: text.find("\n")]
        counts = re.findall(r"(?:num_partitions|replica_count)=(\d+)", header)
        self.devices = math.prod(map(int, counts))
        computation, entry = None, None
        for line in text.splitlines():
            if computation is not None and (found := _INSTRUCTION.match(line)):
                instruction = _parse(found[2], found[3])
                computation.instructions[instruction.name] = instruction
                if found[1]:
                    computation.root = instruction
            elif found := _HEADER.match(line):
                computation = self.computations[found[2]] = Computation()
                entry = computation if found[1] else entry
        if entry is None:
            raise ValueError("this is not the text of a compiled program: no ENTRY")
        self.entry: Computation = entry

    def main_memory(self, array: Array) -> float:
        """Bytes that an array occupies in main memory: 0 in a TPU's on-chip memory.

        Elsewhere a memory space says how memory is allocated, not where it lies.
        """
        return 0.0 if self.on_tpu and array.space else array.bytes


def _parse(name: str, rest: str) -> Instruction:
    """Parses `TYPE opcode(operands), attributes`."""
    end = _closing(rest, 0) + 1 if rest[0] == "(" else rest.index(" ")
    opening = rest.index("(", end)
    closing = _closing(rest, opening)
    literal = rest[opening + 1 : closing]
    opcode = rest[end:opening].strip()
    return Instruction(
        name=name,
        opcode=opcode,
        results=tuple(map(_array, _ARRAY.findall(rest[:end]))),
        operands=() if opcode == "constant" else tuple(_NAME.findall(literal)),
        literal=literal,
        attributes=rest[closing + 1 :],
    )


def _array(found: tuple[str, str, str]) -> Array:
    dtype, shape, layout = found
    space = _SPACE.search(layout)
    sizes = tuple(int(size) for size in re.findall(r"\d+", shape))
    return Array(dtype, sizes, int(space[1]) if space else 0)


def _closing(text: str, opening: int) -> int:
    """Index of the bracket that closes the one at `opening`; skips quoted text."""
    opens, closes = text[opening], _CLOSING[text[opening]]
    depth = 0
    for found in re.compile(rf'"(?:[^"\\]|\\.)*"|[{opens}{closes}]').finditer(
        text, opening
    ):
        depth += (found[0] == opens) - (found[0] == closes)
        if depth == 0:
            return found.start()
    raise ValueError(f"unbalanced {opens} in: {text[:200]}")
