"""Images that are not in color: files and arrays of 1 to 16 channels."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import tifffile
import tiny
from PIL import Image
from snclr_jax.configs import folder

from snclr_jax.data import open_data
from snclr_jax.data.choose import choose_from_data
from snclr_jax.data.crop import DRAWS, View
from snclr_jax.data.decode import Encoded, UnreadableImage, decode_image
from snclr_jax.data.decode_views import decode_views
from snclr_jax.data.depth import used_levels
from snclr_jax.data.folder import open_folder
from snclr_jax.data.form import Form
from snclr_jax.data.numpy_source import open_numpy
from snclr_jax.data.pixels import pixels_of
from snclr_jax.encoder.loaded import read_squares

WHOLE = View(8, (1.0, 1.0), (1.0, 1.0))
FIVE = np.random.RandomState(0).randint(0, 256, (8, 8, 5), np.uint8)
SIXTEEN_BITS = np.random.RandomState(1).randint(0, 2**16, (8, 8, 16), np.uint16)
GRAY = {"photometric": "minisblack"}


def both_ways(content: bytes, form: Form, side: int = 8) -> list[np.ndarray]:
    view = WHOLE._replace(size=side)
    return [
        decode_image(io.BytesIO(content), side, name="it", form=form),
        *decode_views(Encoded(content, "it", form), [view], np.full((1, DRAWS), 0.5)),
    ]


def picture(pixels: np.ndarray, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def tiff(pixels: np.ndarray, **options) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "pixels"),
    [
        (picture(FIVE[..., 0]), FIVE[..., :1]),
        (picture(FIVE[..., 0] > 127), (FIVE[..., :1] > 127) * 255),
        (picture(FIVE[..., 0], "TIFF"), FIVE[..., :1]),
        (picture(SIXTEEN_BITS[..., 0]), SIXTEEN_BITS[..., :1] >> 8),
        (picture(FIVE[..., 0], "GIF"), FIVE[..., :1]),
        (picture(FIVE[..., :2]), FIVE[..., :2]),
        (picture(FIVE[..., :4]), FIVE[..., :4]),
        (tiff(FIVE, planarconfig="contig", **GRAY), FIVE),
        (tiff(FIVE, planarconfig="contig", photometric="rgb"), FIVE),
        (tiff(np.moveaxis(FIVE, -1, 0), planarconfig="separate", **GRAY), FIVE),
        (tiff(np.moveaxis(FIVE, -1, 0), **GRAY), FIVE),  # pages
        (tiff(SIXTEEN_BITS, planarconfig="contig", **GRAY), SIXTEEN_BITS >> 8),
    ],
)
def test_every_channel_is_kept_as_it_is_stored(content, pixels):
    for got in both_ways(content, Form(channels=pixels.shape[-1])):
        assert got.dtype == np.uint8
        np.testing.assert_array_equal(got, pixels)


def test_a_range_is_that_of_all_channels():
    content = tiff(np.float32(FIVE / 255), planarconfig="contig", **GRAY)
    for got in both_ways(content, Form((0.0, 1.0), 5)):
        assert np.abs(got.astype(int) - FIVE).max() <= 1
    with pytest.raises(UnreadableImage, match="floats have no full range"):
        both_ways(content, Form(channels=5))


def test_each_channel_is_resized_as_a_gray_image():
    whole = both_ways(tiff(FIVE, planarconfig="contig", **GRAY), Form(channels=5), 5)
    for channel in range(5):
        alone = both_ways(picture(FIVE[..., channel]), Form(channels=1), 5)
        for got, want in zip(whole, alone, strict=True):
            np.testing.assert_array_equal(got[..., channel], want[..., 0])


def test_a_gray_photograph_is_upright():
    exif = Image.Exif()
    exif[274] = 6  # to be turned to the right
    content = picture(FIVE[..., 0], "PNG", exif=exif)
    for got in both_ways(content, Form(channels=1)):
        np.testing.assert_array_equal(got[..., 0], np.rot90(FIVE[..., 0], -1))


SEVENTEEN = tiff(np.zeros((8, 8, 17), np.uint8), planarconfig="contig", **GRAY)


@pytest.mark.parametrize(
    ("content", "channels", "reason"),
    [
        (picture(FIVE[..., :3]), 5, "3 channels, .* is 5; set data.channels=3 "),
        (picture(FIVE[..., :4]), 1, "4 channels, .* is 1; set data.channels=4 "),
        (picture(FIVE[..., 0]), 2, "1 channels, .* is 2; set data.channels=1 "),
        (tiff(FIVE, planarconfig="contig", **GRAY), 4, "set data.channels=5 for such"),
        (tiff(FIVE, planarconfig="contig", **GRAY), 3, "1, 3 or 4 are read as color; "),
        (SEVENTEEN, 3, "17 channels, .*; save 16 of them at most, and set data.chann"),
        (SEVENTEEN, 16, "17 channels, .* is 16; save 16 of them at most, and set dat"),
    ],
)
def test_another_number_of_channels_is_a_bad_image(content, channels, reason):
    with pytest.raises(UnreadableImage, match=reason) as caught:
        decode_image(io.BytesIO(content), 8, name="it", form=Form(channels=channels))
    assert "\n" not in str(caught.value)
    with pytest.raises(UnreadableImage, match=reason):
        image = Encoded(content, "it", Form(channels=channels))
        decode_views(image, [WHOLE], np.full((1, DRAWS), 0.5))


def test_what_is_no_file_is_not_opened(tmp_path):
    # A pipe would be waited for, without end.
    with pytest.raises(UnreadableImage, match="not a file"):
        decode_image(str(tmp_path), 8, name="it", form=Form(channels=5))


def test_a_bad_image_of_a_folder_is_replaced(tmp_path):
    (tmp_path / "0.tif").write_bytes(SEVENTEEN)
    (tmp_path / "1.tif").write_bytes(tiff(FIVE, planarconfig="contig", **GRAY))
    form = Form(channels=5)
    train = open_folder(str(tmp_path), 8, max_bad=0.5, form=form, pages=None)[0]
    np.testing.assert_array_equal(train.images(), [FIVE, FIVE])
    assert list(train.bad.errors) == [0] and train.names([0]) == ["1.tif"]


@pytest.mark.parametrize("channels", [1, 2, 5, 16])
def test_arrays_of_files_and_of_python_keep_every_channel(tmp_path, channels):
    images = np.random.RandomState(2).randint(0, 256, (3, 8, 8, channels), np.uint8)
    np.save(tmp_path / "0.npy", images[..., 0] if channels == 1 else images)
    form = Form(channels=channels)
    train = open_numpy(str(tmp_path / "0.npy"), 8, max_bad=0.0, form=form)[0]
    np.testing.assert_array_equal(train.images(), images)
    for image in train.originals(np.arange(1)):
        (view,) = decode_views(image, [WHOLE], np.full((1, DRAWS), 0.5))
        np.testing.assert_array_equal(view, images[0])
    config = tiny.config(data__name="python", data__channels=channels)
    config.data.image_size = 8
    np.testing.assert_array_equal(
        open_data(config.data, images / 255).train.images(), images
    )
    (square,) = read_squares(images[:1], ["it"], config)
    np.testing.assert_array_equal(square, images[0])


class Tensor(np.ndarray):
    """As PyTorch's, but for its name."""

    def numpy(self):
        return np.asarray(self)


