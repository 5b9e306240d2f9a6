"""benchmarks/gpu.sh: every measurement once, whatever becomes of it, and a table."""

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu.sh"
# In place of Python and of snclr: says what was asked, and what they would print.
STAND_IN = """#!/bin/sh
echo "$XLA_FLAGS $*" >>"$CALLS"
case "$*" in
  *torch_step.py*) echo "No module named torch"; exit 1 ;;
  *step.py*) echo "batch 256, with feed: 9.66 ms a step, 26499 images/s" ;;
  train*)
    for word; do case $word in --workdir=*) workdir=${word#*=} ;; esac; done
    mkdir -p "$workdir"
    echo '{"knn_trained": 82.5, "train_seconds": 300, "images_per_second": 9}' \
      >"$workdir/summary.json" ;;
esac
"""


@pytest.fixture
def measure(tmp_path):
    """Returns a function that calls the script, with its status and what it asked."""
    stand_in = tmp_path / "stand_in"
    stand_in.write_text(STAND_IN)
    stand_in.chmod(0o755)
    calls, runs = tmp_path / "calls", tmp_path / "runs"
    names = dict(PYTHON=stand_in, SNCLR=stand_in, CALLS=calls, RUNS=runs)

    def measure(minutes: int) -> tuple[int, list[str]]:
        calls.write_text("")
        environment = os.environ | {name: str(path) for name, path in names.items()}
        command = [str(SCRIPT), str(tmp_path), str(minutes)]
        ended = subprocess.run(command, env=environment, capture_output=True)
        return ended.returncode, calls.read_text().splitlines()

    return measure


def test_each_measurement_is_made_once_and_stands_in_the_table(measure, tmp_path):
    assert measure(0) == (124, [])  # no time, and so not complete
    status, calls = measure(9)
    assert status == 0
    first = [call.partition("benchmarks/")[2] for call in calls[:2]]
    assert first == ["step.py imagenet_vit_s16 256", "step.py cifar10 256 512"]
    assert sum(call.startswith("train ") or " train " in call for call in calls) == 2
    assert any("command_buffer= " in call for call in calls)
    table = (tmp_path / "runs" / "table.md").read_text()
    assert "| cifar10 | with feed | 256 | 9.66 | 26499 |" in table
    assert "| torch_vit | ended with status 1" in table
    assert "run_512:\n\n| run | kNN |" in table
    assert measure(9) == (0, [])
