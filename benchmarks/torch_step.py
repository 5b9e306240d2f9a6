"""A recipe's step in PyTorch, to be timed beside `step.py` on one device.

    python benchmarks/torch_step.py [RECIPE] [BATCH ...]         # cifar10 256 512
    python benchmarks/torch_step.py imagenet_vit_s16 256

Networks, queue and K of configs/cifar10.py or configs/imagenet_vit_s16.py, put together
as the PyTorch collections do it: torchvision's ResNet-18 or timm's ViT-S/16 with its
fused attention, one pass per view, bfloat16 autocast, a fused optimizer, a multi-tensor
moving average, the authors' search and loss restated; first eager, then with
torch.compile. In PyTorch's favor, the views are made beforehand where `step.py` makes
them in the step, and SGD takes the place of LARS. Needs torchvision, or timm as well.
"""

from __future__ import annotations

import copy
import gc
import itertools
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch_reference
from torch import nn
from torch_networks import Network, cifar_resnet18, vit_s16

TEMPERATURE, MOMENTUM = 0.2, 0.99
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SECONDS, MOST_STEPS = 3.0, 150


class Recipe(NamedTuple):
    """What a recipe sets."""

    network: Callable[[], Network]
    optimizer: Callable[..., torch.optim.Optimizer]
    settings: dict[str, float]  # of the optimizer
    side: int  # of a view, in pixels
    queue: int
    k: int


RECIPES = {
    "cifar10": Recipe(
        cifar_resnet18,
        torch.optim.SGD,
        dict(lr=0.06, momentum=0.9, weight_decay=5e-4),
        side=32,
        queue=4096,
        k=5,
    ),
    "imagenet_vit_s16": Recipe(
        vit_s16,
        torch.optim.AdamW,
        dict(lr=1.5e-4, weight_decay=0.1),
        side=224,
        queue=131_072,
        k=30,
    ),
}


def main() -> None:
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = True
    sizes = [int(word) for word in sys.argv[1:] if word.isdigit()] or [256, 512]
    names = [word for word in sys.argv[1:] if not word.isdigit()] or ["cifar10"]
    for compiled, batch in itertools.product((False, True), sizes):
        time_step(RECIPES[names[0]], batch, compiled=compiled)


def time_step(recipe: Recipe, batch: int, *, compiled: bool) -> None:
    """Prints what the step takes for a batch size."""
    gc.collect()  # what the step before it held
    if DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()
    step = make_step(recipe, batch, compiled=compiled)
    first = run(step, 5)
    count = min(MOST_STEPS, 5 + int(SECONDS / run(step, 5) * 5))
    seconds = run(step, count)
    name = "torch.compile" if compiled else "eager"
    peak = torch.cuda.max_memory_allocated() if DEVICE == "cuda" else 0
    print(
        f"PyTorch {torch.__version__}, {name}, batch {batch}: "
        f"{1e3 * seconds / count:.2f} ms a step, {batch * count / seconds:.0f} "
        f"images/s, {peak / 2**30:.2f} GiB; the first five took {first:.0f} s",
        flush=True,
    )


def run(step: Callable[[], None], count: int) -> float:
    """Returns the seconds that `count` steps take."""
    started = time.perf_counter()
    for _ in range(count):
        step()
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def make_step(
    recipe: Recipe, batch: int, *, compiled: bool, half: bool = True
) -> Callable[[], None]:
    """Returns a step on random views, in bfloat16 where `half`, else in float32."""
    online = recipe.network().to(DEVICE, memory_format=torch.channels_last)
    slow = copy.deepcopy(online).requires_grad_(False)
    optimizer = recipe.optimizer(
        [each for each in online.parameters() if each.requires_grad],
        **recipe.settings,
        fused=True,
    )
    keys = nn.functional.normalize(torch.randn(recipe.queue, 256, device=DEVICE))
    views = [
        torch.randn(batch, 3, recipe.side, recipe.side, device=DEVICE).to(
            memory_format=torch.channels_last
        )
        for _ in range(2)
    ]
    cursor = itertools.cycle(range(0, recipe.queue, batch))
    forward, target = online.forward, slow.target
    search_and_loss = torch_reference.search_and_loss
    if compiled:
        forward, target, search_and_loss = (
            torch.compile(each) for each in (forward, target, search_and_loss)
        )
    # The predictor is the online network's alone.
    averaged, source = zip(
        *(
            (parameter, online.get_parameter(name))
            for name, parameter in slow.named_parameters()
            if not name.startswith("predictor")
        ),
        strict=True,
    )

    def step() -> None:
        with torch.autocast(DEVICE, torch.bfloat16, enabled=half):
            with torch.no_grad():
                targets = [target(view) for view in views]
            outputs = [forward(view) for view in views]
        loss = sum(
            search_and_loss(keys, z, y, t, k=recipe.k, temperature=TEMPERATURE)
            for (y, z), t in zip(outputs, reversed(targets), strict=True)
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        torch._foreach_lerp_(averaged, source, 1 - MOMENTUM)
        first = next(cursor)
        keys[first : first + batch] = targets[1]

    return step


if __name__ == "__main__":
    main()
