"""The order of the data, its division over processes, and resume."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import grain
import numpy as np
import orbax.checkpoint as ocp
import pytest

from snclr_jax.data import Split, pipeline
from snclr_jax.data.crop import View, crop_boxes, cut_views, draw_uniforms
from snclr_jax.data.folder import open_folder
from snclr_jax.data.pipeline import train_batches
from snclr_jax.devices.signals import SIGNALS

VIEWS = (View(6, (0.1, 1.0), (3 / 4, 4 / 3)), View(3, (0.1, 0.5), (3 / 4, 4 / 3)))


class Numbered:
    """Image i shades from the value i down; a class, so that workers can load it."""

    def __call__(self, indices: np.ndarray) -> np.ndarray:
        rows, columns = np.mgrid[:9, :9]
        values = np.asarray(indices)[:, None, None, None]
        shades = np.stack([0 * rows, 9 * rows, 9 * columns], axis=-1)
        return (values + shades).astype(np.uint8)


def numbered(size: int) -> Split:
    return Split(Numbered(), size=size)


def batches(count: int, *, size: int = 23, **options) -> list:
    options = {"batch_size": 4, "seed": 0, "num_workers": 0, "views": None} | options
    iterator = train_batches(numbered(size), order="random", **options)
    try:
        return [next(iterator) for _ in range(count)]
    finally:
        iterator.close()


def assert_equal(batches: list, others: list) -> None:
    for batch, other in zip(batches, others, strict=True):
        assert batch.keys() == other.keys()
        for name in batch:
            np.testing.assert_array_equal(batch[name], other[name], err_msg=name)


def indices(count: int, **options) -> list[list[int]]:
    return [batch["index"].tolist() for batch in batches(count, **options)]


def test_epoch_is_an_exact_permutation():
    for epoch in np.array(indices(15, size=20)).reshape(3, 20):
        assert sorted(epoch) == list(range(20))


def test_remainder_is_dropped_and_changes_with_the_epoch():
    epochs = np.array(indices(5 * 40)).reshape(40, 20)
    dropped = set()
    for epoch in epochs:
        assert len(set(epoch)) == 20
        dropped |= set(range(23)) - set(epoch)
    assert dropped == set(range(23))


def test_order_depends_on_seed_and_epoch_alone():
    epochs = [tuple(map(tuple, indices(10, seed=seed))) for seed in (0, 1)]
    orders = {half for order in epochs for half in (order[:5], order[5:])}
    assert len(orders) == 4
    assert epochs[0] == tuple(map(tuple, indices(10, seed=0)))


def test_order_looks_random():
    # Over many epochs every image is equally often in the first batch.
    first = [index for e in range(400) for index in indices(5, size=20, seed=e)[0]]
    counts = np.bincount(first, minlength=20)
    chi_square = ((counts - 80) ** 2 / 80).sum()
    assert chi_square < 43.8  # 0.1% point at 19 degrees of freedom


def test_processes_read_consecutive_rows_of_the_same_batch():
    whole = indices(12, batch_size=6)
    parts = [
        indices(12, batch_size=6, process_index=p, process_count=3) for p in range(3)
    ]
    for step in range(12):
        assert sum((part[step] for part in parts), []) == whole[step]


def test_images_are_those_of_the_indices():
    for resident, decoded in zip(batches(9), batches(9, views=VIEWS), strict=True):
        assert set(resident) == {"index"}
        assert set(decoded) == {"index", "view0", "view1"}
        assert resident["index"].dtype == decoded["index"].dtype == np.int32
        assert resident["index"].tolist() == decoded["index"].tolist()
        for name, view in zip(("view0", "view1"), VIEWS, strict=True):
            assert decoded[name].shape == (4, view.size, view.size, 3)
            assert decoded[name].dtype == np.uint8
            assert decoded[name][:, 0, 0, 0].tolist() == decoded["index"].tolist()


def test_crops_follow_from_seed_step_row_and_view():
    for step, batch in enumerate(batches(8, seed=5, views=VIEWS)):
        images = Numbered()(batch["index"])
        for number, view in enumerate(VIEWS):
            draws = draw_uniforms(5, step, number, range(4))
            for row in range(4):
                boxes = crop_boxes((9, 9), [view], [draws[row]])
                (want,) = cut_views(images[row], boxes, [view])
                np.testing.assert_array_equal(batch[f"view{number}"][row], want)


def test_batches_do_not_depend_on_chunks(monkeypatch):
    whole = batches(7, batch_size=20, views=VIEWS)
    for size in (3, 7):  # neither divides the batch
        monkeypatch.setattr(pipeline, "CHUNK", size)
        assert_equal(batches(7, batch_size=20, views=VIEWS), whole)
        parts = [
            batches(7, batch_size=20, views=VIEWS, process_index=p, process_count=2)
            for p in range(2)
        ]
        joined = [
            {name: np.concatenate([one[name], two[name]]) for name in one}
            for one, two in zip(*parts, strict=True)
        ]
        assert_equal(joined, whole)


@pytest.mark.parametrize("views", [None, VIEWS])
def test_state_restores_the_exact_position(views):
    options = {"batch_size": 4, "seed": 3, "num_workers": 0, "views": views}
    iterator = train_batches(numbered(23), order="random", **options)
    for _ in range(7):
        next(iterator)
    state = iterator.get_state()
    after = [next(iterator)["index"].tolist() for _ in range(9)]
    fresh = train_batches(numbered(23), order="random", **options)
    fresh.set_state(state)
    assert [next(fresh)["index"].tolist() for _ in range(9)] == after
    iterator.set_state(state)  # also backwards, on one that is running
    assert next(iterator)["index"].tolist() == after[0]


def test_workers_continue_a_checkpoint_written_without_them(tmp_path):
    # Of three chunks, the workers' first does not lie at the start of a batch.
    options = {"batch_size": 70, "seed": 3, "views": VIEWS}
    alone = train_batches(numbered(200), order="random", num_workers=0, **options)
    for _ in range(6):
        next(alone)
    with ocp.CheckpointManager(tmp_path) as manager:
        manager.save(
            6, args=ocp.args.Composite(data=grain.checkpoint.CheckpointSave(alone))
        )
        manager.wait_until_finished()
        workers = train_batches(numbered(200), order="random", num_workers=2, **options)
        manager.restore(
            6, args=ocp.args.Composite(data=grain.checkpoint.CheckpointRestore(workers))
        )
    for _ in range(9):
        assert_equal([next(workers)], [next(alone)])
    assert workers.get_state() == alone.get_state() == {"step": 15}
    workers.close()


class Killed(Numbered):
    """Images whose process is killed at image 5."""

    def __init__(self, number: signal.Signals) -> None:
        self._number = number

    def __call__(self, indices: np.ndarray) -> np.ndarray:
        if 5 in indices:
            os.kill(os.getpid(), self._number)
        return super().__call__(indices)


@pytest.mark.parametrize(
    "number, cause",
    [(signal.SIGBUS, "/dev/shm, is full"), (signal.SIGKILL, "memory ran out")],
)
def test_it_is_said_what_a_worker_died_of(number, cause):
    split = Split(Killed(number), size=8)
    iterator = train_batches(
        split, order="random", batch_size=4, seed=0, num_workers=1, views=VIEWS
    )
    with pytest.raises(OSError, match=f"{number.name}.*{cause}.*data.num_workers"):
        for _ in range(2):
            next(iterator)
    iterator.close()


def test_a_worker_leaves_signals_to_the_main_process():
    others = multiprocessing.active_children()
    iterator = train_batches(
        numbered(200), order="random", batch_size=4, seed=0, num_workers=1, views=VIEWS
    )
    next(iterator)
    (worker,) = set(multiprocessing.active_children()) - set(others)
    for number in SIGNALS:
        os.kill(worker.pid, number)
    for _ in range(40):  # more than it had made by then
        next(iterator)
    assert worker.is_alive()
    iterator.close()


WITH_A_WORKER = """
import multiprocessing
import time
from test_pipeline import VIEWS, numbered
from snclr_jax.data.pipeline import train_batches
if __name__ == "__main__":
    batches = train_batches(
        numbered(200), order="random", batch_size=4, seed=0, num_workers=1, views=VIEWS
    )
    next(batches)
    print(multiprocessing.active_children()[0].pid, flush=True)
    time.sleep(600)
