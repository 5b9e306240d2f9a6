"""Exported files of encoders whose images are not in color."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
from saved import random_encoder, save_random_encoder

from snclr_jax.encoder.loaded import read_squares
from snclr_jax.export.hub import save_hub
from snclr_jax.export.load_lines import image_lines, timm_model
from snclr_jax.export.run import export

FIVE = dict(data__channels=5, data__mean=(0.5,) * 5, data__std=(0.25,) * 5)


@pytest.mark.parametrize(
    ("network", "fields", "format", "lines"),
    [
        ("resnet18", {}, "torchvision", "Conv2d(5, 64, 3, stride=1, padding=1,"),
        (
            *("resnet18", {"model__stem": "imagenet"}, "torchvision"),
            "Conv2d(5, 64, 7, stride=2, padding=3, bias=False)",
        ),
        ("vit_ti", {}, "timm", "num_heads=12, in_chans=5,"),
        ("vit_ti", {}, "safetensors", "arrays, of 5 channels, of any sizes"),
    ],
)
def test_cards_say_what_channels_a_file_takes(
    network, fields, format, lines, tmp_path, mesh_of
):
    own, out = tmp_path / "own.safetensors", tmp_path / "x.safetensors"
    save_random_encoder(own, network, mesh_of(1), **FIVE, **fields)
    export(own, out, format=format)
    card = (tmp_path / "x.safetensors.md").read_text()
    assert lines in card and "| data.channels | 5 |" in card
    assert "RGB" not in card
    if fields:
        with pytest.raises(ValueError, match="detectron2 has no names for data.chan"):
            export(own, out, format="detectron2")


def test_a_hub_says_how_many_channels_there_are(tmp_path, mesh_of):
    encoder, _ = random_encoder("vit_ti", mesh_of(1), **FIVE)
    assert timm_model(encoder)[1]["in_chans"] == 5
    save_hub(tmp_path / "hub", encoder)
    content = (tmp_path / "hub" / "config.json").read_text()
    said = "".join(content.split())
    assert '"input_size":[5,32,32]' in said and '"first_conv":null' in said
    assert '"in_chans":5' in said


def test_the_lines_of_a_card_make_images_of_many_channels(rng):
    config = tiny.config(**FIVE, data__image_size=40)
    image = rng.integers(0, 256, (50, 61, 5), np.uint8)
    names = {"image": image}
    exec("\n".join(image_lines(config, view=True).splitlines()[1:-1]), names)
    (stored,) = read_squares([image], ["it"], config)
    pixels = np.asarray(names["pixels"])
    np.testing.assert_array_equal(pixels, stored[4:36, 4:36])
    np.testing.assert_allclose(names["view"], pixels / 63.75 - 2, atol=1e-5)
