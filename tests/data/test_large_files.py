"""Files that hold many images: parquet, Arrow, WebDataset and numpy, by one rule."""

from __future__ import annotations

import pickle

import image_files
import numpy as np
import pytest
import tiny
from full_disk import full_disk
from image_files import KINDS

from snclr_jax.data import open_data
from snclr_jax.data.crop import View
from snclr_jax.data.large_files import divide
from snclr_jax.data.pipeline import train_batches

VIEWS = [View(8, (0.2, 1.0), (0.75, 1.33))]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "snclr_jax" / "data"


@pytest.fixture
def splits():
    return {
        "train": image_files.pictures(12),
        "test": image_files.pictures(4, first=100),
    }


def opened(kind: str, path, **fields):
    name = KINDS[kind][0] if kind in KINDS else kind
    fields = {f"data__{field}": value for field, value in fields.items()}
    config = tiny.config(
        data__name=name, data__path=str(path), data__image_size=image_files.SIDE
    )
    return open_data(tiny.override(config, **fields).data)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_the_images_and_labels_that_were_written(tmp_path, splits, kind):
    KINDS[kind][1](tmp_path / "set", splits)
    data = opened(kind, tmp_path / "set")
    for split, name in ((data.train, "train"), (data.test, "test")):
        assert np.array_equal(split.images(), image_files.pixels(splits[name])), name
        assert split.labels.tolist() == [i % 2 for i in range(split.size)]
        assert split.labels.dtype == np.int32 and split.labels_at_hand
        assert len(set(split.names(range(split.size)))) == split.size
    named = data.class_names == image_files.CLASSES
    assert named if KINDS[kind][0] == "parquet" else data.class_names is None


@pytest.mark.parametrize("kind", KINDS)
def test_batches_of_every_kind_are_those_of_a_folder(tmp_path, kind):
    """Order, crops, what a restart goes on with, and what stands for a bad image."""
    contents = image_files.pictures(12)
    if bad := KINDS[kind][0] != "numpy":  # of pixels none is bad
        contents[5] = contents[5][:-60]
    folder = tmp_path / "folder"
    folder.mkdir()
    for i, content in enumerate(contents):  # without classes, in the same order
        (folder / f"{i:03}.png").write_bytes(content)
    if bad:
        KINDS[kind][1](tmp_path / "set", {"train": contents})
    else:
        KINDS[kind][1](tmp_path / "set", {"train": image_files.pictures(12)})
    batches = {}
    for name, path in (("folder", folder), (kind, tmp_path / "set")):
        split = opened(name, path, max_bad=0.1).train
        # Worker processes get it by pickling.
        split = pickle.loads(pickle.dumps(split))
        made = train_batches(
            split, order="random", batch_size=4, seed=3, num_workers=0, views=VIEWS
        )
        epoch = [next(made) for _ in range(3)]
        made.set_state({"step": 1})
        again = next(made)
        made.close()
        for field, rows in again.items():
            assert np.array_equal(rows, epoch[1][field]), (name, field)
        batches[name] = epoch
        assert sorted(split.bad.errors) == ([5] if bad else [])
        shown = sorted(index for batch in epoch for index in batch["index"].tolist())
        assert shown.count(6) == (2 if bad else 1)
    for ours, theirs in zip(batches[kind], batches["folder"], strict=True):
        for field, rows in ours.items():
            assert np.array_equal(rows, theirs[field]), field


@pytest.mark.parametrize("kind", KINDS)
def test_other_images_are_another_set(tmp_path, splits, kind):
    identities = []
    for number in (0, 1, 0):
        path = tmp_path / f"{len(identities)}" / "set"
        path.parent.mkdir()
        train = image_files.pictures(12, first=50 * number)
        KINDS[kind][1](path, splits | {"train": train})
        identities.append(opened(kind, path).identity)
    assert identities[0]["train"] != identities[1]["train"]
    assert identities[0] == identities[2]