"""


def test_a_worker_ends_where_the_main_process_is_killed(tmp_path):
    script = tmp_path / "main.py"
    script.write_text(WITH_A_WORKER)
    main = subprocess.Popen(
        [sys.executable, script],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent)},
        stdout=subprocess.PIPE,
        text=True,
    )
    worker = Path("/proc", main.stdout.readline().strip(), "cmdline")
    assert worker.read_bytes()
    main.kill()
    main.wait()
    end = time.monotonic() + 20
    while worker.exists() and worker.read_bytes():  # none of one nobody waits for
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_image_that_cannot_be_decoded_is_named(tmp_path, num_workers):
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(b"no image")
    split = open_folder(str(tmp_path), 8, max_bad=0.0, pages=None)[0]
    iterator = train_batches(
        split,
        order="random",
        batch_size=2,
        seed=0,
        num_workers=num_workers,
        views=VIEWS,
    )
    with pytest.raises(ValueError, match=r"[ab]\.jpg cannot be decoded .*replace"):
        next(iterator)
    assert iterator.get_state() == {"step": 0}
    iterator.close()


def test_resident_batches_are_cheap():
    iterator = train_batches(
        numbered(50_000),
        order="random",
        batch_size=256,
        seed=0,
        num_workers=0,
        views=None,
    )
    next(iterator)
    times = []
    for _ in range(100):
        start = time.perf_counter()
        next(iterator)
        times.append(time.perf_counter() - start)
    assert np.median(times) < 1e-3


@pytest.mark.parametrize(
    ("batch_size", "processes", "message"),
    [
        (24, 1, "batch_size 24 .* 23 images"),
        (0, 1, "batch_size 0 "),
        (10, 4, "batch_size 10 is not a multiple of the 4 processes; use 12"),
    ],
)
def test_impossible_batches_are_refused(batch_size, processes, message):
    with pytest.raises(ValueError, match=message):
        batches(1, batch_size=batch_size, process_count=processes)
