"""One definition, whatever the devices: one, eight, or those of two processes."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from share_and_dump import BAD, IMAGES, SHOWN, Counted
from steps_and_dump import dumped

HERE = Path(__file__).parents[1]
ONE = "one device"
# Over how many devices the queue is spread in each run.
RUNS = {ONE: 1, "eight devices": 8, "process 0 of 2": 2, "process 1 of 2": 2}
PROGRAMS = "programs"
PROCESSES = [name for name in RUNS if name.startswith("process")]
OTHERS = [name for name in RUNS if name != ONE]
QUEUE_SIZE = 64
# Of each array's maximum. Ten steps were measured to differ by 2e-13, and two steps by
# 1e-6 where only the sums of BatchNorm were taken in float32.
TOLERANCE = 1e-11
TIE = 1e-6
TIMEOUT_SECONDS = 600
every_other = pytest.mark.parametrize("other", OTHERS)


@contextlib.contextmanager
def two_processes(folder: Path):
    """Starts two processes of one device each; ends them where the block fails."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = os.environ["XLA_FLAGS"] + " --xla_force_host_platform_device_count=1"
    environment = os.environ | {
        "XLA_FLAGS": flags,
        # The package beside these tests, wherever they were copied to.
        "PYTHONPATH": os.pathsep.join(map(str, (HERE, HERE.parent))),
        "JAX_COMPILATION_CACHE_DIR": str(folder / PROGRAMS),
    }
    processes = []
    for number in range(2):
        arguments = (HERE / "steps_and_dump.py", folder / f"{number}.npz", number, port)
        with (folder / f"{number}.log").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, *map(str, arguments)],
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        processes.append(process)
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()  # jax.distributed swallows SIGTERM
            process.wait()