@pytest.mark.parametrize("kind", ["parquet", "webdataset", "npz"])
def test_what_is_kept_is_made_once_and_anew_for_another_file(
    tmp_path, splits, kind, cache
):
    path = tmp_path / "set"
    KINDS[kind][1](path, splits)
    before = opened(kind, path).train.images()
    kept = {file: file.stat().st_mtime_ns for file in cache.iterdir()}
    assert np.array_equal(opened(kind, path).train.images(), before)
    assert {file: file.stat().st_mtime_ns for file in cache.iterdir()} == kept
    (tmp_path / "set").rename(tmp_path / "old")
    KINDS[kind][1](path, splits | {"train": image_files.pictures(12, first=50)})
    assert not np.array_equal(opened(kind, path).train.images(), before)
    assert set(kept) < set(cache.iterdir())
    assert not list(cache.glob("*.part"))


@pytest.mark.parametrize("kind", ["parquet", "webdataset", "npz"])
def test_a_cache_that_cannot_be_written_is_named(tmp_path, splits, kind, monkeypatch):
    KINDS[kind][1](tmp_path / "set", splits)
    (tmp_path / "file").write_bytes(b"")
    message = r"cannot be written .* XDG_CACHE_HOME"
    with pytest.raises(OSError, match=message), full_disk():  # which passes
        opened(kind, tmp_path / "set")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(ValueError, match=message):
        opened(kind, tmp_path / "set")


HUB = ["data/train-00000-of-00002", "data/train-00001-of-00002", "data/test-0"]


@pytest.mark.parametrize(
    ("names", "splits", "train", "test"),
    [
        (HUB, ("train", "test"), HUB[:2], HUB[2:]),
        (HUB, ("train", ""), HUB[:2], []),
        (HUB, ("test", "train"), HUB[2:], HUB[:2]),
        (HUB, ("", "test"), HUB, []),
        (["a-validation-0", "Training_1"], ("train", "test"), ["Training_1"], None),
        (["set/train/0", "set/val/0"], ("train", "test"), ["set/train/0"], None),
        (["x_train", "x_test", "x_val"], ("train", "val"), ["x_train"], ["x_val"]),
        (["extra-train", "trainer", "restrain"], ("train", ""), ["extra-train"], []),
        (["photos", "more"], ("train", "test"), ["photos", "more"], []),
        (["photos", "test"], ("train", "test"), ["photos", "test"], []),
        (["un_labeled-1", "test-1"], ("un_labeled", "test"), ["un_labeled-1"], None),
    ],
)
def test_splits_are_words_in_names(names, splits, train, test):
    got_train, got_test, _ = divide(names, splits)
    rest = [name for name in names if name not in train]
    assert got_train == train and got_test == (rest if test is None else test)


def test_what_is_not_used_is_noted():
    _, _, notes = divide([*HUB, "extra/0", "val/0"])
    assert notes == [
        "2 beside train and test are not used (extra/0, val/0); data.train_split and "
        "data.test_split name splits"
    ]
    assert "nothing is called train" in divide(["a", "test"])[2][0]
    assert divide(["a", "b"])[2] == []


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        (("extra", ""), "data.train_split 'extra' .* splits are test, train; use one"),
        (("train", "extra"), "data.test_split 'extra' is in no name"),
        (("", "train"), "data.test_split 'train' is part of what is trained on"),
    ],
)
def test_a_split_that_is_not_there_is_named(splits, message):
    with pytest.raises(ValueError, match=message):
        divide(HUB, splits)


@pytest.mark.parametrize("kind", ["parquet", "webdataset", "numpy"])
def test_a_path_without_such_files_says_what_is_there(tmp_path, kind):
    with pytest.raises(
        ValueError, match=r"^data.path is '.*nowhere', which is no fold"
    ):
        opened(kind, tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"^data.path is ''"):
        opened(kind, "")
    (tmp_path / "0.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match=r"^data.path: no \.\w+ .*which has 1 x \.jpg"):
        opened(kind, tmp_path)
