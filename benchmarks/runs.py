"""Runs of the command line that a benchmark compares, each a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RUNS = Path("runs/benchmarks")


def as_folder(name: str) -> str:
    """Returns a name of a folder: letters and digits stay, the rest become dashes."""
    return "".join(c if c.isalnum() else "-" for c in name)


def run(
    recipe: str, name: str, settings: Mapping[str, Any], *, seed: int
) -> dict[str, float]:
    """Trains once, or reads what an earlier call left, and returns the summary.

    Args:
      recipe: name of a file in configs/.
      name: what to call the run; its folder is made of it.
      settings: values by dotted field.
      seed: of the run.
    """
    workdir = RUNS / recipe / f"{as_folder(name)}-{seed}"
    summary = workdir / "summary.json"
    if not summary.exists():
        command = [
            Path(sys.executable).with_name("snclr"),
            "train",
            f"--config=configs/{recipe}.py",
            f"--workdir={workdir}",
            f"--config.seed={seed}",
            *(f"--config.{field}={value}" for field, value in settings.items()),
        ]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return json.loads(summary.read_text(encoding="utf-8"))
