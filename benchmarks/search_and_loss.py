"""Search, loss and gradient of one direction: ours, PyTorch's, and bare products.

    python benchmarks/search_and_loss.py         # Linux; needs torch

Every measurement is a fresh process, and the three take turns. Memory is the peak of
resident memory above what the process held when its inputs were made and its program
compiled: neither side pays for inputs, imports or a compiler. It is measured in
processes of its own, in which malloc returns every large array to the system: what it
keeps otherwise differs by tens of MB from run to run.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys

import jax
import jax.numpy as jnp
import report
from direction import Shape, compile_direction, inputs_of, settings_of, unit_rows
from measure import Figures, measure

from snclr_jax.devices.mesh import make_mesh

SHAPES = (
    Shape(256, 16384, 30, 256),
    Shape(512, 65536, 30, 256),
    Shape(1024, 131072, 30, 256),
)
TEMPERATURE = 0.2
ROUNDS = 3


def ours(shape: Shape) -> Figures:
    """Measures the fused direction."""
    run = compile_direction(shape, settings_of(shape), make_mesh(jax.devices()[:1]))
    inputs = inputs_of(*map(jnp.asarray, unit_rows(shape)))
    figures = measure(lambda: jax.block_until_ready(run(inputs)))
    (loss, _), gradients = run(inputs)
    return figures | {"checked": [loss, *map(jnp.linalg.norm, gradients)]}


def pytorch(shape: Shape) -> Figures:
    """Measures the restatement of the authors' step."""
    import torch
    import torch_reference

    def program(shape: Shape):
        keys, prediction, anchor, target = map(torch.from_numpy, unit_rows(shape))
        learned = prediction.requires_grad_(), anchor.requires_grad_()

        def run():
            loss = torch_reference.search_and_loss(
                keys, *learned, target, k=shape.k, temperature=TEMPERATURE
            )
            return loss.detach(), torch.autograd.grad(loss, learned)

        return run

    # Loads torch's code, which is no memory of the step; ours was loaded to compile.
    program(Shape(8, 64, 2, 8))()
    run = program(shape)
    figures = measure(run)
    loss, gradients = run()
    return figures | {"checked": [loss, *map(torch.linalg.norm, gradients)]}


def products(shape: Shape) -> Figures:
    """Measures one b x q and two b x b(K+1) products, one after the other."""
    keys, rows, *_ = map(jnp.asarray, unit_rows(shape))
    candidates = keys[: shape.b * (shape.k + 1)]
    product = jax.jit(lambda rows, others: rows @ others.T)
    product(rows, keys), product(rows, candidates)  # Compiled here.
    search = measure(lambda: product(rows, keys).block_until_ready())
    loss = measure(lambda: product(rows, candidates).block_until_ready())
    return {name: search[name] + 2 * loss[name] for name in ("ms", "least")}


SIDES = {side.__name__: side for side in (pytorch, ours, products)}


def in_fresh_process(side: str, shape: Shape, **environment: str) -> Figures:
    """Returns what `side` measures in a process of its own."""
    command = [sys.executable, __file__, side, *map(str, shape)]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"} | environment
    output = subprocess.run(
        command, check=True, env=environment, stdout=subprocess.PIPE, text=True
    )
    return json.loads(output.stdout)


def compare(shape: Shape) -> list[str]:
    """Returns one row of the table: medians over the rounds, and their ratios."""
    rounds = [
        {side: in_fresh_process(side, shape) for side in SIDES} for _ in range(ROUNDS)
    ]

    def median(side: str, field: str) -> float:
        return statistics.median(each[side][field] for each in rounds)

    def least(side: str) -> float:
        return min(each[side]["least"] for each in rounds)

    pairs = [
        (a, b)
        for each in rounds
        for a, b in zip(
            each["ours"]["checked"], each["pytorch"]["checked"], strict=True
        )
    ]
    difference = max(abs(a / b - 1) for a, b in pairs)
    if difference > 1e-4:
        raise AssertionError(f"{shape}: loss or gradients differ by {difference:.1e}")
    times = {side: median(side, "ms") for side in SIDES}
    memory = {
        side: in_fresh_process(side, shape, MALLOC_MMAP_THRESHOLD_="1000000")["mb"]
        for side in ("pytorch", "ours")
    }
    return [
        f"{shape.b}, {shape.q}",
        *(f"{times[side]:.0f} ({least(side):.0f})" for side in SIDES),
        f"{times['ours'] / times['products']:.2f}",
        f"{times['pytorch'] / times['ours']:.2f}",
        *(f"{each:.0f}" for each in memory.values()),
        f"{memory['ours'] / memory['pytorch']:.2f}",
        f"{difference:.0e}",
    ]


HEADING = "Search + loss + gradient, one direction"
HEADER = [
    "b, q",
    "PyTorch ms",
    "ours ms",
    "products ms",
    "ours / products",
    "PyTorch / ours",
    "PyTorch MB",
    "ours MB",
    "ours / PyTorch",
    "difference",
]
TEXT = f"""\
K = 30 neighbors of d = 256 dimensions, float32, random unit rows, one device. PyTorch
is a restatement of the authors' step (`benchmarks/torch_reference.py`). The products
are one b x q and two b x b(K+1) products of rows and nothing else; they write results
that ours never holds whole, so ours can take less time. Times are medians, the least
in brackets, over {ROUNDS} fresh processes a side that took turns; memory is the peak
above program and inputs. Difference: the largest relative one of the losses
and of the norms of their gradients."""


def main() -> None:
    origin = report.origin(
        "python benchmarks/search_and_loss.py", ["jax", "torch"], timed=True
    )
    rows = [compare(shape) for shape in SHAPES]
    report.write(HEADING, TEXT, origin, report.table(HEADER, rows))


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    else:
        side, *sizes = sys.argv[1:]
        figures = SIDES[side](Shape(*map(int, sizes)))
        print(json.dumps(figures, default=float))
