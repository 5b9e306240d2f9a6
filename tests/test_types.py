"""The annotations hold, as pyright reads them; pyproject.toml has its settings."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_type_checker_finds_nothing():
    checker = [sys.executable, "-m", "basedpyright", "--outputjson"]
    done = subprocess.run(
        [*checker, "--pythonpath", sys.executable],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    report = json.loads(done.stdout)
    files = [*ROOT.glob("snclr_jax/**/*.py"), *ROOT.glob("configs/*.py")]
    assert report["summary"]["filesAnalyzed"] == len(files)
    findings = [
        f"{Path(each['file']).relative_to(ROOT)}:{each['range']['start']['line'] + 1}: "
        f"{each['message']} ({each.get('rule', 'syntax')})"
        for each in report["generalDiagnostics"]
    ]
    assert not findings, "\n".join(["", *findings])
