"""Bad images: counted and named once, replaced by the same image in every run."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import tiny
from bad_pictures import (
    AT,
    IMAGES,
    SHOWN,
    check_lines,
    encoded,
    file_name,
    make_bad_folder,
    make_folder,
    noise,
    open_train,
)

from snclr_jax.data import Data, Split, hold_back
from snclr_jax.data.bad_files import FILE, BadFiles
from snclr_jax.data.crop import View
from snclr_jax.data.decode import UnreadableImage
from snclr_jax.data.feed import Feed
from snclr_jax.data.pipeline import train_batches

VIEWS = (View(6, (0.1, 1.0), (3 / 4, 4 / 3)), View(3, (0.1, 0.5), (3 / 4, 4 / 3)))
BATCH, STEPS = 8, 10  # two epochs
pytestmark = pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    return make_bad_folder(tmp_path_factory.mktemp("bad"))


@pytest.fixture(scope="module")
def repaired(tmp_path_factory) -> str:
    """The same folder with copies of good images in place of the bad ones."""
    contents = [encoded(noise(row, side=12), "PNG") for row in SHOWN]
    return make_folder(tmp_path_factory.mktemp("repaired"), contents)


def batches_of(split: Split, *, first: int = 0, steps: int = STEPS, **options) -> list:
    options = {"num_workers": 0, "views": VIEWS} | options
    iterator = train_batches(split, order="random", batch_size=BATCH, seed=3, **options)
    iterator.set_state({"step": first})
    try:
        return [next(iterator) for _ in range(steps)]
    finally:
        iterator.close()


@pytest.fixture(scope="module")
def want(repaired) -> list[dict[str, np.ndarray]]:
    """Two epochs as they would be, each bad image already replaced."""
    batches = batches_of(open_train(repaired, 0.0))
    for batch in batches:
        batch["index"] = np.array(SHOWN, np.int32)[batch["index"]]
    return batches


def assert_equal(batches: list, others: list) -> None:
    for batch, other in zip(batches, others, strict=True):
        assert batch.keys() == other.keys()
        for name in batch:
            np.testing.assert_array_equal(batch[name], other[name], err_msg=name)


# What is shown.


@pytest.mark.parametrize("num_workers", [0, 1])
def test_each_bad_image_is_the_next_good_one_and_all_others_stay(
    folder, want, tmp_path, num_workers
):
    split = open_train(folder)
    files = BadFiles(str(tmp_path), Data(split, None, None))
    assert_equal(batches_of(split, num_workers=num_workers), want)
    assert sorted(split.bad.errors) == list(AT) and files.count == len(AT)
    files.close()
    check_lines(tmp_path)


def test_two_processes_see_what_one_sees(folder, want):
    found: list[set[int]] = []
    parts = []
    for process in range(2):
        split = open_train(folder)
        parts.append(
            batches_of(split, process_index=process, process_count=2, steps=STEPS)
        )
        found.append(set(split.bad.errors))
    joined = [
        {name: np.concatenate([one[name], two[name]]) for name in one}
        for one, two in zip(*parts, strict=True)
    ]
    assert_equal(joined, want)
    assert found[0] | found[1] == set(AT)


def test_a_resident_set_is_replaced_at_the_start(folder, want, mesh_of):
    config = tiny.config(data__resident=True, seed=3, batch_size=BATCH)
    split = open_train(folder)
    feed = Feed(config, split, mesh_of(4))
    assert sorted(split.bad.errors) == list(AT)
    for expected in want:
        batch = feed.next()
        np.testing.assert_array_equal(batch.image_id, expected["index"])
    labels = np.asarray(batch.labels)
    np.testing.assert_array_equal(labels, np.array(SHOWN) // 20)
    pixels = np.asarray(batch.resident)
    for row in range(IMAGES):
        np.testing.assert_array_equal(pixels[row], noise(SHOWN[row], side=12))


def test_images_labels_and_names_are_of_what_is_shown(folder):
    split = open_train(folder)
    images = split.read(np.arange(IMAGES))
    for row, image in enumerate(images):
        np.testing.assert_array_equal(image, noise(SHOWN[row], side=12))
    assert split.labels.tolist() == [row // 20 for row in SHOWN]
    clean = open_train(folder)  # which has met nothing yet
    assert split.names(range(IMAGES)) == clean.names(SHOWN)


def test_a_part_replaces_an_image_by_one_of_its_own(folder):
    """So that no image that is held back is ever trained on."""
    train, held = hold_back(open_train(folder), 12)
    names = open_train(folder).names(range(IMAGES))
    for part in (train, held, train.subset(np.array([9, 2, 4, 9, 2, 11, 0]))):
        rows = [names.index(name) for name in part.names(range(part.size))]
        good = sorted(set(rows) - set(AT))
        want = [next((i for i in good if i >= row), good[0]) for row in rows]
        images = part.read(range(part.size))
        np.testing.assert_array_equal(
            images, np.stack([noise(row, side=12) for row in want])
        )
        assert part.names(range(part.size)) == [names[row] for row in want]
        assert part.labels.tolist() == [row // 20 for row in want]
    assert sorted(train.bad.errors) == list(AT)


def test_a_restart_changes_nothing_and_names_nothing_twice(folder, want, tmp_path):
    for first, steps in ((0, 3), (2, 4), (6, 4)):  # killed after a save at step 2
        split = open_train(folder)
        files = BadFiles(str(tmp_path), Data(split, None, None))
        before = files.count
        workers = int(first == 2)
        batches = batches_of(split, first=first, steps=steps, num_workers=workers)
        assert_equal(batches, want[first : first + steps])
        files.close()
        assert before == 0 or first > 0  # those of before count at once
    check_lines(tmp_path)
    content = (tmp_path / FILE).read_bytes()
    BadFiles(str(tmp_path), Data(split, None, None)).close()
    assert (tmp_path / FILE).read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


# When a run stops.


@pytest.mark.parametrize("num_workers", [None, 0, 1])
def test_more_bad_images_than_allowed_stop_the_run(folder, num_workers):
    split = open_train(folder, 0.1)
    message = (
        r"[5-9] of 40 images so far, and data\.max_bad 0\.1 allows 4: /\S*/\d\d\S* "
        r"cannot be decoded as an image \(.*\); .*; .*; replace or remove such images, "
        r"or raise data\.max_bad$"
    )
    with pytest.raises(ValueError) as stopped:
        if num_workers is None:
            split.read(range(IMAGES))
        else:
            batches_of(split, num_workers=num_workers)
    assert re.match(message, str(stopped.value))  # which Grain adds a note to


def test_what_a_worker_passed_over_is_counted_too(folder):
    split = open_train(folder)
    split.replaced(38, 0)
    assert sorted(split.bad.errors) == [38, 39] and split.names([38]) == [
        "train/0/00.png"
    ]


def test_as_many_bad_images_as_allowed_do_not(folder):
    split = open_train(folder, len(AT) / IMAGES)
    assert len(split.read(range(IMAGES))) == IMAGES
    bad = Split(len, size=100, max_bad=0.29).bad
    for index in range(29):  # of which 0.29 x 100 is a little less
        bad.add(index, UnreadableImage("it", "bad"))


def test_a_folder_of_nothing_but_bad_images_stops_at_once(tmp_path, monkeypatch):
    folder = make_folder(tmp_path, [b"bad"] * IMAGES)
    tried = []

    def read(row):
        tried.append(row)
        raise UnreadableImage(str(row), "bad")

    with pytest.raises(ValueError, match="5 of 40 images so far"):
        open_train(folder, 0.1).first_readable(38, read)
    assert tried == [38, 39, 0, 1, 2]
    with pytest.raises(ValueError, match="none of 40 images can be read"):
        open_train(folder, 1.0).read([0])


def test_a_file_that_vanishes_is_replaced_from_then_on(tmp_path):
    contents = [encoded(noise(row, side=12), "PNG") for row in range(IMAGES)]
    folder = make_folder(tmp_path, contents)
    split = open_train(folder)
    before = batches_of(split, steps=5)
    assert not split.bad.errors
    Path(folder, "train", file_name(7)).unlink()
    after = batches_of(split, first=5, steps=5)
    assert sorted(np.concatenate([b["index"] for b in before])) == list(range(IMAGES))
    expected = sorted([*range(7), 8, 8, *range(9, IMAGES)])
    assert sorted(np.concatenate([b["index"] for b in after])) == expected
    (error,) = split.bad.errors.values()
    assert error.reason == "FileNotFoundError: No such file or directory"