def test_a_tensor_has_its_channels_first():
    tensor = np.moveaxis(FIVE, -1, 0).view(Tensor)
    np.testing.assert_array_equal(pixels_of(tensor, "it", Form(channels=5)), FIVE)


@pytest.mark.parametrize(
    ("shape", "channels", "fix"),
    [
        ((5, 32, 32), 5, r"move the channels to the end: np\.moveaxis"),
        ((32, 32, 5), 3, r"\(h, w, 4\) is needed; set data\.channels=5 for such"),
        ((32, 32, 3), 5, r"\(h, w, 5\) is needed, as .*; set data\.channels=3 for"),
        ((32, 32, 17), 5, r"\(h, w, 5\) is needed, as data\.channels says$"),
    ],
)
def test_an_array_of_another_shape_is_refused(shape, channels, fix):
    with pytest.raises(ValueError, match=fix):
        pixels_of(np.zeros(shape, np.uint8), "it", Form(channels=channels))


@pytest.fixture
def stacks(tmp_path):
    """A config for a folder of images of 5 channels and 12 of 16 bits."""
    random = np.random.RandomState(3)
    images = random.randint(0, 4096, (6, 8, 8, 5)).astype(np.uint16)
    images[..., 4] = 1000
    (tmp_path / "images").mkdir()
    for number, image in enumerate(images):
        content = tiff(image, planarconfig="contig", **GRAY)
        (tmp_path / "images" / f"{number}.tif").write_bytes(content)
    config = folder.get_config()
    config.data.update(path=str(tmp_path / "images"), image_size=8, channels=5)
    config.data.range = "0,4096"
    config.augment.update(size=8, local_size=8)
    config.update(batch_size=2)
    config.model.stem, config.objective.queue.size = "cifar", 8
    return config, images // 16


