"""What each process of a run reads of its images: at the start and at an evaluation.

    python benchmarks/shared_evaluation.py

Runs `train` on a folder of JPEGs in 1, 2 and 4 processes on this machine, one epoch and
the evaluation after it, and counts every file of an image that a process opens, with
its bytes. The processes share the cores: no time is given.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import report
from PIL import Image

PROCESSES = (1, 2, 4)
TRAIN, TEST, SIDE, QUALITY = 2000, 500, 96, 90
START, BASELINE, EPOCH, EVALUATION = "start", "kNN before", "epoch", "evaluation"
PHASES = (START, BASELINE, EPOCH, EVALUATION)
FIELDS = {
    "epochs": 1,
    "batch_size": 64,
    "data.num_workers": 0,
    "data.resident": False,
    "data.image_size": 40,
    "augment.size": 32,
    "augment.local_size": 16,
    "model.name": "patchnet",
    "model.patch_size": 8,
    "model.stem": "cifar",
    "model.projector_hidden": (32,),
    "model.predictor_hidden": (32,),
    "model.embedding_dim": 16,
    "objective.queue.size": 512,
    "objective.queue.k": 4,
}
TEXT = f"""\
A folder of {TRAIN:,} training and {TEST} test JPEGs of {SIDE} pixels; `train` for one
epoch with the evaluation after it, in processes on one machine. Images (files opened,
and MB) that the process with the most of them reads: at the start, for kNN on raw
pixels and on the untrained encoder, in the epoch, and at the evaluation (kNN, gallery,
choices). Until 2026-11-30 each of several processes read as much as one does alone, but
in the epoch and for the choices."""
AFTER = """\
An image counts as often as it is opened. At the start none is: a folder's images are
compared by the sizes of their files. A set that stays on the devices would be decoded
then, and was not counted here (`tests/step/test_one_definition.py` counts it). What
does not fall with more processes is a sample, whatever the number of images: in the
epoch 16, whose levels are looked at, and at an evaluation the pictures of the gallery,
which the first process reads alone. Choices are of 1,024 images here, and of 2,000 at
most."""


class Reads:
    """What this process opens below a folder, by the phase that it is in."""

    def __init__(self, folder: str) -> None:
        self._folder, self.phase = folder, START
        # Lists: several threads open files, and appending is one operation.
        self._sizes: dict[str, list[int]] = {phase: [] for phase in PHASES}
        sys.addaudithook(self._note)

    def _note(self, event: str, arguments: tuple) -> None:
        if event == "open" and str(arguments[0]).startswith(self._folder):
            if str(arguments[0]).endswith(".jpg"):
                self._sizes[self.phase].append(os.path.getsize(arguments[0]))

    def during(self, phase: str, call):
        """Returns `call` as one whose reads are of another phase, as all after it."""

        def wrapped(*arguments):
            self.phase = phase
            try:
                return call(*arguments)
            finally:
                self.phase = EPOCH

        return wrapped

    def counted(self) -> dict[str, tuple[int, float]]:
        """Returns the number of images and their MB, by phase."""
        return {name: (len(all), sum(all) / 1e6) for name, all in self._sizes.items()}


def run(folder: str, process: int, processes: int, port: int) -> None:
    """Trains as one of the processes, and prints what it has read."""
    from snclr_jax.configs import folder as recipe

    from snclr_jax.devices.processes import start
    from snclr_jax.evaluate.online import OnlineKnn
    from snclr_jax.loop import Loop
    from snclr_jax.train import train

    if processes > 1:
        start(coordinator=f"127.0.0.1:{port}", processes=processes, process=process)
    config = recipe.get_config()
    config.update_from_flattened_dict(FIELDS | {"data.path": folder})
    reads = Reads(folder)
    OnlineKnn.baseline = reads.during(BASELINE, OnlineKnn.baseline)
    Loop._evaluate = reads.during(EVALUATION, Loop._evaluate)
    train(config, f"{folder}/run-{processes}")
    counted = json.dumps(reads.counted())
    Path(f"{folder}/{process}.json").write_text(counted, encoding="utf-8")


def most_read(folder: str, processes: int) -> dict[str, list[float]]:
    """Returns what the process with the most images has read, by phase."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = [
        subprocess.Popen(
            [sys.executable, __file__, *map(str, (folder, process, processes, port))],
            env=os.environ | {"JAX_PLATFORMS": "cpu"},
            stdout=subprocess.DEVNULL,
        )
        for process in range(processes)
    ]
    codes = [process.wait() for process in started]
    if any(codes):
        raise RuntimeError(f"{processes} processes ended with {codes}")
    read = [
        json.loads(Path(f"{folder}/{process}.json").read_text(encoding="utf-8"))
        for process in range(processes)
    ]
    return {phase: max(own[phase] for own in read) for phase in PHASES}


def write_images(folder: Path) -> None:
    """Draws images of ten classes: noise, in colors of their class."""
    random = np.random.default_rng(0)
    classes: Counter[str] = Counter()
    for split, count in (("train", TRAIN), ("test", TEST)):
        for number in range(count):
            name = f"{split}/{number % 10}"
            pixels = random.integers(0, 200, (SIDE, SIDE, 3), np.uint8)
            pixels += np.uint8([5 * (number % 10), 0, 0])
            path = folder / name / f"{classes[name]:05d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path, quality=QUALITY)
            classes[name] += 1


def main() -> None:
    packages = ["jax", "pillow"]
    origin = report.origin(
        "python benchmarks/shared_evaluation.py", packages, timed=False
    )
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder))
        read = [most_read(folder, processes).values() for processes in PROCESSES]
    rows = [
        [processes, *(f"{count:,} ({mb:.1f})" for count, mb in of_phases)]
        for processes, of_phases in zip(PROCESSES, read, strict=True)
    ]
    report.write(
        "Images that each process reads",
        TEXT,
        report.table(["processes", *PHASES], rows),
        AFTER,
        origin,
    )


if __name__ == "__main__":
    if sys.argv[1:]:
        folder, *numbers = sys.argv[1:]
        run(folder, *map(int, numbers))
    else:
        main()
