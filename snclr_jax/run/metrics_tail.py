"""A growing `metrics.jsonl`, of which every look reads what is new; without JAX."""

from __future__ import annotations

import json
import math
from pathlib import Path


class MetricsTail:
    """The lines of a growing `metrics.jsonl`; every look reads what is new.

    A continued run writes its file again, up to its last checkpoint. It is known from
    the line before the position read up to, which is then another one.

    Args:
      path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: list[dict[str, float]] = []
        self._position, self._last = 0, b""

    def read(self) -> tuple[list[dict[str, float]], float]:
        """Returns the whole lines so far, and when the last was written; 0 for never.

        What is not a line of numbers is left out, and a line without its end is left
        for the next look.
        """
        try:
            with self._path.open("rb") as file:
                written = self._path.stat().st_mtime
                file.seek(self._position - len(self._last))
                if file.read(len(self._last)) != self._last:
                    self._lines, self._position, self._last = [], 0, b""
                    file.seek(0)
                new = file.read()
        except FileNotFoundError:
            return [], 0.0
        whole = new[: new.rfind(b"\n") + 1].splitlines(keepends=True)
        if whole:
            self._position += sum(map(len, whole))
            self._last = whole[-1]
        self._lines += filter(None, map(_numbers, whole))
        return self._lines, written


def _numbers(line: bytes) -> dict[str, float] | None:
    try:
        metrics = json.loads(line)
        numbers: dict[str, float] = {
            name: value
            for name, value in metrics.items()
            if isinstance(value, int | float) and math.isfinite(value)
        }
    except (ValueError, AttributeError):
        return None
    return numbers if "step" in numbers else None
