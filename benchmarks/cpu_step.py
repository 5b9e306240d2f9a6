"""A step of ResNet-18 on a CPU, beside PyTorch and stable-pretraining, in one run.

    python benchmarks/cpu_step.py [WIDTH BATCH ...]          # 64 64 16 128

The recipe cifar10 in float32 (SNCLR, K 5, a queue of 4096), its PyTorch twin (see
torch_step.py; channels_last, eager, as many threads as cores), and BYOL of
`stable_pretraining.jax`, whose ResNet-18 has one width, 64. Each is a process of its
own, and they take turns, one step at a time. In PyTorch's favor, its views are made
beforehand; the other two make them in the step. Printed are the medians of five rounds:
seconds, and seconds of all cores together, since PyTorch's threads spin while they
wait. What is not installed is left out:

    pip install torch==2.13.0
    pip install --no-deps stable-pretraining && pip install loguru omegaconf
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROUNDS = 5
# Seconds between turns, in which the threads of the last one come to rest.
PAUSE = 1.0
FOLDER = Path(__file__).parent


def ours(width: int, batch: int) -> Callable[[], None]:
    """Returns a step of the recipe."""
    import jax
    from snclr_jax.configs import cifar10
    from step import batches

    from snclr_jax.devices.mesh import make_mesh
    from snclr_jax.settings.training import build_training
    from snclr_jax.step.state import init_train_state

    config, mesh = cifar10.get_config(), make_mesh()
    config.model.width, config.batch_size = width, batch
    model, objective, optimizer, step, _ = build_training(
        config, mesh, images=100 * batch
    )
    state = init_train_state(model, objective, optimizer, config, mesh)
    first, _ = batches(config, mesh)

    def take() -> None:
        nonlocal state
        state, _ = jax.block_until_ready(step(state, first))

    return take


def pytorch(width: int, batch: int) -> Callable[[], None]:
    """Returns a step of the same networks, queue and K."""
    import torch

    sys.path.append(str(FOLDER.parent / "tests"))
    from torch_modules import ResNet
    from torch_networks import Network
    from torch_step import RECIPES, make_step

    torch.set_num_threads(os.cpu_count() or 1)
    encoder = ResNet(18, width, "cifar")
    recipe = RECIPES["cifar10"]._replace(
        network=lambda: Network(encoder, 8 * width, [2048], last_bn=False)
    )
    return make_step(recipe, batch, compiled=False, half=False)


def stable_pretraining(width: int, batch: int) -> Callable[[], None]:
    """Returns a step of BYOL, with its two views and the moving average."""
    if width != 64:
        raise ImportError("its ResNet-18 has 64 channels")
    import jax
    import numpy as np
    import optax
    import stable_pretraining.jax as spt
    from flax import nnx
    from stable_pretraining.jax.backbone.resnet import resnet18
    from stable_pretraining.jax.trainer import _train_step

    encoder = resnet18(rngs=nnx.Rngs(0), low_resolution=True)
    module = spt.BYOL(
        backbone=encoder,
        embed_dim=encoder.embed_dim,
        rngs=nnx.Rngs(1),
        projector_dims=(2048, 256),
    )
    module._transform = spt.augment.two_view_transform(32)
    module.aug_rngs = nnx.Rngs(2)
    sgd = optax.sgd(0.06, momentum=0.9)
    optimizer = nnx.Optimizer(module, sgd, wrt=nnx.Param)
    average = spt.TeacherStudentCallback(update_schedule=False)
    images = np.random.default_rng(0).random((batch, 32, 32, 3), dtype=np.float32)
    images = {"image": jax.device_put(images)}

    def take() -> None:
        outputs, _ = _train_step(module, optimizer, images)
        average.on_train_batch_end(None, module, outputs, images, 0)
        jax.block_until_ready(nnx.state(module))

    return take


SIDES = {
    "snclr_jax": ours,
    "PyTorch": pytorch,
    "stable_pretraining.jax, BYOL": stable_pretraining,
}


def serve(name: str, width: int, batch: int) -> None:
    """Takes a step for each line that comes, and writes how long it took."""
    step = SIDES[name](width, batch)
    for _ in range(2):
        step()
    print("ready", flush=True)
    for _ in sys.stdin:
        wall, cores = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
        step()
        wall, after = (
            time.perf_counter() - wall,
            resource.getrusage(resource.RUSAGE_SELF),
        )
        busy = after.ru_utime + after.ru_stime - cores.ru_utime - cores.ru_stime
        print(wall, busy, flush=True)


def compare(width: int, batch: int) -> None:
    """Lets all sides take turns, and prints their medians."""
    processes = {}
    for name in SIDES:
        process = subprocess.Popen(
            [sys.executable, __file__, name, str(width), str(batch)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | {"JAX_PLATFORMS": "cpu"},
            text=True,
        )
        if process.stdout.readline() == "ready\n":
            processes[name] = process
        else:
            print(f"{name} is left out:", process.communicate()[1].splitlines()[-1])
    times = {name: [] for name in processes}
    for _ in range(ROUNDS):
        for name, process in processes.items():
            time.sleep(PAUSE)
            process.stdin.write("\n")
            process.stdin.flush()
            times[name].append(tuple(map(float, process.stdout.readline().split())))
    first = statistics.median(wall for wall, _ in times["snclr_jax"])
    for name, process in processes.items():
        process.communicate()
        walls, busy = zip(*times[name], strict=True)
        wall = statistics.median(walls)
        print(
            f"width {width}, batch {batch}, {name}: {wall:.2f} s a step "
            f"({min(walls):.2f} to {max(walls):.2f}), {statistics.median(busy):.2f} s "
            f"of all cores, {wall / first:.2f} of snclr_jax",
            flush=True,
        )


def main() -> None:
    if sys.argv[1:2] and sys.argv[1] in SIDES:
        name, width, batch = sys.argv[1:]
        return serve(name, int(width), int(batch))
    sizes = [int(word) for word in sys.argv[1:]] or [64, 64, 16, 128]
    for width, batch in zip(sizes[::2], sizes[1::2], strict=True):
        compare(width, batch)


if __name__ == "__main__":
    main()
