"""What a bfloat16 queue and the approximate search do to the neighbors.

    python benchmarks/inexact_search.py

Random rows have neighbors that barely stand out. Clustered rows lie around 1,024
centers, as rows of one class do, and their neighbors are hard to tell apart.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import report
from direction import Shape, compile_direction, inputs_of, settings_of, unit_rows
from measure import measure

from snclr_jax.devices.mesh import make_mesh

SHAPE = Shape(b=512, q=65536, k=30, d=256)
CENTERS = 1024
# Length of the noise beside a center of length 1: cosines of about 0.8 in a cluster.
NOISE = 0.5
VARIANTS = {
    "float32, exact": {},
    "bfloat16, exact": {"dtype": "bfloat16"},
    "float32, approx, recall 0.95": {"search": "approx", "recall": 0.95},
}
TEXT = f"""\
b {SHAPE.b}, q {SHAPE.q}, d {SHAPE.d}: how many of the {SHAPE.k} neighbors of the exact
float32 search are found, and the time of search, loss and gradient. On a CPU XLA
computes the approximate top-K exactly, so its recall there says nothing of a TPU's."""
HEADER = ["queue", "random rows %", "clustered rows %", "ms"]
Rows = tuple[np.ndarray, ...]


def clustered_rows() -> Rows:
    """Returns keys, z, y, t like `unit_rows`, each row near one of the centers."""
    rng = np.random.default_rng(1)
    random = unit_rows(SHAPE)
    centers = random[0][:CENTERS]

    def cluster(noise: np.ndarray) -> np.ndarray:
        near = centers[rng.integers(CENTERS, size=len(noise))] + NOISE * noise
        return near / np.linalg.norm(near, axis=1, keepdims=True)

    return tuple(map(cluster, random))


def search(queue: dict, data: list[Rows]) -> tuple[list[np.ndarray], float]:
    """Returns the (b, k) rows found in each data set, and milliseconds."""
    settings = settings_of(SHAPE, **queue)
    run = compile_direction(SHAPE, settings, make_mesh(jax.devices()[:1]))
    found = []
    for keys, *batch in data:
        keys = jnp.asarray(keys, settings.queue.dtype)
        inputs = inputs_of(keys, *map(jnp.asarray, batch))
        (_, neighbors), _ = run(inputs)
        found.append(np.asarray(neighbors.row))
    return found, measure(lambda: jax.block_until_ready(run(inputs)))["ms"]


def recall(found: np.ndarray, exact: np.ndarray) -> float:
    """Returns the percentage of the exact neighbors that were found, in any order."""
    both = [np.intersect1d(*rows).size for rows in zip(found, exact, strict=True)]
    return 100 * sum(both) / exact.size


def main() -> None:
    origin = report.origin("python benchmarks/inexact_search.py", ["jax"], timed=True)
    data = [unit_rows(SHAPE), clustered_rows()]
    results = {name: search(queue, data) for name, queue in VARIANTS.items()}
    exact, _ = results["float32, exact"]
    rows = []
    for name, (found, milliseconds) in results.items():
        shares = [f"{recall(*pair):.2f}" for pair in zip(found, exact, strict=True)]
        rows.append([name, *shares, f"{milliseconds:.0f}"])
    report.write(
        "Neighbors of an inexact search",
        TEXT,
        report.table(HEADER, rows),
        origin,
    )


if __name__ == "__main__":
    main()
