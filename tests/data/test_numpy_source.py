"""Arrays in files: which are images, which are labels, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from snclr_jax.data.numpy_source import open_numpy

IMAGES = np.random.RandomState(0).randint(0, 256, (5, 8, 8, 3), np.uint8)
LABELS = np.array([1, 0, 2, -1, 0])


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def opened(path, **options):
    return open_numpy(str(path), 8, max_bad=0.0, **options)


@pytest.mark.parametrize(
    ("images", "want"),
    [
        (IMAGES[..., 0], IMAGES[..., :1].repeat(3, -1)),
        (IMAGES[..., :1], IMAGES[..., :1].repeat(3, -1)),
        (IMAGES / 255, IMAGES),
        ((IMAGES / 255).astype(np.float32), IMAGES),
        (np.asfortranarray(IMAGES), IMAGES),
    ],
)
def test_every_form_of_an_array_of_images_is_read(tmp_path, images, want):
    np.save(tmp_path / "photos.npy", images)
    train, test, *_ = opened(tmp_path / "photos.npy")
    assert np.array_equal(train.images(), want) and test is None
    assert train.names([3]) == ["photos, image 3"] and not train.labelled


@pytest.mark.parametrize(
    "names",
    [
        ("x_train", "y_train", "x_test", "y_test"),
        ("train_images", "train_labels", "val_images", "val_labels"),
        ("images", "labels"),
    ],
)
def test_arrays_of_a_split_belong_together(tmp_path, names):
    values = (IMAGES, LABELS[:, None], IMAGES[:2], LABELS[:2])
    # Where nothing is called train, all is one split.
    named = dict(zip(names, values, strict=False))
    np.savez(tmp_path / "set.npz", **named)
    train, test, *_ = opened(tmp_path)
    assert np.array_equal(train.images(), IMAGES) and (train.labels == LABELS).all()
    if len(named) == 4:
        assert np.array_equal(test.images(), IMAGES[:2])
        assert (test.labels == LABELS[:2]).all()


def test_an_image_of_no_number_is_a_bad_image(tmp_path):
    images = IMAGES / 255
    images[2, 0, 0, 0] = np.nan
    np.save(tmp_path / "a.npy", images)
    train = open_numpy(str(tmp_path), 8, max_bad=0.5)[0]
    assert np.array_equal(train.images()[2], IMAGES[3])
    assert "floats have to lie" in train.bad.errors[2].reason


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"a": IMAGES, "b": IMAGES},
            r"2 arrays of images in one split.* set/a \(5,",
        ),
        ({"y": LABELS}, r"has no arrays of images in one split"),
        (
            {"a": IMAGES, "y": LABELS[:3]},
            r"beside 5 images in set/a, set/y \(3,\)",
        ),
        ({"a": IMAGES, "y": LABELS / 2}, r"set/y \(5,\) cannot be their labels"),
        (
            {"a": IMAGES, "y": LABELS, "z": LABELS},
            "set/y, set/z cannot be their",
        ),
        ({"a": np.zeros((5, 8, 8, 17), np.uint8)}, r"set/a has shape \(8, 8, 17\)"),
        (
            {"a": IMAGES.astype(np.uint16)},
            "set/a has values of type uint16; give",
        ),
        ({"a": IMAGES[:0]}, "set/a holds no images"),
        ({"a": np.array([{}, {}])}, "cannot be read as arrays .*np.save"),
    ],
)
def test_arrays_that_cannot_be_used_are_named(tmp_path, arrays, message):
    np.savez(tmp_path / "set.npz", **arrays)
    with pytest.raises(ValueError, match=message) as error:
        opened(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("suffix", ["npy", "npz"])
@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"PK\x03\x04" + b"x" * 64])
def test_a_damaged_file_is_named(tmp_path, suffix, content):
    (tmp_path / f"0.{suffix}").write_bytes(content)
    with pytest.raises(ValueError, match=rf"0\.{suffix} cannot be read as arrays") as e:
        opened(tmp_path)
    assert "\n" not in str(e.value)
