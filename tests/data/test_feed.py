"""Batches on the devices: read ahead, in order, and with the waiting measured."""

from __future__ import annotations

import threading
import time

import jax
import numpy as np
import pytest
import tiny
from PIL import Image

from snclr_jax.data import Split
from snclr_jax.data.feed import Feed
from snclr_jax.data.folder import open_folder
from snclr_jax.data.pipeline import train_batches
from snclr_jax.settings.resident import RESIDENT_BYTES, is_resident
from snclr_jax.step.augment import view_settings

SIZE = 80


class Numbered:
    """Image i has the value i, and takes `seconds` to decode."""

    def __init__(self, seconds: float = 0.0):
        self.seconds = seconds

    def __call__(self, indices: np.ndarray) -> np.ndarray:
        time.sleep(self.seconds * len(indices))
        values = np.asarray(indices, np.uint8)[:, None, None, None]
        return np.broadcast_to(values, (len(indices), 12, 12, 3))


class Step:
    """Stands for the arrays that a step returns: it takes `seconds` from now."""

    def __init__(self, seconds: float = 0.0):
        self.end = time.perf_counter() + seconds
        self.awaited = False

    def block_until_ready(self):
        self.awaited = True
        time.sleep(max(0.0, self.end - time.perf_counter()))
        return self


@pytest.fixture
def open_feed(mesh_of):
    """Returns a function that opens a feed of numbered images on 4 devices."""
    feeds = []

    def open_feed(
        split=None, *, seconds=0.0, resident=False, devices=4, **fields
    ) -> Feed:
        config = tiny.config(data__resident=resident, **fields)
        split = split or Split(Numbered(seconds), size=SIZE)
        feeds.append(Feed(config, split, mesh_of(devices)))
        return feeds[-1]

    yield open_feed
    for feed in feeds:
        feed.batches.close()


@pytest.mark.parametrize("resident", [True, False])
def test_labels_that_have_to_be_read_are_left_out_of_what_the_host_crops(
    open_feed, resident
):
    labels = np.arange(SIZE, dtype=np.int32)
    at_hand = Split(Numbered(), size=SIZE, labels=labels)
    assert open_feed(at_hand, resident=resident).next().labels is not None
    to_be_read = Split(Numbered(), size=SIZE, labels=lambda rows: labels[rows])
    read = open_feed(to_be_read, resident=resident).next().labels
    assert (read is not None) == resident


def ids(feed: Feed, count: int) -> list[list[int]]:
    return [feed.next().image_id.tolist() for _ in range(count)]


def wait_until_ready(feed: Feed) -> None:
    end = time.monotonic() + 30
    while not feed.batches.ready:
        assert time.monotonic() < end
        time.sleep(0.005)


def test_views_are_whole_and_lie_on_the_devices(open_feed):
    many = {"augment__global_views": 3, "augment__local_views": 2}
    feed = open_feed(**many)
    sizes = [size for size, _ in view_settings(tiny.config(**many).augment)]
    for _ in range(3):
        batch = feed.next()
        assert batch.resident is None and len(sizes) == 5
        for view, size in zip(batch.views, sizes, strict=True):
            assert view.shape == (16, size, size, 3) and view.dtype == np.uint8
            assert view.sharding.spec == jax.P("data")
            assert len(view.addressable_shards) == 4
            np.testing.assert_array_equal(view[:, 0, 0, 0], batch.image_id)


def test_both_kinds_of_feed_follow_the_same_order(open_feed):
    feed = open_feed(resident=True)
    batch = feed.next()
    assert batch.views is None and batch.resident.shape == (SIZE, 12, 12, 3)
    want = [batch.image_id.tolist(), *ids(feed, 7)]
    assert ids(open_feed(), 8) == want


def test_order_follows_the_seed_of_the_config(open_feed):
    epochs = []
    for seed in (0, 1):
        for resident in (False, True):
            epochs.append(sum(ids(open_feed(resident=resident, seed=seed), 5), []))
    assert epochs[0] == epochs[1] != epochs[2] == epochs[3]
    assert all(sorted(epoch) == list(range(SIZE)) for epoch in epochs)


def test_each_process_asks_for_its_own_rows(mesh_of, monkeypatch):
    asked = []

    def batches_of(split, **settings):
        asked.append(settings)
        return train_batches(split, **settings)

    monkeypatch.setattr(jax, "process_index", lambda: 2)
    monkeypatch.setattr(jax, "process_count", lambda: 4)
    monkeypatch.setattr("snclr_jax.data.feed.train_batches", batches_of)
    config = tiny.config(data__resident=False, batch_size=8, seed=3)
    feed = Feed(config, Split(Numbered(), size=SIZE), mesh_of(1))
    feed.batches.close()
    (settings,) = asked
    assert (settings["process_index"], settings["process_count"]) == (2, 4)
    assert (settings["batch_size"], settings["seed"]) == (8, 3)


