"""The order of an epoch, how random the windowed one is, and what is read for it."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from snclr_jax.configs import base

from snclr_jax.data import Split, choose
from snclr_jax.data.blocks import Blocks
from snclr_jax.data.choose import choose_order
from snclr_jax.data.crop import View
from snclr_jax.data.order import (
    RANDOM,
    WINDOWED,
    block_size,
    epoch_order,
    in_user_space,
    lane_count,
)
from snclr_jax.data.pipeline import train_batches

SIZE, BATCH = 20_011, 64  # blocks of 19 images, 64 lanes of a row each


class Pages:
    """Images whose pixels say which they are; keeps what was read, in order."""

    def __init__(self) -> None:
        self.read: list[int] = []

    def __call__(self, indices: np.ndarray) -> np.ndarray:
        self.read += indices.tolist()
        digits = np.stack([indices % 256, indices // 256 % 256, 0 * indices], axis=-1)
        return np.tile(digits[:, None, None].astype(np.uint8), (1, 4, 4, 1))


def order(kind: str = WINDOWED, *, size=SIZE, batch=BATCH, seed=0, epoch=0):
    return epoch_order(kind, size, batch, seed, epoch)


@pytest.mark.parametrize("kind", [RANDOM, WINDOWED])
@pytest.mark.parametrize(("size", "batch"), [(23, 4), (SIZE, BATCH), (5000, 5000)])
def test_an_epoch_has_every_image_once(kind, size, batch):
    images = order(kind, size=size, batch=batch)
    assert images.dtype == np.int32
    assert sorted(images) == list(range(size))


@pytest.mark.parametrize("kind", [RANDOM, WINDOWED])
def test_each_epoch_and_seed_has_an_order_of_its_own(kind):
    orders = [order(kind, seed=s, epoch=e) for s in (0, 1) for e in (0, 1)]
    assert len({images.tobytes() for images in orders}) == 4
    epoch_order.cache_clear()
    np.testing.assert_array_equal(orders[0], order(kind))


def test_random_order_is_what_it_was():
    expected = np.random.RandomState([3, 2]).permutation(50)
    np.testing.assert_array_equal(order(RANDOM, size=50, seed=3, epoch=2), expected)


def test_small_sets_are_shuffled_whole():
    assert block_size(2047) == 1 and block_size(2048) == 2


def test_batches_of_a_sorted_set_are_mixed():
    """Of 100 classes in a row, a batch has as many as a uniform draw would have."""
    classes = {
        kind: [
            len(set(batch // (SIZE // 100)))
            for epoch in range(3)
            for batch in order(kind, epoch=epoch)[: SIZE // BATCH * BATCH].reshape(
                -1, BATCH
            )
        ]
        for kind in (RANDOM, WINDOWED)
    }
    # 100 (1 - 0.99^64) = 47.4 on the average.
    assert np.mean(classes[RANDOM]) == pytest.approx(47.4, abs=0.5)
    assert np.mean(classes[WINDOWED]) == pytest.approx(47.4, abs=1.5)
    assert min(classes[WINDOWED]) > 30


def test_neighbors_in_the_set_do_not_meet_again_in_the_next_epoch():
    places = [np.argsort(order(epoch=epoch)) // BATCH for epoch in range(2)]
    met = [abs(np.diff(place)) == 0 for place in places]
    assert max(np.mean(one) for one in met) < 0.02
    # Where a block's images came in the first epoch says nothing about the second.
    assert abs(np.corrcoef(places[0], places[1])[0, 1]) < 0.1


def cut(processes: int) -> tuple[list, list[list[int]]]:
    """An epoch of 2,048 images that some processes make, and what each read of it."""
    index, read = [], []
    for process in range(processes):
        pages = Pages()
        iterator = train_batches(
            Split(pages, size=2048),
            batch_size=64,
            seed=0,
            num_workers=0,
            views=(View(2, (1.0, 1.0), (1.0, 1.0)),),
            order=WINDOWED,
            process_index=process,
            process_count=processes,
        )
        made = [next(iterator) for _ in range(32)]
        iterator.set_state({"step": 20})
        np.testing.assert_array_equal(next(iterator)["view0"], made[20]["view0"])
        iterator.close()
        for one in made:
            seen = one["view0"][:, 0, 0].astype(int)
            np.testing.assert_array_equal(seen[:, 0] + 256 * seen[:, 1], one["index"])
        index.append([one["index"] for one in made])
        read.append(pages.read)
    return np.concatenate(index, axis=1).tolist(), read


def test_order_is_the_same_for_any_number_of_processes_that_share_the_reading():
    alone, (read,) = cut(1)
    # What is read ahead is more, and blocks that are cut between two lanes come twice.
    assert len(read) < 3 * 2048
    shared, parts = cut(4)
    assert shared == alone
    assert max(map(len, parts)) < 2048


def test_a_worker_makes_the_same_rows_of_every_batch():
    """Grain's worker w of n makes the elements w, w + n, ...: no block in two."""
    for workers, rows in [(3, 48), (16, 64), (16, 4)]:
        iterator = train_batches(
            Split(Pages(), size=4096),
            batch_size=rows,
            seed=0,
            num_workers=workers,
            views=(View(2, (1.0, 1.0), (1.0, 1.0)),),
            order=WINDOWED,
        )
        part = iterator._part
        assert part.chunks % workers == 0 or workers % part.chunks == 0
        step = [part._rows_of(element)[1] for element in range(part.chunks)]
        assert [row for some in step for row in some] == list(range(rows))


