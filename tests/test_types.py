"""The annotations hold, as pyrefly reads them; pyproject.toml has its settings."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PYREFLY = Path(sys.executable).parent / "pyrefly"


def test_the_type_checker_finds_nothing():
    checker = [PYREFLY, "check", "--python-interpreter-path", sys.executable]
    done = subprocess.run(
        [*checker, "--output-format", "json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    findings = [
        f"{each['path']}:{each['line']}: {each['description']} ({each['name']})"
        for each in json.loads(done.stdout)["errors"]
    ]
    assert not findings, "\n".join(["", *findings])
