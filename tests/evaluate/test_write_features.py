"""The file of `snclr features`."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest

from snclr_jax.evaluate.write_features import check_features_path
from snclr_jax.evaluate.write_features import write_features as write

FEATURES = np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32)
NAMES = ["train/ant/0.png", "käfer.jpg", r"\xff.png"]


def write_features(path, features, labels=(0, 1, 2), names=NAMES, **metadata):
    split = ["train", "train", "test"]
    write(path, features, labels, names, split=split, metadata=metadata)


def load(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def test_all_that_was_written_is_read_without_pickle(tmp_path):
    path = tmp_path / "a.npz"
    metadata = {"step": 7, "knn": {"k": [1, 20]}, "data": "käfer", "network": None}
    labels = np.array([4, -1, 0])
    write_features(path, FEATURES.astype(float), labels, **metadata)
    data = load(path)
    assert sorted(data) == ["features", "image_id", "labels", "metadata", "split"]
    assert data["split"].tolist() == ["train", "train", "test"]
    assert data["features"].dtype == np.float32
    np.testing.assert_array_equal(data["features"], FEATURES)
    assert data["labels"].dtype == np.int32 and data["labels"].tolist() == [4, -1, 0]
    assert data["image_id"].dtype.kind == "U" and data["image_id"].tolist() == NAMES
    assert json.loads(data["metadata"].item()) == metadata
    assert os.listdir(tmp_path) == ["a.npz"]


def test_unknown_labels_are_minus_one(tmp_path):
    path = tmp_path / "a.npz"
    write_features(path, FEATURES, np.array([-5, 2, -1]))
    assert load(path)["labels"].tolist() == [-1, 2, -1]


def test_the_old_file_stays_whole_until_the_new_one_is(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    write_features(path, FEATURES)
    before = path.read_bytes()

    def half(file, **arrays):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", half)
    with pytest.raises(OSError, match="No space left"):
        write_features(path, 2 * FEATURES)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["a.npz"]


def test_only_process_0_writes(tmp_path, monkeypatch):
    monkeypatch.setattr("jax.process_index", lambda: 1)
    write_features(tmp_path / "a.npz", FEATURES)
    assert os.listdir(tmp_path) == []


def test_arrays_of_other_images_are_refused(tmp_path):
    path = tmp_path / "a.npz"
    with pytest.raises(ValueError, match="2 labels for 3 features"):
        write_features(path, FEATURES, np.arange(2))
    with pytest.raises(ValueError, match="1 names for 3 features"):
        write_features(path, FEATURES, names=NAMES[:1])
    with pytest.raises(ValueError, match="3 labels for 2 features"):
        write_features(path, FEATURES[:2])
    assert os.listdir(tmp_path) == []


def test_a_good_path_is_left_as_it_is(tmp_path):
    path = tmp_path / "a.npz"
    check_features_path(path)
    assert os.listdir(tmp_path) == []
    path.write_bytes(b"old")
    check_features_path(str(path))
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.csv", r"a\.csv does not end in \.npz; use another"),
        ("", r"does not end in \.npz"),
        ("folder.npz", r"folder\.npz is a folder; name a file in it"),
        ("no/where/a.npz", r"lies in .*no/where, which is not a folder; .*mkdir -p"),
        ("file/a.npz", r"lies in .*file, which is not a folder"),
    ],
)
def test_a_bad_path_is_refused(tmp_path, name, message):
    (tmp_path / "folder.npz").mkdir()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ValueError, match=message):
        check_features_path(tmp_path / name)


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path, monkeypatch):
    def refuse(dir):
        raise OSError(30, "Read-only file system", str(dir))

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(ValueError, match=r"cannot be written to \(Read-only file"):
        check_features_path(tmp_path / "a.npz")