def test_a_block_is_read_from_its_first_image_to_its_last_and_let_go():
    pages = Pages()
    blocks = Blocks(Split(pages, size=8 * 1024), at_once=1)  # 8 images each
    pickle.dumps(blocks)  # for worker processes
    asked = np.array([13, 8, 14])
    images = np.array(blocks.originals(asked))
    np.testing.assert_array_equal(images[:, 0, 0, 0], asked)
    assert pages.read == list(range(8, 16))
    for number in range(2, 2 + blocks._most):
        blocks.originals(np.array([8 * number]))
    assert len(blocks._kept) == blocks._most
    pages.read.clear()
    blocks.originals(asked)
    assert pages.read == list(range(8, 16))


def test_an_error_is_of_the_read_that_met_it_alone():
    class Failing(Pages):
        def __call__(self, indices):
            if not self.read:
                self.read.append(-1)
                raise OSError("the bucket did not answer")
            return super().__call__(indices)

    blocks = Blocks(Split(Failing(), size=8 * 1024), at_once=1)
    with pytest.raises(OSError, match="did not answer"):
        blocks.originals(np.array([3]))
    assert len(blocks.originals(np.array([3]))) == 1


MOUNTS = """\
/dev/vda / ext4 rw 0 0
bucket /mnt/bucket fuse.gcsfuse ro 0 0
bucket /mnt/a\\040b fuse rw 0 0
/dev/sdb1 /mnt/windows fuseblk rw 0 0
bucket /mnt/hidden fuse.gcsfuse ro 0 0
/dev/vdc /mnt/hidden ext4 rw 0 0
"""


def test_fuse_mounts_are_known(tmp_path):
    mounts = tmp_path / "mounts"
    mounts.write_text(MOUNTS)

    def slow(path: str) -> bool:
        return in_user_space(path, str(mounts))

    assert slow("/mnt/bucket") and slow("/mnt/bucket/sets") and slow("/mnt/a b/sets")
    for path in ("/", "/mnt/bucketeer/x", "/mnt/windows/x", "/mnt/hidden/x"):
        assert not slow(path), path
    assert not in_user_space("/mnt/bucket", str(tmp_path / "none"))


def test_order_is_chosen_for_large_tfds_sets_on_a_mount(monkeypatch):
    monkeypatch.setattr(choose, "in_user_space", lambda path: path == "/mnt/bucket")
    config = base.get_config()
    config.data.update(name="tfds", path="/mnt/bucket", resident=False)
    chosen, sentence = choose_order(config, images=10**6)
    assert chosen.data.order == WINDOWED and config.data.order is None
    assert "data.order='windowed' reads blocks of 128 images" in sentence
    for changed in (
        {"order": RANDOM},
        {"resident": True},
        {"name": "folder"},
        {"path": "/data"},
    ):
        other = config.copy_and_resolve_references()
        other.data.update(changed)
        assert choose_order(other, images=10**6) == (other, "")


def test_a_pod_reads_fewer_blocks_a_second_than_a_bucket_answers():
    """docs/tpu.md: ImageNet at 180,000 images/s, against 5,000 requests/s."""
    assert block_size(1_281_167) == 128
    assert 180_000 / block_size(1_281_167) < 1500
    assert lane_count(4096) == 1024 and lane_count(96) == 32
