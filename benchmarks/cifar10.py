"""CIFAR-10 at small scale on a CPU: what each choice of the method changes.

    python benchmarks/cifar10.py FOLDER

FOLDER holds train/<class>/* (and test/<class>/*, which is not looked at). A small
encoder and four epochs, scored by 200-NN on 5,000 held-back training images from 10,000
others; one field is changed at a time. Writes its section of benchmarks/RESULTS.md.
Finished runs are not repeated.
"""

from __future__ import annotations

import sys

from image_sets import CIFAR10
from report import origin, table, write
from runs import run

# Two seeds of the first two say how much a difference has to be to mean anything.
RUNS = {
    "K = 5 (the settings below)": ({}, 2),
    "K = 0 (InfoNCE)": ({"objective.queue.k": 0}, 2),
    "soft cross-entropy": ({"objective.form": "soft_cross_entropy"}, 1),
    "attention temperature 1": ({"objective.attention.temperature": 1.0}, 1),
    "linear attention": ({"objective.attention.kind": "linear"}, 1),
    "K = 1": ({"objective.queue.k": 1}, 1),
    "K = 20": ({"objective.queue.k": 20}, 1),
    "queue of 16384": ({"objective.queue.size": 16384}, 1),
    "both views pushed": ({"objective.queue.push": "both"}, 1),
    "neighbor weight 0.3": ({"objective.neighbor_weight": 0.3}, 1),
    "no warm-up of the weight": ({"objective.neighbor_warmup_epochs": 0.0}, 1),
    "loss temperature 0.2": ({"objective.temperature": 0.2}, 1),
}


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    settings = CIFAR10 | {"data.holdback": 5000} | {"data.path": sys.argv[1]}
    where = origin("python benchmarks/cifar10.py FOLDER", ["jax"], timed=False)
    rows, latest = [], {}
    for name, (changed, seeds) in RUNS.items():
        scores = []
        for seed in range(seeds):
            latest = run("cifar10", name, settings | changed, seed=seed)
            scores.append(latest["knn_trained"])
        rows.append((name, ", ".join(f"{score:.2f}" for score in scores)))
        print(*rows[-1], flush=True)
    rows += [
        ("raw pixels", f"{latest['knn_raw_pixels']:.2f}"),
        ("untrained encoder", f"{latest['knn_untrained']:.2f}"),
    ]
    write(
        "CIFAR-10 (JPEG): choices, at small scale",
        "A small `patchnet` learned from 45,000 training images for four epochs;\n"
        "200-NN in percent on the 5,000 training images held back, by seed. One field\n"
        "is changed at a time; the others are `CIFAR10` in image_sets.py. The test\n"
        "images played no part.",
        table(("run", "kNN"), rows),
        where,
    )


if __name__ == "__main__":
    main()
