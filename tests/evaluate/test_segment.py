"""`snclr segment`: shapes that the test draws, and what is exact about them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from saved import save_random_encoder
from snclr_jax.configs import evaluate as settings_file

import snclr_jax.evaluate.segment as module
from snclr_jax.devices.mesh import make_mesh
from snclr_jax.encoder.stored import open_encoder
from snclr_jax.evaluate.segment import segment

SIDE, PLACE = 16, 4
GROUND, SHAPE = (60, 60, 120), (200, 40, 120)


def draw(rng, inside):
    """A shape on a ground, both with noise, inside of some 4-pixel places."""
    image = np.array([GROUND, SHAPE])[np.kron(inside, np.ones((PLACE, PLACE), int))]
    return np.uint8(image + rng.integers(-9, 10, image.shape))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A square, stripes and an L, of label 3, on grounds of label 5."""
    folder, rng = tmp_path_factory.mktemp("drawn"), np.random.default_rng(0)
    shapes = np.zeros((5, 4, 4), int)
    shapes[0, 1:3, 1:3] = shapes[1, :, 2] = shapes[2, 0] = shapes[4, :, 1] = 1
    shapes[3, 0, :2] = shapes[3, 1:3, 0] = 1  # no turn of it is itself
    for row, inside in enumerate(shapes):
        split = folder / ("test" if row >= 3 else "train")
        mask = np.kron(np.where(inside, 3, 5), np.ones((PLACE, PLACE))).astype(np.uint8)
        if row == 3:
            mask[0, :8], mask[1, :8] = 255, 5  # pixels of the shape: 8 of 64 each
        for name, pixels in (("images", draw(rng, inside)), ("masks", mask)):
            (split / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(split / name / f"{row}.png")
    return folder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    path = tmp_path_factory.mktemp("encoder") / "vit.safetensors"
    sizes = dict(data__image_size=SIDE, augment__size=SIDE, model__patch_size=PLACE)
    save_random_encoder(path, "vit_ti", make_mesh(), **sizes)
    return path


def debug(**fields):
    settings = settings_file.get_config("debug")
    settings.segment.update(k=(1,), temperature=(0.1,), **fields)
    return settings


def test_colors_tell_shapes_exactly(drawn, encoder, monkeypatch, capsys):
    """The baseline of raw pixels is a known encoder: 120 counted pixels are answered 3.

    112 of them have that label, and 8 have the ground's, as have 384 others.
    """
    monkeypatch.setattr(module, "_HELD_BYTES", 4 * 16 * 48)  # of one image
    records = segment(encoder, drawn, debug(), baselines=True)
    assert [each["encoder"] for each in records] == ["trained", "untrained", "pixels"]
    trained, untrained = (each["fingerprint"] for each in records[:2])
    assert trained == open_encoder(encoder, mesh=make_mesh()).fingerprint != untrained
    colors = records[-1]
    iou = {"3": 100 * 112 / 120, "5": 100 * 384 / 392}
    for way in ("k1", "k1_T0.1", "linear"):
        assert colors["details"]["iou"][way] == pytest.approx(iou)
        assert colors["metrics"][f"{way}_mIoU"] == pytest.approx(sum(iou.values()) / 2)
        accuracy = colors["metrics"][f"{way}_pixel_accuracy"]
        assert accuracy == pytest.approx(100 * 496 / 504)
    assert colors["metrics"]["majority_mIoU"] == pytest.approx(100 * 392 / 504 / 2)
    assert colors["details"]["places"] == 48
    assert {each["data"] for each in records} == {f"masks={drawn}"}
    assert records[0]["metrics"].keys() == colors["metrics"].keys()
    kept = json.loads(encoder.with_suffix(".evaluation.json").read_text())["records"]
    assert kept[-3:] == json.loads(json.dumps(records))
    said = capsys.readouterr().out
    assert "segment k1_mIoU" in said and "IoU of label" in said


def test_places_are_drawn_with_their_features(drawn, encoder, monkeypatch, capsys):
    """Of 48 places 30, the same of every call; each has its own color and label."""
    seen = []

    def fit(features, labels, **_):
        seen.append((features, labels))
        return lambda rows: {"any": np.full(len(rows), 3, np.uint8)}

    monkeypatch.setattr(module, "fit_places", fit)
    for seed in (0, 0, 1):
        settings = debug(places=30)
        settings.seed = seed
        segment(encoder, drawn, settings, baselines=True)
    said = capsys.readouterr().out
    assert said.count("30 of 48 training places are drawn (segment.places)") == 3
    first, again, other = seen[2], seen[5], seen[8]
    assert first[0].shape == (30, PLACE * PLACE * 3)
    red, blue = (first[0].reshape(30, -1, 3)[..., c].mean(axis=1) for c in (0, 2))
    np.testing.assert_array_equal(first[1] == 3, red > blue)
    np.testing.assert_array_equal(first[0], again[0])
    assert not np.array_equal(first[0], other[0])


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ([255], [0], "no pixel of A has a label"),
        ([0, 1], [255], "no pixel of B has a label"),
        ([0, 255], [0], "that counts has the label 0; .* 0 and 1, not 0 and 255"),
        ([0, 1], [1, 4, 9], r"B has labels that no mask in A has \(4, 9\); add"),
    ],
)
def test_labels_that_say_nothing_are_refused(train, test, message):
    present = [np.isin(np.arange(255), each) for each in (train, test)]
    with pytest.raises(ValueError, match=f"^--masks: .*{message}"):
        module._check_labels("A", present[0], "B", present[1])
