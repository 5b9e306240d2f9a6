"""One training step of the cifar10 recipe on this device: its time, by stages.

    python benchmarks/step.py [BATCH ...]        # default: 256 512
    python benchmarks/step.py debug              # rehearses it on a CPU

Random images, bfloat16. "same batch" starts one step after the other, "with feed" takes
batches as a run does. On a GPU, four steps of the first batch size are traced, and the
time of their kernels is summed by the stage of the step that they belong to.
"""

from __future__ import annotations

import collections
import glob
import re
import sys
import tempfile
import time
from collections.abc import Callable

import jax
import numpy as np
from jax.profiler import ProfileData
from snclr_jax.configs import cifar10

from snclr_jax.data import Split
from snclr_jax.data.feed import Feed
from snclr_jax.devices.mesh import make_mesh
from snclr_jax.models import build_model
from snclr_jax.settings.objective import build_objective
from snclr_jax.step.optim import learning_rate, make_optimizer
from snclr_jax.step.state import init_train_state
from snclr_jax.step.train_step import make_train_step

IMAGES = 50_000
TRACED = 4
PARTS = (
    # A pattern of the scopes that an operation was written in, and its name here.
    (r"search_and_loss", "search, positiveness, loss"),
    (r"conv_general_dilated", "convolutions"),
    (r"bn\d|BatchNorm|downsample", "BatchNorm"),
    (r"_Network", "rest of the networks"),
    (r"vmap", "augmentation"),
    (r".", "optimizer, moving average, queue, metrics"),
)


def main() -> None:
    debug = "debug" in sys.argv
    sizes = [int(each) for each in sys.argv[1:] if each != "debug"]
    for number, batch in enumerate(sizes or ([16] if debug else [256, 512])):
        time_step(batch, debug=debug, traced=number == 0)


def time_step(batch: int, *, debug: bool, traced: bool) -> None:
    """Compiles the step for a batch size and prints what it takes."""
    config = cifar10.get_config("debug" if debug else "")
    config.data.name, config.data.resident = "folder", True
    config.model.dtype, config.batch_size = "bfloat16", batch
    mesh, rng = make_mesh(), np.random.default_rng(0)
    images = rng.integers(0, 256, (IMAGES, 32, 32, 3), dtype=np.uint8)
    split = Split(lambda rows: images[rows], size=IMAGES, labels=np.zeros(IMAGES, int))
    objective = build_objective(config)
    model = build_model(config.model, predictor=objective.predictor)
    per_epoch = IMAGES // batch
    optimizer = make_optimizer(config, learning_rate(config, per_epoch))
    step = make_train_step(
        model, objective, optimizer, config, mesh, steps_per_epoch=per_epoch
    )
    state = init_train_state(model, objective, optimizer, config, mesh)
    feed = Feed(config, split, mesh)
    first = feed.next()
    started = time.perf_counter()
    step = step.lower(state, first).compile()
    print(f"batch {batch}: compiled in {time.perf_counter() - started:.0f} s")

    count = 5 if debug else 150
    for name, next_batch in (("same batch", lambda _: first), ("with feed", feed.next)):
        state, _ = run(step, state, first, next_batch, max(2, count // 10))
        state, seconds = run(step, state, first, next_batch, count)
        print(
            f"batch {batch}, {name}: {1e3 * seconds / count:.2f} ms a step, "
            f"{batch * count / seconds:.0f} images/s"
        )
    if traced and jax.default_backend() == "gpu":
        with tempfile.TemporaryDirectory() as folder:
            with jax.profiler.trace(folder):
                run(step, state, first, feed.next, TRACED)
            (trace,) = glob.glob(f"{folder}/**/*.xplane.pb", recursive=True)
            print_parts(ProfileData.from_file(trace), step.as_text())


def run(step: Callable, state, batch, next_batch: Callable, count: int):
    """Returns the state after `count` steps, and the seconds they took."""
    started = time.perf_counter()
    for _ in range(count):
        state, metrics = step(state, batch)
        batch = next_batch(metrics)
    jax.block_until_ready(metrics)
    return state, time.perf_counter() - started


def print_parts(trace: ProfileData, program: str) -> None:
    """Prints the milliseconds a step that every part's kernels take."""
    # Kernels inside a command buffer carry no scope of their own: their names do.
    scopes = {
        re.sub(r"[.-]", "_", name): scope
        for name, scope in re.findall(r'%([\w.-]+) = .*op_name="([^"]*)"', program)
    }
    parts: collections.Counter[str] = collections.Counter()
    for plane in trace.planes:
        if not plane.name.startswith("/device:GPU"):
            continue
        for event in (event for line in plane.lines for event in line.events):
            scope = dict(event.stats).get("name") or scopes.get(event.name)
            parts[part_of(scope)] += event.duration_ns
    for part, nanoseconds in parts.most_common():
        print(f"{nanoseconds / TRACED / 1e6:7.3f} ms  {part}")
    print(f"{parts.total() / TRACED / 1e6:7.3f} ms  all kernels")


def part_of(scope: str | None) -> str:
    """Returns the part of the step that a scope belongs to."""
    if scope is None:
        return "unnamed kernels and copies"
    return next(name for pattern, name in PARTS if re.search(pattern, scope))


if __name__ == "__main__":
    main()
