"""Text for a terminal: curves, durations, and a table that is drawn over itself."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Sequence

BARS = "▁▂▃▄▅▆▇█"
BOLD, RED, YELLOW = 1, 31, 33
UNITS = (("d", 86400, ".1f"), ("h", 3600, ".1f"), ("min", 60, ".0f"), ("s", 1, ".0f"))
# Text of a line, and its ANSI style, 0 for none.
Line = tuple[str, int]


def sparkline(values: Sequence[float], width: int) -> str:
    """Returns a curve of at most `width` bars, each the mean of as many values.

    Example:
      >>> sparkline([8.0, 6.0, 4.0, 2.0, 1.0], 12)
      '█▆▄▂▁'
    """
    count = min(width, len(values))
    edges = [len(values) * place // count for place in range(count + 1)]
    means = [
        statistics.fmean(values[start:end])
        for start, end in zip(edges[:-1], edges[1:], strict=True)
    ]
    low, span = min(means), max(means) - min(means)
    return "".join(
        BARS[round((mean - low) / span * (len(BARS) - 1))] if span else BARS[0]
        for mean in means
    )


def duration(seconds: float) -> str:
    """Returns a time that is read at a glance.

    Example:
      >>> [duration(seconds) for seconds in (42, 200, 9000, 200_000)]
      ['42 s', '3 min', '2.5 h', '2.3 d']
    """
    unit, size, form = next((u for u in UNITS if seconds >= u[1]), UNITS[-1])
    return f"{max(seconds, 0) / size:{form}} {unit}"


def table(
    rows: Sequence[dict[str, str]], styles: Sequence[int], width: int
) -> list[Line]:
    """Returns one line for each row, none of them wider than `width`.

    Columns that do not fit follow in another block, which begins with the first column
    again. A column without any text is left out.

    Args:
      rows: texts by column, the columns of all rows alike and in order.
      styles: ANSI style of each row.
      width: in characters.
    """
    columns = {name: [name, *(row[name] for row in rows)] for name in rows[0]}
    first, *names = (name for name, column in columns.items() if any(column[1:]))
    widths = {name: max(map(len, columns[name])) for name in (first, *names)}
    blocks = [[first]]
    for name in names:
        used = sum(widths[each] + 2 for each in blocks[-1])
        if len(blocks[-1]) > 1 and used + widths[name] > width:
            blocks.append([first])
        blocks[-1].append(name)
    lines = []
    for block in blocks:
        for i, style in enumerate((BOLD, *styles)):
            cells = (f"{columns[name][i]:{widths[name]}}" for name in block)
            lines.append(("  ".join(cells)[:width].rstrip(), style))
    return lines


def draw(lines: Sequence[Line], *, over: int) -> int:
    """Draws lines over the `over` ones above the cursor; returns how many it drew."""
    # What is scrolled out of the terminal could not be drawn over.
    lines = lines[: max(shutil.get_terminal_size().lines - 1, 1)]
    up = f"\x1b[{over}A" if over else ""
    text = "\n".join(f"\x1b[{style}m{text}\x1b[0m" for text, style in lines)
    print(f"{up}\r\x1b[J{text}", flush=True)
    return len(lines)
