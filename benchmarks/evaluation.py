"""kNN and linear probes beside bare products, FAISS and scikit-learn.

    python benchmarks/evaluation.py              # Linux; needs faiss-cpu

Every measurement is a fresh process, and the sides of a task take turns. Each runs
once to compile and is timed the second time.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import product

import faiss
import numpy as np
import report
from measure import Figures, resident_mb, start_peak
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestNeighbors
from snclr_jax.configs import evaluate

from snclr_jax.devices.mesh import make_mesh
from snclr_jax.evaluate.frozen.classifier import TrainSet, measure_scaling
from snclr_jax.evaluate.frozen.logistic import fit_strengths
from snclr_jax.evaluate.frozen.neighbors import nearest
from snclr_jax.evaluate.frozen.sgd import train_heads

WIDTH, BATCH, L2 = 2048, 256, 1e-2
KNN = {"train": 51_200, "test": 4096, "k": 200}
SGD = {"rows": 5120, "classes": 1000}
LBFGS = {"rows": 16_384, "classes": 100}
SETTINGS = evaluate.get_config().linear
GRID = list(product(SETTINGS.learning_rate, SETTINGS.weight_decay))
BLOCK = 8192  # rows of a bare product, which numpy's BLAS likes best
ROUNDS = 3
Call = Callable[[], float]  # returns a number that all sides agree on


def random_rows(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, WIDTH), np.float32)


def random_split(rows: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns features whose first `classes` columns tell the label, and labels."""
    features, labels = random_rows(rows, 0), np.arange(rows, dtype=np.int32) % classes
    features[np.arange(rows), labels] += 2
    return features, labels


def knn_sides() -> dict[str, Call]:
    """All but the products normalize the rows, and agree on the mean similarity."""
    train, test = random_rows(KNN["train"], 0), random_rows(KNN["test"], 1)
    k = KNN["k"]

    def unit(rows: np.ndarray) -> np.ndarray:
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def with_faiss() -> float:
        index = faiss.IndexFlatIP(WIDTH)
        index.add(unit(train))
        return index.search(unit(test), k)[0].mean()

    def with_sklearn() -> float:
        search = NearestNeighbors(algorithm="brute", metric="sqeuclidean")
        return 1 - search.fit(unit(train)).kneighbors(unit(test), k)[0].mean() / 2

    def products() -> float:
        result = np.empty((1024, BLOCK), np.float32)
        for i, j in product(range(0, len(test), 1024), range(0, len(train), BLOCK)):
            queries, rows = test[i : i + 1024], train[j : j + BLOCK]
            np.matmul(queries, rows.T, out=result[: len(queries), : len(rows)])
        return np.nan

    return {
        "products": products,
        "ours": lambda: nearest(train, test, k, mesh=make_mesh())[0].mean(),
        "FAISS": with_faiss,
        "scikit-learn": with_sklearn,
    }


def sgd_sides() -> dict[str, Call]:
    """An epoch of all heads of the grid."""
    features, labels = random_split(**SGD)
    scaling = {"last": measure_scaling(features)}
    train = TrainSet({"last": features}, scaling, labels, SGD["classes"])
    kernels = random_rows(len(GRID) * SGD["classes"], 1)

    def ours() -> float:
        schedule = {"epochs": 1, "batch_size": BATCH, "seed": 0, "mesh": make_mesh()}
        heads = train_heads(train, ["last"], GRID, np.arange(len(labels)), **schedule)
        return float(np.abs(heads["last"].bias).sum())

    def products() -> float:
        error = np.empty((BATCH, len(kernels)), np.float32)
        gradient = np.empty_like(kernels)
        for start in range(0, len(features), BATCH):
            batch = features[start : start + BATCH]
            np.matmul(batch, kernels.T, out=error)
            np.matmul(error.T, batch, out=gradient)
        return np.nan

    return {"products": products, "ours": ours}


