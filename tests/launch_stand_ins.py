"""A checkout and programs that stand in for a cloud, for test_launch*.py."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
FLAGS = (
    "--name=snclr-run",
    "--zone=us-west4-a",
    "--type=v5litepod-8",
    "--workdir=gs://bucket/a run",
    "--config=configs/digits.py:debug",
)
# Runs as `snclr`: preflight says what the file says; the first train waits to be killed
# where the file `waits` exists, and every train writes down how it was called.
SNCLR = """#!/usr/bin/env bash
echo "$(printf '%q ' "$@")" >>"$FAKE/snclr.calls"
case $1 in
  preflight) exit "$(cat "$FAKE/preflight" 2>/dev/null || echo 0)" ;;
  train)
    echo "step 1 loss 2"
    if mv "$FAKE/waits" "$FAKE/waited" 2>/dev/null; then
      trap 'echo saved; exit 143' TERM
      while :; do sleep 0.05; done
    fi
    exit "$(cat "$FAKE/train" 2>/dev/null || echo 0)" ;;
esac
"""
# Runs as `python3` on a worker: `python3 -m uv venv` leaves an installed snclr behind.
# Nothing is installed where the file `install` exists.
PYTHON3 = """#!/usr/bin/env bash
echo "$PWD: $*" >>"$FAKE/python3.calls"
[[ ! -e $FAKE/install ]] || exit 1
if [[ $* == *"uv venv"* ]]; then
  mkdir -p .venv/bin && cp "$FAKE/bin/snclr" "$FAKE/bin/python3" .venv/bin/
  mv .venv/bin/python3 .venv/bin/python
fi
"""


MOUNT = '#!/usr/bin/env bash\necho "$(basename "$0") $*" >>"$FAKE/mount.calls"\n'
STAND_INS = {
    "snclr": SNCLR,
    "python3": PYTHON3,
    "sudo": MOUNT,
    "gcsfuse": MOUNT,
    "mountpoint": MOUNT + "exit 1\n",
}


class Cloud:
    """A checkout with launch/, and programs on the PATH that stand in for the cloud."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.checkout = folder, folder / "a checkout"
        (self.folder / "bin").mkdir()
        for name, text in STAND_INS.items():
            self.add(name, text)
        fake = (ROOT / "tests" / "fake_gcloud").read_text()
        self.add(
            "gcloud", fake.replace("/usr/bin/env python3", f"{sys.executable} -IS", 1)
        )
        for part in ("launch", "configs"):
            shutil.copytree(ROOT / part, self.checkout / part)
        git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", self.checkout]
        for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "all"]):
            subprocess.run([*git, *command], check=True)

    def add(self, name: str, text: str) -> None:
        path = self.folder / "bin" / name
        path.write_text(text)
        path.chmod(0o755)

    def run(self, script: str, *arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [self.checkout / "launch" / script, *arguments],
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=60,
        )

    def environment(self) -> dict[str, str]:
        return os.environ | {
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "FAKE": str(self.folder),
            "POLL_SECONDS": "0.05",
        }

    def tpu(self, command: str, *arguments: str) -> subprocess.CompletedProcess:
        return self.run("tpu.sh", command, *FLAGS, *arguments)

    def calls(self) -> list[list[str]]:
        """Every call of gcloud, without `compute tpus`."""
        return [json.loads(line)[2:] for line in self.lines("calls.jsonl")]

    def verbs(self) -> list[str]:
        """What was done to the queued resource, without looking at it."""
        verbs = [call[1] for call in self.calls() if call[0] == "queued-resources"]
        return [verb for verb in verbs if verb != "describe"]

    def lines(self, name: str) -> list[str]:
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []

    def end(self) -> None:
        for pid in self.folder.glob("homes/*/*/snclr-state/pid"):
            try:
                os.killpg(int(pid.read_text()), signal.SIGKILL)
            except ProcessLookupError:
                pass


def ok(process: subprocess.CompletedProcess) -> str:
    assert process.returncode == 0, process.stderr
    return process.stdout + process.stderr


def wait_for(cloud: Cloud, flags: tuple[str, ...], text: str, *, times: int = 1) -> str:
    end = time.monotonic() + 30
    while (said := ok(cloud.tpu("status", *flags))).count(text) < times:
        assert time.monotonic() < end, said
    return said
