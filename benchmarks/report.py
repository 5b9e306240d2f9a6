"""Writes one benchmark's section of benchmarks/RESULTS.md, in place of the old one."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

RESULTS = Path(__file__).with_name("RESULTS.md")


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Returns a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def origin(command: str, packages: Sequence[str], *, timed: bool) -> str:
    """Returns where figures come from: command, hardware, versions and date.

    Args:
      command: the shell command that makes the section again.
      packages: whose installed versions are stated.
      timed: state the machine's load too; call it before the first measurement.
    """
    versions = [f"{name} {importlib.metadata.version(name)}" for name in packages]
    parts = [
        f"{os.cpu_count()} CPU cores ({platform.machine()})",
        f"Python {'.'.join(platform.python_version_tuple()[:2])}",
        *versions,
    ]
    if timed:
        parts.append(f"load average {os.getloadavg()[0]:.1f} at the start")
    today = datetime.datetime.now(datetime.UTC).date()
    return f"`{command}`; {', '.join(parts)}; {today}."


def write(heading: str, *paragraphs: str) -> None:
    """Prints the paragraphs and puts them under `## heading` for what stood there."""
    section = "\n\n".join([f"## {heading}", *paragraphs]) + "\n"
    print(section)
    before = RESULTS.read_text(encoding="utf-8")
    parts = re.split(r"^(?=## )", before, flags=re.MULTILINE)
    titles = [part.splitlines()[0] for part in parts]
    if f"## {heading}" in titles:
        parts[titles.index(f"## {heading}")] = section
    else:
        parts.append(section)
    RESULTS.write_text(
        "\n".join(part.rstrip("\n") + "\n" for part in parts), encoding="utf-8"
    )