def lbfgs_sides() -> dict[str, Call]:
    """A logistic regression; the sides agree on the norm of its kernel."""
    features, labels = random_split(**LBFGS)
    rows, classes = LBFGS.values()
    scaling = measure_scaling(features)
    train = TrainSet({"last": features}, {"last": scaling}, labels, classes)
    everything = np.arange(rows)

    def ours() -> float:
        limits = {"max_steps": 500, "mesh": make_mesh()}
        weights, _ = fit_strengths(train, "last", [L2], everything, **limits)
        return float(np.linalg.norm(weights.kernel))

    def with_sklearn() -> float:
        fit = LogisticRegression(C=1 / (rows * L2), tol=1e-5, max_iter=500)
        return float(np.linalg.norm(fit.fit(scaling(features), labels).coef_))

    return {"ours": ours, "scikit-learn": with_sklearn}


TASKS = {"knn": knn_sides, "sgd": sgd_sides, "lbfgs": lbfgs_sides}
SIDES = {
    "knn": ("products", "ours", "FAISS", "scikit-learn"),
    "sgd": ("products", "ours"),
    "lbfgs": ("ours", "scikit-learn"),
}


def measure_once(call: Call) -> Figures:
    """Returns seconds of wall clock and of all cores, and the peak memory in MB."""
    before = start_peak()
    call()
    wall, cores = time.perf_counter(), time.process_time()
    checked = call()
    return {
        "s": time.perf_counter() - wall,
        "cpu": time.process_time() - cores,
        "mb": resident_mb("VmHWM") - before,
        "checked": float(checked),
    }


def in_fresh_process(task: str, side: str) -> Figures:
    command = [sys.executable, __file__, task, side]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    output = subprocess.run(
        command, check=True, env=environment, stdout=subprocess.PIPE, text=True
    )
    return json.loads(output.stdout)


def compare(task: str) -> list[list[str]]:
    """Returns a row for each side of a task, medians of the rounds."""
    sides = SIDES[task]
    rounds = [
        {side: in_fresh_process(task, side) for side in sides} for _ in range(ROUNDS)
    ]

    def median(side: str, field: str) -> float:
        return statistics.median(each[side][field] for each in rounds)

    ours, first = rounds[0]["ours"]["checked"], sides[0]
    for side in sides[1:]:
        if abs(rounds[0][side]["checked"] / ours - 1) > 1e-3:
            raise AssertionError(f"{task}: {side} and ours disagree")
    return [
        [
            f"{task}, {side}",
            *(f"{median(side, field):.1f}" for field in ("s", "cpu")),
            f"{median(side, 'cpu') / median(first, 'cpu'):.2f}",
            f"{median(side, 'mb'):.0f}",
        ]
        for side in sides
    ]


HEADER = ["", "s", "CPU s", "CPU s / the first of the task", "MB"]
TEXT = f"""\
{WIDTH} features, float32, random. knn: the {KNN["k"]} nearest of {KNN["train"]:,} rows
to each of {KNN["test"]:,}; the products are those of all pairs in blocks, by numpy.
sgd: an epoch of the {len(GRID)} heads of the default grid, {SGD["classes"]:,} classes,
{SGD["rows"]:,} rows, batch {BATCH}; the products are those of forward and backward.
lbfgs: one logistic regression, {LBFGS["classes"]} classes, {LBFGS["rows"]:,} rows,
l2 {L2}, until it has converged. Medians over {ROUNDS} fresh processes a side that took
turns; CPU s are those of all cores, and memory is the peak above the inputs."""


def main() -> None:
    packages = ["jax", "numpy", "scikit-learn", "faiss-cpu"]
    origin = report.origin("python benchmarks/evaluation.py", packages, timed=True)
    rows = [row for task in TASKS for row in compare(task)]
    report.write("kNN and linear probes", TEXT, report.table(HEADER, rows), origin)


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    else:
        task, side = sys.argv[1:]
        print(json.dumps(measure_once(TASKS[task]()[side])))
