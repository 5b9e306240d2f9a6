"""The order of the data, its division over processes, and resume."""

from __future__ import annotations

import time

import grain
import numpy as np
import orbax.checkpoint as ocp
import pytest

from snclr_jax.data import Split
from snclr_jax.data.pipeline import eval_batches, train_batches


class Numbered:
    """Image i is 2 x 2 pixels of the value i; a class, so that workers can load it."""

    def __call__(self, indices: np.ndarray) -> np.ndarray:
        values = np.asarray(indices, np.uint8)[:, None, None, None]
        return np.broadcast_to(values, (len(indices), 2, 2, 3))


def numbered(size: int) -> Split:
    return Split(Numbered(), size=size)


def batches(count: int, *, size: int = 23, resident: bool = True, **options) -> list:
    options = {"batch_size": 4, "seed": 0, "num_workers": 0} | options
    iterator = train_batches(numbered(size), resident=resident, **options)
    return [next(iterator) for _ in range(count)]


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
    for resident, decoded in zip(batches(9), batches(9, resident=False), strict=True):
        assert set(resident) == {"index"} and set(decoded) == {"index", "image"}
        assert resident["index"].dtype == decoded["index"].dtype == np.int32
        assert resident["index"].tolist() == decoded["index"].tolist()
        assert decoded["image"].shape == (4, 2, 2, 3)
        assert decoded["image"].dtype == np.uint8
        assert decoded["image"][:, 0, 0, 0].tolist() == decoded["index"].tolist()


@pytest.mark.parametrize("resident", [True, False])
def test_state_restores_the_exact_position(resident):
    options = {"batch_size": 4, "seed": 3, "num_workers": 0, "resident": resident}
    iterator = train_batches(numbered(23), **options)
    for _ in range(7):
        next(iterator)
    state = iterator.get_state()
    after = [next(iterator)["index"].tolist() for _ in range(9)]
    fresh = train_batches(numbered(23), **options)
    fresh.set_state(state)
    assert [next(fresh)["index"].tolist() for _ in range(9)] == after
    iterator.set_state(state)  # also backwards, on one that is running
    assert next(iterator)["index"].tolist() == after[0]


def test_workers_continue_a_checkpoint_written_without_them(tmp_path):
    options = {"batch_size": 4, "seed": 3, "resident": False}
    alone = train_batches(numbered(23), num_workers=0, **options)
    for _ in range(6):
        next(alone)
    with ocp.CheckpointManager(tmp_path) as manager:
        manager.save(
            6, args=ocp.args.Composite(data=grain.checkpoint.CheckpointSave(alone))
        )
        manager.wait_until_finished()
        workers = train_batches(numbered(23), num_workers=2, **options)
        manager.restore(
            6, args=ocp.args.Composite(data=grain.checkpoint.CheckpointRestore(workers))
        )
    for _ in range(9):
        want, got = next(alone), next(workers)
        assert got["index"].tolist() == want["index"].tolist()
        assert np.array_equal(got["image"], want["image"])
    assert workers.get_state() == alone.get_state() == {"step": 15}
    workers.close()


def test_resident_batches_are_cheap():
    iterator = train_batches(
        numbered(50_000), batch_size=256, seed=0, num_workers=0, resident=True
    )
    next(iterator)
    times = []
    for _ in range(100):
        start = time.perf_counter()
        next(iterator)
        times.append(time.perf_counter() - start)
    assert np.median(times) < 1e-3


def test_eval_batches_are_in_order_and_whole():
    read = list(eval_batches(numbered(23), 10))
    assert [len(batch) for batch in read] == [10, 10, 3]
    assert np.concatenate(read)[:, 0, 0, 0].tolist() == list(range(23))


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
