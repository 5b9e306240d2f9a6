"""Injects faults into real runs, and prints what they cost as the tables of
docs/reliability.md.

python benchmarks/reliability.py [--times=5]

Each run is `snclr train` of the digits recipe at debug size; what saving takes is
measured with the recipe's own network, queue and batch.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
from snclr_jax.configs import digits

from snclr_jax.run.checkpoint import Checkpoints
from snclr_jax.run.checkpoint_reader import find_checkpoint, read_json, saved_steps
from snclr_jax.run.metrics import read_metrics
from snclr_jax.train import train

# 93 steps.
COMMAND = (
    str(Path(sys.executable).with_name("snclr")),
    "train",
    "--config=configs/digits.py:debug",
    "--config.checkpoint.every_steps=10",
    "--config.log.every_steps=1",
)
ENVIRONMENT = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONUNBUFFERED": "1"}
FIRST, LAST = 21, 70  # the steps that are hit: behind a checkpoint, before the end


class Run:
    """A run in a process of its own, started or continued."""

    def __init__(self, workdir: Path) -> None:
        self.workdir = workdir
        self.process = subprocess.Popen(
            [*COMMAND, f"--workdir={workdir}"],
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def until(self, happens: Callable[[], bool]) -> None:
        """Returns when something has happened."""
        while not happens():
            if self.process.poll() is not None:
                raise RuntimeError(self.process.communicate()[0])
            time.sleep(0.002)

    def until_step(self, step: int) -> None:
        """Returns when a step's metrics are written."""
        self.until(lambda: reached(self.workdir) >= step)

    def kill(self) -> None:
        """Ends it as a machine that is gone does."""
        self.process.kill()
        self.process.wait()

    def until_training(self) -> int:
        """Returns the step that it continues from, when the next one is reported."""
        first = -1
        for line in self.process.stdout:
            if found := re.search(r": steps (\d+) to ", line):
                first = int(found[1])
            if line.startswith("step "):
                return first
        raise RuntimeError(f"{self.workdir} did not continue")

    def finish(self) -> dict[str, str]:
        """Returns the digests of the last checkpoint's arrays."""
        said = self.process.communicate()[0]
        if self.process.returncode != 0:
            raise RuntimeError(said)
        found = read_json(find_checkpoint(self.workdir), "digest")
        del found["clock"]  # no two runs take the same time
        return found


def reached(workdir: Path) -> int:
    """Returns the last step whose metrics are written."""
    return max((int(line["step"]) for line in read_metrics(workdir)), default=0)


def kill(run: Run, draw: random.Random) -> None:
    """Kills it at any step."""
    run.until_step(draw.randint(FIRST, LAST))
    run.kill()


def kill_in_save(run: Run, draw: random.Random) -> None:
    """Kills it while a checkpoint is being written."""
    run.until_step(draw.randint(FIRST, LAST))
    run.until(lambda: any(run.workdir.glob("checkpoints/*tmp*")))
    run.kill()


def ask_to_stop(run: Run, draw: random.Random) -> None:
    """SIGTERM at any step."""
    run.until_step(draw.randint(FIRST, LAST))
    run.process.send_signal(signal.SIGTERM)
    run.process.communicate()


def kill_behind_two(run: Run, draw: random.Random) -> None:
    """Kills it at any step, when two checkpoints are whole."""
    run.until(lambda: len(saved_steps(run.workdir)) > 1)
    kill(run, draw)


def change_a_bit(run: Run, draw: random.Random) -> None:
    """Kills it, and flips a bit in the largest file of the newest checkpoint."""
    kill_behind_two(run, draw)
    file = max(state_files(run.workdir), key=lambda path: path.stat().st_size)
    content = bytearray(file.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    file.write_bytes(content)


def cut(run: Run, draw: random.Random) -> None:
    """Kills it, and halves the largest file of the newest checkpoint."""
    kill_behind_two(run, draw)
    file = max(state_files(run.workdir), key=lambda path: path.stat().st_size)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def state_files(workdir: Path) -> list[Path]:
    """Returns the files of the newest checkpoint's arrays."""
    folder = workdir / "checkpoints" / str(max(saved_steps(workdir))) / "state"
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


FAULTS = {
    "SIGKILL at a random step": kill,
    "SIGKILL while a checkpoint is written": kill_in_save,
    "SIGTERM at a random step": ask_to_stop,
    "SIGKILL, then a bit of the newest checkpoint flipped": change_a_bit,
    "SIGKILL, then a file of the newest checkpoint cut": cut,
}


def inject(fault: Callable, workdir: Path, seed: int) -> tuple[int, float, dict]:
    """Returns steps done twice, seconds to the next one, and the last digests."""
    run = Run(workdir)
    fault(run, random.Random(seed))
    began = time.monotonic()
    lost_at = reached(workdir)
    run = Run(workdir)
    first = run.until_training()
    return lost_at - first, time.monotonic() - began, run.finish()


def print_faults(folder: Path, times: int) -> None:
    """Prints the table of faults, a row when it is known."""
    undisturbed = Run(folder / "undisturbed").finish()
    print("| injected | times | same bits at the end | steps repeated | seconds |")
    print("|---|---|---|---|---|")
    for name, fault in FAULTS.items():
        found = [
            inject(fault, folder / f"{fault.__name__}{seed}", seed)
            for seed in range(times)
        ]
        repeated, seconds, ends = zip(*found, strict=True)
        same = sum(end == undisturbed for end in ends)
        print(
            f"| {name} | {times} | {same} of {times} | "
            f"{min(repeated)} to {max(repeated)} | "
            f"{min(seconds):.0f} to {max(seconds):.0f} |",
            flush=True,
        )


def print_saving(workdir: Path) -> None:
    """Prints how long the loop waits for a save, and what share that is."""
    config = digits.get_config()
    interval = config.checkpoint.every_steps
    config.epochs, config.checkpoint.every_steps = 2, 15
    save, seconds = Checkpoints.save, []

    def timed(*arguments) -> None:
        started = time.perf_counter()
        save(*arguments)
        seconds.append(time.perf_counter() - started)

    Checkpoints.save = timed
    train(config, str(workdir))
    speed = [e["images_per_second"] for e in read_metrics(workdir) if "loss" in e]
    step = config.batch_size / statistics.median(speed)
    wait = statistics.median(seconds[1:])  # the first one compiles the digests
    print(
        f"\n{len(seconds)} saves: the loop waits {1e3 * wait:.0f} ms for one (median), "
        f"and takes {1e3 * step:.0f} ms for a step; with a save every {interval} steps "
        f"that is {wait / (interval * step):.3%} of the time"
    )


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=5, help="of each fault")
    times = parser.parse_args().times
    print(f"{os.cpu_count()} CPU cores, jax {jax.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        print_faults(Path(folder), times)
        print_saving(Path(folder) / "saving")


if __name__ == "__main__":
    main()