def test_what_was_read_ahead_is_not_part_of_the_state(open_feed):
    feed = open_feed()
    first = ids(feed, 3)
    wait_until_ready(feed)
    state = feed.batches.get_state()
    assert state == {"step": 3}
    after = ids(feed, 4)
    other = open_feed()
    ids(other, 1)
    other.batches.set_state(state)  # with one ahead
    assert ids(other, 4) == after
    feed.batches.set_state({"step": 0})
    assert ids(feed, 3) == first


def test_closing_loses_no_batch(open_feed):
    feed, undisturbed = open_feed(seconds=1e-3), open_feed()
    for _ in range(3):  # while one is being made
        assert ids(feed, 2) == ids(undisturbed, 2)
        feed.batches.close()


def test_an_error_is_raised_when_its_batch_is_asked_for(open_feed, tmp_path):
    broken = ids(open_feed(), 4)[3][0]
    for number in range(SIZE):
        image = Image.new("RGB", (8, 8), (number,) * 3)
        image.save(tmp_path / f"{number:02}.png")
    (tmp_path / f"{broken:02}.png").write_bytes(b"no image")
    feed = open_feed(open_folder(str(tmp_path), 8, max_bad=0.0, pages=None)[0])
    ids(feed, 3)
    wait_until_ready(feed)
    for _ in range(2):
        with pytest.raises(ValueError, match=rf"{broken:02}\.png cannot be decoded"):
            feed.next()
    assert feed.batches.get_state() == {"step": 3}


def take_steps(feed: Feed, step_seconds: float, count: int) -> float:
    """Returns the share of the time of `count` steps in which there was no batch."""
    feed.next()
    wait_until_ready(feed)
    start = time.perf_counter()
    for _ in range(count):
        feed.next(Step(step_seconds))
    return feed.take_waited() / (time.perf_counter() - start)


def test_steps_wait_for_slow_data(open_feed):
    # A batch takes 0.1 s or more, a step nothing.
    feed = open_feed(seconds=6e-3, batch_size=16)
    assert take_steps(feed, 0.0, count=40) > 0.6
    assert feed.take_waited() == 0.0


def test_steps_do_not_wait_for_fast_data(open_feed):
    # A batch takes about 0.02 s, a step 0.1 s.
    assert take_steps(open_feed(seconds=1e-3), 0.1, count=8) < 0.2


def test_time_in_which_a_step_still_runs_is_not_waiting(open_feed):
    class Gated(Numbered):
        gate = threading.Event()

        def __call__(self, indices):
            assert self.gate.wait(30)
            return super().__call__(indices)

    Gated.gate.set()
    feed = open_feed(Split(Gated(), size=SIZE))
    feed.next()
    Gated.gate.clear()
    time.sleep(0.1)
    while feed.batches.ready:  # until all that was read ahead is used up
        feed.next()
        time.sleep(0.1)
    threading.Timer(0.2, Gated.gate.set).start()
    step = Step(0.5)
    start = time.perf_counter()
    feed.next(step)
    assert step.awaited and time.perf_counter() - start > 0.45
    assert feed.take_waited() < 0.2


@pytest.mark.parametrize("resident", [False, True])
def test_at_most_one_step_runs_when_a_batch_is_handed_out(open_feed, resident):
    feed = open_feed(resident=resident, devices=1)
    steps = [Step() for _ in range(4)]
    feed.next()
    for before, under_way in zip([None, *steps], steps, strict=False):
        if not resident:
            wait_until_ready(feed)
        feed.next(under_way)
        assert not under_way.awaited
        assert before is None or before.awaited


@pytest.mark.parametrize("resident", [False, True])
def test_virtual_devices_take_one_step_at_a_time(open_feed, resident):
    feed = open_feed(resident=resident, devices=2)
    for step in [Step() for _ in range(4)]:
        feed.next(step)
        assert step.awaited


def test_small_sets_are_resident_unless_the_config_says_otherwise():
    config = tiny.config(data__image_size=96)
    assert is_resident(config, 105_000)  # STL-10
    assert not is_resident(config, RESIDENT_BYTES // (96 * 96 * 3) + 1)
    assert not is_resident(tiny.config(data__resident=False), 16)
    assert is_resident(tiny.config(data__resident=True), 10**9)
