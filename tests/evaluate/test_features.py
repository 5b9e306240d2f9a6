"""Features of whole sets: in order, and in memory once."""

import tracemalloc

import numpy as np

from snclr_jax.data import Split
from snclr_jax.evaluate import features as module
from snclr_jax.evaluate.features import extract_features


def test_features_of_a_set_are_held_once(mesh_of):
    images = np.arange(210, dtype=np.uint8)[:, None, None, None]
    split = Split(lambda rows: images[rows], size=210)

    def encode(params, batch_stats, images):
        value = np.asarray(images).reshape(-1, 1).astype(np.float16)
        return {"wide": np.repeat(value, 2**13, axis=1), "narrow": value + 0.5}

    options = dict(batch_size=8, mesh=mesh_of(2))
    extract_features(encode, None, None, split, **options)
    tracemalloc.start()
    features = extract_features(encode, None, None, split, **options)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    expected = np.repeat(np.arange(210)[:, None], 2**13, axis=1)
    np.testing.assert_array_equal(features["wide"], expected)
    np.testing.assert_array_equal(features["narrow"], expected[:, :1] + 0.5)
    assert all(rows.dtype == np.float32 for rows in features.values())
    assert peak < 1.3 * features["wide"].nbytes


def test_the_next_images_are_read_before_a_batch_is_waited_for(mesh_of, monkeypatch):
    happened = []

    def read(rows):
        happened.append(f"read {rows[0]}")
        return np.asarray(rows, np.uint8)[:, None, None, None]

    def encode(params, batch_stats, images):
        happened.append("start")
        return images.reshape(-1, 1)

    def wait(features):
        happened.append(f"wait for {int(features[0, 0])}")
        return np.asarray(features)

    split = Split(read, size=6)
    monkeypatch.setattr(module.jax, "device_get", wait)
    features = extract_features(
        encode, None, None, split, batch_size=2, mesh=mesh_of(1)
    )
    np.testing.assert_array_equal(features[:, 0], range(6))
    assert happened == [
        *("read 0", "start", "read 2", "start", "wait for 0"),
        *("read 4", "start", "wait for 2", "wait for 4"),
    ]
