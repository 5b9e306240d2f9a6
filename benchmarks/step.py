"""One training step of a recipe on this device: its time and memory, by stages.

    python benchmarks/step.py [RECIPE] [BATCH ...] [FIELD=VALUE ...]   # cifar10 256 512
    python benchmarks/step.py cifar10 256 steps_per_call=10
    python benchmarks/step.py imagenet_vit_s16 256 [plain_attention]
    python benchmarks/step.py cifar10:debug 16            # rehearses it on a CPU

Random images, bfloat16. "same batch" starts one step after the other; "with feed" takes
batches as a run does, where the images lie on the device. Where they do not, as
ImageNet's, random crops are there already. On a GPU, four calls of the first batch size
are traced, and the time of their kernels is summed by the stage of the step that they
belong to. `plain_attention` leaves cuDNN's fused kernel aside.
"""

from __future__ import annotations

import ast
import collections
import functools
import glob
import importlib
import re
import sys
import tempfile
import time
from collections.abc import Callable

import jax
import numpy as np
from jax.profiler import ProfileData

from snclr_jax.data import Split
from snclr_jax.data.feed import Feed
from snclr_jax.devices.mesh import has_cudnn_attention, make_mesh, place_batch
from snclr_jax.models import build_model
from snclr_jax.preflight.report import Memory
from snclr_jax.settings.objective import build_objective
from snclr_jax.settings.resident import is_resident
from snclr_jax.step.augment import view_settings
from snclr_jax.step.optim import learning_rate, make_optimizer
from snclr_jax.step.state import init_train_state
from snclr_jax.step.train_step import make_train_step, several_steps
from snclr_jax.step.views import Batch

IMAGES = 50_000
TRACED = 4  # calls
PLAIN = "plain_attention"
SECONDS, MOST_STEPS = 3.0, 150
PARTS = (
    # A pattern of the scopes that an operation was written in, and its name here.
    (r"search_and_loss", "search, positiveness, loss"),
    (r"conv_general_dilated", "convolutions"),
    (r"bn_?\d|BatchNorm|downsample", "BatchNorm"),
    (r"dot_product_attention", "attention"),
    (r"_Network.*dot_general", "matrix products of the networks"),
    (r"_Network", "rest of the networks"),
    (r"vmap", "augmentation"),
    (r".", "optimizer, moving average, queue, metrics"),
)


def main() -> None:
    words = [word for word in sys.argv[1:] if word != PLAIN]
    sizes = [int(word) for word in words if word.isdigit()]
    settings = dict(word.split("=", 1) for word in words if "=" in word)
    names = [word for word in words if not word.isdigit() and "=" not in word]
    for number, batch in enumerate(sizes or [256, 512]):
        name, _, variant = (names or ["cifar10"])[0].partition(":")
        config = importlib.import_module(f"snclr_jax.configs.{name}").get_config(
            variant
        )
        config.data.name, config.batch_size = "folder", batch
        config.model.dtype = "bfloat16"
        config.update_from_flattened_dict(
            {field: ast.literal_eval(value) for field, value in settings.items()}
        )
        time_step(config, traced=number == 0, plain=PLAIN in sys.argv)


def time_step(config, *, traced: bool, plain: bool) -> None:
    """Compiles the step and prints what it takes."""
    mesh, batch, of_call = make_mesh(), config.batch_size, config.steps_per_call
    objective = build_objective(config)
    model = build_model(
        config.model,
        predictor=objective.predictor,
        fused_attention=has_cudnn_attention(mesh) and not plain,
    )
    per_epoch = IMAGES // batch
    optimizer = make_optimizer(config, learning_rate(config, per_epoch))
    step = make_train_step(
        model, objective, optimizer, config, mesh, steps_per_epoch=per_epoch
    )
    if of_call > 1:
        step = several_steps(step)
    state = init_train_state(model, objective, optimizer, config, mesh)
    first, sources = batches(config, mesh)
    started = time.perf_counter()
    step = step.lower(state, first).compile()
    print(
        f"batch {batch}: compiled in {time.perf_counter() - started:.0f} s, "
        f"{Memory.of(step).peak / 2**30:.2f} GiB on the device",
        flush=True,
    )
    for name, next_batch in sources.items():
        state, seconds = run(step, state, first, next_batch, 5)
        count = min(MOST_STEPS, 5 + int(SECONDS / seconds * 5))
        state, seconds = run(step, state, first, next_batch, count)
        steps = count * of_call
        print(
            f"batch {batch}, {name}: {1e3 * seconds / steps:.2f} ms a step, "
            f"{batch * steps / seconds:.0f} images/s",
            flush=True,
        )
    if traced and jax.default_backend() == "gpu":
        with tempfile.TemporaryDirectory() as folder:
            with jax.profiler.trace(folder):
                run(step, state, first, [*sources.values()][-1], TRACED)
            (trace,) = glob.glob(f"{folder}/**/*.xplane.pb", recursive=True)
            trace = ProfileData.from_file(trace)
            print_parts(trace, step.as_text(), steps=TRACED * of_call)


def batches(config, mesh) -> tuple[Batch, dict[str, Callable]]:
    """Returns a batch, and by name what returns the one after the last metrics."""
    rng = np.random.default_rng(0)
    if is_resident(config, IMAGES):
        side = config.data.image_size
        images = rng.integers(0, 256, (IMAGES, side, side, 3), dtype=np.uint8)
        labels = np.zeros(IMAGES, int)
        feed = Feed(
            config, Split(lambda rows: images[rows], size=IMAGES, labels=labels), mesh
        )
        following = functools.partial(feed.next, steps=config.steps_per_call)
        first = following()
        return first, {"same batch": lambda _: first, "with feed": following}
    sizes = [size for size, _ in view_settings(config.augment)]
    shapes = [(config.batch_size, size, size, 3) for size in sizes]
    views = [rng.integers(0, 256, shape, dtype=np.uint8) for shape in shapes]
    first = Batch(
        place_batch(np.arange(config.batch_size, dtype=np.int32), mesh),
        views=tuple(place_batch(view, mesh) for view in views),
    )
    return first, {"same batch": lambda _: first}


def run(step: Callable, state, batch, next_batch: Callable, count: int):
    """Returns the state after `count` calls, and the seconds they took."""
    started = time.perf_counter()
    for _ in range(count):
        state, metrics = step(state, batch)
        batch = next_batch(metrics)
    jax.block_until_ready(metrics)
    return state, time.perf_counter() - started


def print_parts(trace: ProfileData, program: str, *, steps: int) -> None:
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
        print(f"{nanoseconds / steps / 1e6:7.3f} ms  {part}")
    print(f"{parts.total() / steps / 1e6:7.3f} ms  all kernels")


def part_of(scope: str | None) -> str:
    """Returns the part of the step that a scope belongs to."""
    if scope is None:
        return "unnamed kernels and copies"
    return next(name for pattern, name in PARTS if re.search(pattern, scope))


if __name__ == "__main__":
    main()