def test_mean_and_deviation_are_measured_and_said(stacks):
    config, images = stacks
    chosen, said = choose_from_data(config, devices=1)
    mean, std = (value(images / 255, axis=(0, 1, 2)) for value in (np.mean, np.std))
    np.testing.assert_allclose(chosen.data.mean, mean, atol=6e-5)
    np.testing.assert_allclose(chosen.data.std[:4], std[:4], atol=6e-5)
    assert chosen.data.std[4] == round(1 / 255, 4)  # of what is constant
    assert f"measured on 6 training images: data.mean={chosen.data.mean!r}" in said
    assert choose_from_data(chosen, devices=1) == (chosen, "")
    config.data.mean = (0.1,) * 5
    chosen, said = choose_from_data(config, devices=1)
    assert chosen.data.mean == config.data.mean and "data.mean" not in said
    assert len(choose_from_data(config, devices=1, measure=False)[0].data.std) == 5


def test_a_run_keeps_its_mean_and_deviation(stacks, tmp_path):
    config, _ = stacks
    data = {"channels": 5, "mean": [0.5] * 5, "std": [0.125] * 5}
    (tmp_path / "config.json").write_text(json.dumps({"data": data}))
    chosen, said = choose_from_data(config, devices=1, workdir=str(tmp_path))
    assert chosen.data.mean == (0.5,) * 5 and chosen.data.std == (0.125,) * 5
    assert "measured" not in said


def test_color_is_measured_where_that_is_asked_for(tmp_path, stacks):
    config, _ = stacks
    for number in range(2):
        path = tmp_path / "images" / f"{number}.png"
        Image.fromarray(FIVE[..., :3]).save(path)
        (tmp_path / "images" / f"{number}.tif").unlink()
    for number in range(2, 6):
        (tmp_path / "images" / f"{number}.tif").unlink()
    config.data.update(channels=3, mean=())
    chosen, _ = choose_from_data(config, devices=1)
    want = FIVE[..., :3].mean(axis=(0, 1)) / 255
    np.testing.assert_allclose(chosen.data.mean, want, atol=6e-5)
    assert chosen.data.std == config.data.std


def test_colors_do_not_change_where_there_are_none(stacks):
    config, _ = stacks
    chosen, said = choose_from_data(config, devices=1)
    for view in ("view1", "view2", "local"):
        augment = chosen.augment[view]
        assert augment.saturation == augment.hue == augment.grayscale == 0
        assert augment.brightness == config.augment[view].brightness > 0
    assert "data.channels 5: augmentation has no saturation, hue, grayscale" in said


def test_the_range_of_many_channels_is_found(stacks):
    config, _ = stacks
    config.data.range = "full"
    low, high = used_levels(open_data(config.data).train) or (0, 0)
    assert 0 <= low < 50 and 4040 < high < 4096


def test_digits_are_in_color():
    config = tiny.config(data__channels=5)
    with pytest.raises(ValueError, match=r"data\.channels 5: the embedded digits are"):
        choose_from_data(config, devices=1)
