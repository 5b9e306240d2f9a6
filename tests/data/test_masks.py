"""Images with masks: a mask is cut as its image is, and labels stay labels."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from snclr_jax.data.masks import open_masks

CONFIG = ConfigDict({"data": {"image_size": 12}, "augment": {"size": 8}})
COLORS = np.uint8([[255, 0, 0], [0, 255, 0], [0, 0, 255]])


def save(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


def add(folder, name, labels, mask=None, **options):
    """Saves a picture of labels in colors and, unless another is given, their mask."""
    save(folder / "images" / name, Image.fromarray(COLORS[labels]), **options)
    mask = Image.fromarray(labels) if mask is None else mask
    save((folder / "masks" / name).with_suffix(".png"), mask)


@pytest.fixture
def labels(rng):
    """Blocks of 4 x 4 pixels, 24 x 40 in all."""
    blocks = rng.integers(0, 3, (6, 10), dtype=np.uint8)
    return blocks.repeat(4, axis=0).repeat(4, axis=1)


def palette(labels):
    image = Image.fromarray(labels)
    image.putpalette([*range(255, -1, -1)] * 3)
    return image


def test_a_mask_is_cut_as_its_image_is(tmp_path, labels):
    """The central 24 x 24, resized to 12 x 12, of which the middle 8 x 8 are seen.

    Labels lie far apart, so that any mean of two is another one.
    """
    far = 100 * labels
    for split in ("Train", "val"):
        add(tmp_path / split, "a.png", labels, Image.fromarray(far))
        add(tmp_path / split, "deep/b.jpg", labels, palette(far), subsampling=0)
        extra = tmp_path / split / "masks" / "c.png"  # of an image of another split
        save(extra, Image.fromarray(labels))
    for split in open_masks(tmp_path, CONFIG):
        seen = split.images.images()[:, 2:10, 2:10]
        masks = split.masks.images()
        assert masks.dtype == np.uint8
        np.testing.assert_array_equal(masks, 100 * seen.argmax(axis=-1))
        np.testing.assert_array_equal(masks[0], far[4:20:2, 12:28:2])
        assert split.masks.names([0, 1]) == ["a.png", "deep/b.jpg"]


def test_masks_are_of_upright_images_and_of_one_bit_too(tmp_path, labels):
    labels = np.minimum(labels, 1)
    exif = Image.Exif()
    exif[274] = 6  # stored on its side
    for split in ("train", "test"):
        folder = tmp_path / split
        add(folder, "a.png", labels, Image.fromarray(labels.astype(bool)))
        turned = Image.fromarray(COLORS[np.rot90(labels)])
        save(folder / "images" / "a.png", turned, exif=exif)
    train, _ = open_masks(tmp_path, CONFIG)
    seen = train.images.images()[:, 2:10, 2:10]
    np.testing.assert_array_equal(train.masks.images(), seen.argmax(axis=-1))


def reading(folder):
    for split in open_masks(folder, CONFIG):
        split.masks.images()
        split.images.images()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: None, "not a folder"),
        (lambda f: (f / "train").mkdir(parents=True), "no folder .*train/images"),
        (lambda f: (f / "train/images").mkdir(parents=True), "no folder .*train/masks"),
        (lambda f: (f / "val/masks/a.png").unlink(), "1 of 1 .* no mask.*add .*a.png"),
        (lambda f: (f / "val/images/a.png").unlink(), "val/images holds no images"),
        (lambda f: (f / "val/images/a.png").write_text("?"), "images/a.png cannot be"),
        (lambda f: (f / "val/masks/a.png").write_text("?"), "masks/a.png cannot be"),
        ("RGB", r"masks/a.png is a picture of mode RGB .* 8 bits, gray or with a"),
        ("I;16", "a picture of mode I;16"),
        ((30, 20), r"masks/a.png is 30 x 20 pixels, its image .*a.png 40 x 24; save"),
    ],
)
def test_what_does_not_fit_is_named_in_one_line(tmp_path, labels, change, message):
    folder = tmp_path / "set"
    whole = not callable(change) or "val" in message or "a.png" in message
    if whole:
        add(folder / "train", "a.png", labels)
        add(folder / "val", "a.png", labels)
    mask = folder / "val/masks/a.png"
    if isinstance(change, tuple):
        save(mask, Image.new("L", change))
    elif isinstance(change, str):
        save(mask, Image.new(change, (40, 24)))
    else:
        change(folder)
    with pytest.raises(ValueError, match=message) as raised:
        reading(folder)
    assert "\n" not in str(raised.value)


def test_gray_of_four_bits_would_be_scaled_and_is_refused(tmp_path, labels):
    """Pillow writes none, so the header of a palette's is changed."""
    for split in ("train", "test"):
        add(tmp_path / split, "a.png", labels)
    save(tmp_path / "test/masks/a.png", palette(labels), bits=4)
    data = bytearray((tmp_path / "test/masks/a.png").read_bytes())
    assert data[24:26] == b"\x04\x03"  # 4 bits, of a palette
    open_masks(tmp_path, CONFIG)[1].masks.images()
    data[25] = 0  # gray
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    (tmp_path / "test/masks/a.png").write_bytes(data)
    with pytest.raises(ValueError, match=r"mode L \(L;4\), not of one label a pixel"):
        open_masks(tmp_path, CONFIG)[1].masks.images()