def wait(processes: list[subprocess.Popen]) -> list[int | None]:
    """Returns the exit codes when all have ended, one has failed or time is up."""
    end = time.monotonic() + TIMEOUT_SECONDS
    while True:
        codes = [process.poll() for process in processes]
        if any(codes) or None not in codes or time.monotonic() > end:
            return codes
        time.sleep(0.1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What the two processes write."""
    return tmp_path_factory.mktemp("processes")


@pytest.fixture(scope="module")
def runs(folder, mesh_of):
    """The arrays of `steps_and_dump.dumped` in each of RUNS."""
    with two_processes(folder) as processes, jax.enable_x64(True):
        runs = {name: dumped(mesh_of(RUNS[name])) for name in (ONE, "eight devices")}
        codes = wait(processes)
        logs = [(folder / f"{number}.log").read_text() for number in range(2)]
        assert codes == [0, 0], "\n".join([str(codes), *logs])
    for number in range(2):
        runs[f"process {number} of 2"] = dict(np.load(folder / f"{number}.npz"))
    return runs


def part_of(arrays: dict[str, np.ndarray], part: str) -> dict[str, np.ndarray]:
    """Returns those of the steps or of what is shared."""
    return {name: array for name, array in arrays.items() if name.startswith(part)}


def scale_of(name: str, arrays: dict[str, np.ndarray]) -> float:
    """Returns the magnitude that an array's rounding is measured by."""
    if "batch_stats" in name and name.endswith("/mean"):
        # The predictor's first layer has no bias and reads rows of mean zero: its own
        # mean is zero but for rounding, so a mean counts in standard deviations.
        return np.sqrt(np.abs(arrays[name.removesuffix("mean") + "var"]).max())
    return np.abs(arrays[name]).max()


def test_processes_on_cpus_keep_no_programs(runs, folder):
    """Read in one process and compiled in the other, they abort."""
    assert not [path for path in (folder / PROGRAMS).rglob("*") if path.is_file()]


@every_other
def test_state_and_metrics_agree(runs, other):
    one, many = part_of(runs[ONE], "step"), part_of(runs[other], "step")
    assert one.keys() == many.keys()
    for name in one:
        if "/neighbors/" in name:
            continue
        assert one[name].dtype == many[name].dtype, name
        if one[name].dtype.kind == "i":
            np.testing.assert_array_equal(one[name], many[name], err_msg=name)
            continue
        error = np.abs(one[name] - many[name]).max()
        assert error <= TOLERANCE * scale_of(name, one), name


def neighbors_of(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the neighbors' fields of all steps and directions, (images, k) each."""
    fields = ("similarity", "row", "image_id", "pushed_at", "valid")
    return {
        field: np.concatenate(
            [
                array
                for name, array in arrays.items()
                if "/neighbors/" in name and name.endswith(f"/{field}")
            ]
        )
        for field in fields
    }


def sort_ties(neighbors: dict[str, np.ndarray], similarity: np.ndarray) -> dict:
    """Returns the fields with neighbors of nearly equal similarity sorted by row."""
    apart = similarity[:, :-1] - similarity[:, 1:] > TIE
    rank = np.cumsum(np.pad(apart, ((0, 0), (1, 0))), axis=1)
    place = np.lexsort((neighbors["row"], rank))
    return {
        field: np.take_along_axis(array, place, axis=1)
        for field, array in neighbors.items()
    }


def test_only_ties_may_come_in_another_order():
    similarity = np.array([[0.9, 0.5 + TIE / 2, 0.5, 0.1]])
    ordered = {"row": np.array([[7, 6, 5, 4]])}
    assert sort_ties(ordered, similarity)["row"].tolist() == [[7, 5, 6, 4]]


@every_other
def test_neighbors_agree(runs, other):
    one, many = neighbors_of(runs[ONE]), neighbors_of(runs[other])
    np.testing.assert_array_equal(one["valid"], many["valid"])
    assert one["valid"].mean() > 0.9
    np.testing.assert_allclose(
        one["similarity"], many["similarity"], rtol=0, atol=TOLERANCE
    )
    # Below every cosine where there is no neighbor: -inf - -inf would be no number.
    similarity = np.where(one["valid"], one["similarity"], -2.0)
    one, many = sort_ties(one, similarity), sort_ties(many, similarity)
    for field in ("row", "image_id", "pushed_at"):
        np.testing.assert_array_equal(
            np.where(one["valid"], one[field], -1),
            np.where(many["valid"], many[field], -1),
            err_msg=field,
        )


def test_gradients_of_all_parameters_are_among_what_agrees(runs):
    arrays = runs[ONE]
    prefix = "step/0/state/params/"
    names = [name.removeprefix(prefix) for name in arrays if name.startswith(prefix)]
    gradients = {
        name.partition("/trace/")[2]: array
        for name, array in arrays.items()
        if name.startswith("step/0/state/opt_state/") and "/trace/" in name
    }
    assert names and set(names) == set(gradients)
    assert {"objective/w1", "predictor/dense_0/kernel"} <= set(names)
    assert all(np.abs(array).max() > 0 for array in gradients.values())


@pytest.mark.parametrize("name", RUNS)
def test_shardings_survive_the_steps(runs, name):
    assert runs[name]["moved"].tolist() == []
    assert runs[name]["owned_rows"] == QUEUE_SIZE // RUNS[name]


@every_other
def test_scores_and_images_agree_whoever_reads_them(runs, other):
    one, many = part_of(runs[ONE], "share"), part_of(runs[other], "share")
    assert one.keys() == many.keys() and one["share/False/knn"].any()
    for name in one:
        np.testing.assert_array_equal(one[name], many[name], err_msg=name)


def test_what_stands_in_place_of_bad_images_is_in_order(runs):
    pixels = Counted(IMAGES).pixels[SHOWN]
    np.testing.assert_array_equal(runs[ONE]["share/resident"], pixels)
    for kind in ("False", "True"):
        labels = runs[ONE][f"share/{kind}/labels"]
        np.testing.assert_array_equal(labels, SHOWN % 3)
        assert [text.count("torn") for text in runs[ONE][f"share/{kind}/bad"]] == [1, 1]


@pytest.mark.parametrize("name", RUNS)
def test_a_process_reads_its_share_alone(runs, name):
    """And what stands in place of its bad images."""
    own = {"process 0 of 2": range(BAD[0] + 1), "process 1 of 2": range(22, IMAGES)}
    own = own.get(name, range(IMAGES))
    for kind in ("False", "True", "feed"):
        read = runs[name][f"reads/{kind}/images"]
        assert [*read] == sorted({*own, *SHOWN[own]}), kind
    for kind in ("False", "True"):
        assert [*runs[name][f"reads/{kind}/labels"]] == [*own]


def test_one_that_cannot_read_its_images_ends_all(runs):
    alone = str(runs[ONE]["refused"])
    assert alone.startswith("1 of 45 images so far, and data.max_bad 0 allows 0: image")
    assert [str(runs[name]["refused"]) for name in PROCESSES] == [
        f"process 1: {alone}",
        alone,
    ]
