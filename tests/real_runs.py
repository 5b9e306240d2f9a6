"""Runs of `train_and_dump.py` in processes of their own, to be stopped and killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from snclr_jax.data.feed import Feed
from snclr_jax.run.metrics import read_metrics

HERE = Path(__file__).parent
STEPS = 81  # 1,300 digits in batches of 16


class RealRun:
    """The processes of one run, which starts or continues in a workdir.

    Args:
      workdir: of the run; `output` is written beside it at the end.
      processes: how many.
      devices: of each process.
    """

    def __init__(self, workdir: Path, *, processes: int = 1, devices: int = 1) -> None:
        self.workdir, self.output = workdir, workdir.with_suffix(".npz")
        environment = os.environ | {
            "JAX_PLATFORMS": "cpu",
            # The last of a flag counts.
            "XLA_FLAGS": os.environ["XLA_FLAGS"]
            + f" --xla_force_host_platform_device_count={devices}",
            "PYTHONPATH": str(HERE),
        }
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.processes = [
            subprocess.Popen(
                [
                    *(sys.executable, HERE / "train_and_dump.py", workdir, self.output),
                    *((str(processes), str(index), str(port)) if processes > 1 else ()),
                ],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for index in range(processes)
        ]

    def wait_for(self, happens) -> None:
        """Returns when `happens()` is true."""
        while not happens():
            if any(process.poll() is not None for process in self.processes):
                codes, said = self.end()
                raise AssertionError(f"ended with {codes}: {said}")
            time.sleep(0.002)

    def wait_for_step(self, step: int) -> None:
        """Returns when the metrics of a step are written."""

        def is_written() -> bool:
            lines = read_metrics(self.workdir)
            return bool(lines) and lines[-1]["step"] >= step

        self.wait_for(is_written)

    def wait_for_save(self) -> None:
        """Returns while a checkpoint is being written."""
        self.wait_for(lambda: any(self.workdir.glob("checkpoints/*tmp*")))

    def kill(self) -> None:
        """Kills every process."""
        for process in self.processes:
            process.send_signal(signal.SIGKILL)
        codes, _ = self.end()
        assert set(codes) == {-signal.SIGKILL}, "it ended before it was killed"

    def end(self, *, seconds: float = 300) -> tuple[list[int], str]:
        """Returns the exit statuses and what was printed, when all have ended."""
        try:
            said = [each.communicate(timeout=seconds)[0] for each in self.processes]
        finally:
            for process in self.processes:
                process.kill()
        return [process.returncode for process in self.processes], "".join(said)

    def finish(self) -> dict[str, np.ndarray]:
        """Returns the final state, when the run has come to its end."""
        codes, said = self.end()
        assert set(codes) == {0}, said
        with np.load(self.output) as arrays:
            return dict(arrays)


def assert_same_bits(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> None:
    """Every leaf of two final states."""
    assert a.keys() == b.keys()
    assert a[".step"] == b[".step"] == STEPS
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def interrupt_at_batch(number: int, monkeypatch) -> None:
    taken = []
    next_batch = Feed.next

    def next_and_interrupt(feed, under_way=None, **steps):
        taken.append(None)
        if len(taken) == number:
            os.kill(os.getpid(), signal.SIGTERM)
        return next_batch(feed, under_way, **steps)

    monkeypatch.setattr(Feed, "next", next_and_interrupt)
