"""The cifar10 recipe's step in PyTorch, to be timed beside `step.py` on one device.

    python benchmarks/torch_step.py [BATCH ...]      # default: 256 512

Networks, queue and K of configs/cifar10.py, put together as the PyTorch collections do
it: torchvision's ResNet-18, one pass per view, bfloat16 autocast, channels last, a
fused optimizer, a multi-tensor moving average, the authors' search and loss restated;
first eager, then with torch.compile. In PyTorch's favor, the views are made beforehand
where `step.py` makes them in the step, and SGD takes the place of LARS. Needs
torchvision.
"""

from __future__ import annotations

import copy
import itertools
import sys
import time
from collections.abc import Callable

import torch
import torch_reference
from torch import nn
from torchvision.models import resnet18

QUEUE, K, TEMPERATURE = 4096, 5, 0.2
MOMENTUM = 0.99
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
STEPS = 150 if torch.cuda.is_available() else 2


def main() -> None:
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = True
    sizes = [int(each) for each in sys.argv[1:]] or [256, 512]
    for compiled, batch in itertools.product((False, True), sizes):
        time_step(batch, compiled=compiled)


def time_step(batch: int, *, compiled: bool) -> None:
    """Prints what the step takes for a batch size."""
    step = make_step(batch, compiled=compiled)
    started = time.perf_counter()
    run(step, 5)
    first = time.perf_counter() - started
    seconds = run(step, STEPS)
    name = "torch.compile" if compiled else "eager"
    print(
        f"PyTorch {torch.__version__}, {name}, batch {batch}: "
        f"{1e3 * seconds / STEPS:.2f} ms a step, {batch * STEPS / seconds:.0f} "
        f"images/s; the first five took {first:.0f} s",
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


class Network(nn.Module):
    """Encoder, projector and, of the online network, predictor."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = resnet18()
        self.encoder.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        self.encoder.maxpool = nn.Identity()
        self.encoder.fc = nn.Identity()
        self.projector = nn.Sequential(
            *hidden(512, 2048),
            nn.Linear(2048, 256, bias=False),
            nn.BatchNorm1d(256, affine=False),
        )
        self.predictor = nn.Sequential(
            *hidden(256, 4096), nn.Linear(4096, 256, bias=False)
        )

    def forward(self, view: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns unit projections y and predictions z, (b, 256) float32."""
        projection = self.projector(self.encoder(view))
        prediction = self.predictor(projection)
        return tuple(
            nn.functional.normalize(each.float()) for each in (projection, prediction)
        )

    def target(self, view: torch.Tensor) -> torch.Tensor:
        """Returns unit projections t, (b, 256) float32."""
        return nn.functional.normalize(self.projector(self.encoder(view)).float())


def hidden(inside: int, features: int) -> list[nn.Module]:
    """Returns one hidden layer of a head."""
    return [
        nn.Linear(inside, features, bias=False),
        nn.BatchNorm1d(features),
        nn.ReLU(),
    ]


def make_step(batch: int, *, compiled: bool) -> Callable[[], None]:
    """Returns a step on random views."""
    online = Network().to(DEVICE, memory_format=torch.channels_last)
    slow = copy.deepcopy(online).requires_grad_(False)
    optimizer = torch.optim.SGD(
        online.parameters(), lr=0.06, momentum=0.9, weight_decay=5e-4, fused=True
    )
    keys = nn.functional.normalize(torch.randn(QUEUE, 256, device=DEVICE))
    views = [
        torch.randn(batch, 3, 32, 32, device=DEVICE).to(
            memory_format=torch.channels_last
        )
        for _ in range(2)
    ]
    cursor = itertools.cycle(range(0, QUEUE, batch))
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
        with torch.autocast(DEVICE, torch.bfloat16):
            with torch.no_grad():
                targets = [target(view) for view in views]
            outputs = [forward(view) for view in views]
        loss = sum(
            search_and_loss(keys, z, y, t, k=K, temperature=TEMPERATURE)
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
