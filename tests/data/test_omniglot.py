"""Omniglot as it unpacks: characters, writers, and drawings that are there twice."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from snclr_jax.configs import omniglot

from snclr_jax.data import open_data

SIDE = 105  # as published, of one bit


def drawing(seed: int) -> np.ndarray:
    """Ink (False) on white: a rectangle of its own."""
    top, left = np.random.RandomState(seed).randint(10, 50, 2)
    ink = np.ones((SIDE, SIDE), bool)
    ink[top : top + 40, left : left + 20] = False
    return ink


def write(root, archive, alphabet, character, number, writers=range(1, 21)):
    folder = root / archive / alphabet / f"character{character:02}"
    folder.mkdir(parents=True)
    for writer in writers:
        image = Image.fromarray(drawing(100 * number + writer))
        image.save(folder / f"{number:04}_{writer:02}.png")


@pytest.fixture
def config(tmp_path):
    write(tmp_path, "images_background_small1", "Greek", 1, 394)
    write(tmp_path, "images_background_small1", "Latin", 1, 683)
    write(tmp_path, "images_background_small2", "Latin", 1, 683)
    write(tmp_path, "images_background_small2", "Latin", 2, 684)
    config = omniglot.get_config().data
    config.path = str(tmp_path)
    return config


def test_characters_are_classes_and_the_last_four_writers_are_the_test(config):
    train, test, names, notes = open_data(config)
    assert names == ("Greek/character01", "Latin/character01", "Latin/character02")
    assert train.labels.tolist() == [0] * 16 + [1] * 16 + [2] * 16
    assert test.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert notes == ("data.path: 20 drawings are there twice and count once",)
    first = "images_background_small1/Greek/character01/0394_"
    assert train.names([0, 15]) == [f"{first}01.png", f"{first}16.png"]
    assert test.names([0, 3]) == [f"{first}17.png", f"{first}20.png"]


def test_ink_is_black_on_white_at_the_side_of_the_recipe(config):
    image = open_data(config).test.images()[11]
    scale = SIDE / config.image_size
    assert image.shape == (32, 32, 3) and image.dtype == np.uint8
    rows, columns = np.where(~drawing(100 * 684 + 20))
    inside = int(np.mean(rows) / scale), int(np.mean(columns) / scale)
    assert image[inside].max() == 0 and image[0, 0].min() == 255
    share = (255 - image.astype(float)).mean() / 255
    assert share == pytest.approx(40 * 20 / SIDE**2, rel=0.02)


def test_what_is_no_omniglot_is_refused_and_said(config, tmp_path):
    config.path = ""
    with pytest.raises(ValueError, match="is '', which holds 0 drawings.*; unpack"):
        open_data(config)
    (tmp_path / "zips").mkdir()
    (tmp_path / "zips" / "images_background_small1.zip").write_bytes(b"PK")
    config.path = str(tmp_path / "zips")
    with pytest.raises(ValueError, match=r"unpack .*_small1.zip .*found 1 x \.zip"):
        open_data(config)
    write(tmp_path, "first_writers", "Greek", 1, 394, writers=range(1, 17))
    config.path = str(tmp_path / "first_writers")
    with pytest.raises(ValueError, match="16 drawings, .*1 to 16 and some of oth"):
        open_data(config)


def test_an_alphabet_may_lie_at_the_root(config, tmp_path):
    config.path = str(tmp_path / "images_background_small2")
    train, test, names, notes = open_data(config)
    assert (train.size, test.size, notes) == (32, 8, ())
    assert names == ("Latin/character01", "Latin/character02")
