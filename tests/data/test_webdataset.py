"""Tars of samples: what is an image, what its class, and what is refused."""

from __future__ import annotations

import image_files
import numpy as np
import pytest
from pictures import pack

from snclr_jax.data.webdataset_source import open_webdataset

PICTURES = image_files.pictures(4)
PIXELS = image_files.pixels(PICTURES)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def opened(path, files: dict[str, bytes]):
    tar = str(pack(path / "set.tar", files))
    return open_webdataset(tar, image_files.SIDE, max_bad=0.0)


def samples(labels: list[bytes]) -> dict[str, bytes]:
    files = {}
    for i, (picture, label) in enumerate(zip(PICTURES, labels, strict=True)):
        files |= {f"./a/{i}.png": picture, f"./a/{i}.cls": label}
    return files


def test_a_sample_is_one_image(tmp_path):
    files = {}
    for i, picture in enumerate(PICTURES):
        files |= {f"{i}.mask.png": PICTURES[0], f"{i}.png": picture, f"{i}.txt": b"-"}
    files |= {".hidden.png": b"", "__MACOSX/0.png": b"", "9.mask.png": PICTURES[3]}
    train, test, names, notes = opened(tmp_path, files)
    assert np.array_equal(train.images()[:4], PIXELS) and train.size == 5
    assert np.array_equal(train.images()[4], PIXELS[3])
    assert train.names([1, 4]) == ["set.tar, 1.png", "set.tar, 9.mask.png"]
    assert test is None and names is None and notes == () and not train.labelled


def test_classes_are_numbers_or_names(tmp_path):
    train, _, names, _ = opened(tmp_path, samples([b"7\n", b"0", b"", b"-1"]))
    assert train.labels.tolist() == [7, 0, -1, -1] and names is None
    train, _, names, _ = opened(tmp_path, samples([b"bee", b"7", b"", b"bee"]))
    assert train.labels.tolist() == [1, 0, -1, 1] and names == ("7", "bee")


def test_folders_are_classes_where_nothing_says_the_class(tmp_path):
    train, _, names, _ = opened(
        tmp_path, {f"{'ab'[i % 2]}/{i}.png": PICTURES[i] for i in range(4)}
    )
    assert train.labels.tolist() == [0, 1, 0, 1] and names == ("a", "b")
    train, *_ = opened(tmp_path, {f"a/{i}.png": PICTURES[i] for i in range(4)})
    assert not train.labelled


@pytest.mark.parametrize("name", ["../0.png", "/etc/0.png", "a/../../0.cls"])
def test_a_name_that_leads_out_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match=r"set.tar: the name .* leads out.*; pack it"):
        opened(tmp_path, {"0.png": PICTURES[0], name: PICTURES[1]})
    assert not list((tmp_path / "cache").rglob("*.json"))


@pytest.mark.parametrize("damage", ["gzip", "cut", "text", "empty", "no images"])
def test_a_tar_that_cannot_be_used_is_named(tmp_path, damage):
    path = pack(tmp_path / "set.tar", {"0.png": PICTURES[0]})
    match damage:
        case "gzip":
            image_files.gzipped(path, PICTURES[0])
        case "cut":
            path.write_bytes(path.read_bytes()[:700])
        case "text":
            path.write_text("not a tar" * 100)
        case "empty":
            path.write_bytes(b"")
        case "no images":
            pack(path, {"0.txt": b"-"})
    said = (
        "no images in set.tar" if damage == "no images" else r"set.tar cannot be read"
    )
    with pytest.raises(ValueError, match=said) as error:
        open_webdataset(str(tmp_path), 8, max_bad=0.0)
    assert "\n" not in str(error.value)
