"""Random crops on the host: their boxes, their pixels, and decoding for them."""

from __future__ import annotations

import io
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from snclr_jax.configs import base

from snclr_jax.data import decode_views as of_views
from snclr_jax.data.crop import (
    DRAWS,
    Box,
    View,
    crop_boxes,
    cut_views,
    draw_uniforms,
)
from snclr_jax.data.decode import Encoded, decode_image
from snclr_jax.data.decode_views import decode_views
from snclr_jax.step import augment

WHOLE = (1.0, 1.0)  # as scale and ratio: a square image, uncropped
IMAGENET = View(224, (0.08, 1.0), (3 / 4, 4 / 3))
BICUBIC, BILINEAR = Image.Resampling.BICUBIC, Image.Resampling.BILINEAR


def photo(height: int, width: int, seed: int = 0) -> Image.Image:
    """Soft shapes with sharp edges, and some noise."""
    random = np.random.RandomState(seed)
    small = random.randint(0, 256, (12, 15, 3)).astype(np.uint8)
    image = Image.fromarray(small).resize((width, height), BICUBIC)
    pixels = np.asarray(image).astype(int)
    pixels[height // 3 : height // 2, width // 4 :] //= 2
    pixels += random.randint(-8, 9, pixels.shape)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def encode(image: Image.Image, kind: str, **options) -> Encoded:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return Encoded(file.getvalue(), name=f"a {kind}")


def in_the_middle(count: int = 1) -> np.ndarray:
    return np.full((count, DRAWS), 0.5)


def resized(image: Image.Image, box: Box, size: int, how=BILINEAR) -> np.ndarray:
    top, left, height, width = box
    crop = image.crop((left, top, left + width, top + height))
    return np.asarray(crop.resize((size, size), how), int)


@pytest.mark.parametrize("shape", [(400, 500), (32, 32), (30, 400)])
@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.05, 0.3), (1.0, 1.0)])
def test_boxes_are_those_of_the_device(shape, scale):
    settings = base.view(crop_scale=scale)
    view = View(8, scale, settings.crop_ratio)
    draws = draw_uniforms(0, 0, 0, range(500)).astype(np.float32)
    want = jax.vmap(lambda row: augment._crop_box(row, *shape, settings))(draws)
    want = np.stack(want, axis=1)
    got = np.array([crop_boxes(shape, [view], [row])[0] for row in draws])
    # float32 rounds some sides and places to the next pixel.
    assert (got == want).all(axis=1).mean() > 0.98
    assert np.median(np.abs(got - want).max(axis=1)) == 0
    bottom, right = got[:, 0] + got[:, 2], got[:, 1] + got[:, 3]
    assert (got[:, :2] >= 0).all() and (got[:, 2:] >= 1).all()
    assert (bottom <= shape[0]).all() and (right <= shape[1]).all()


def test_boxes_have_the_area_and_ratio_asked_for():
    draws = draw_uniforms(0, 0, 0, range(4000))
    view = View(224, (0.2, 0.4), (3 / 4, 4 / 3))
    boxes = np.array([crop_boxes((1000, 1000), [view], [row])[0] for row in draws])
    top, left, height, width = boxes.T
    area, ratio = height * width / 1e6, np.log(width / height) / np.log(4 / 3)
    for values, low, high in (
        (area, 0.2, 0.4),
        (ratio, -1, 1),
        (top / (1000 - height), 0, 1),
        (left / (1000 - width), 0, 1),
    ):
        # Kolmogorov-Smirnov distance to the uniform one; 0.03 is its 0.1% point.
        ordered = (np.sort(values) - low) / (high - low)
        assert np.abs(ordered - np.linspace(0, 1, 4000)).max() < 0.035


def test_crops_depend_on_seed_step_view_and_row_alone():
    whole = draw_uniforms(3, 7, 1, range(96))
    assert whole.shape == (96, DRAWS) and len(np.unique(whole)) == whole.size
    np.testing.assert_array_equal(whole[40:50], draw_uniforms(3, 7, 1, range(40, 50)))
    for other in ((4, 7, 1), (3, 8, 1), (3, 7, 0)):
        assert (whole != draw_uniforms(*other, range(96))).all()


def test_crops_of_a_seed_never_change():
    # Recorded once: a run that is continued must see the same crops.
    rows = draw_uniforms(5, 100, 1, range(2, 5))
    boxes = [crop_boxes((375, 500), [IMAGENET], [row])[0] for row in rows]
    assert boxes == [(115, 149, 195, 247), (22, 2, 339, 269), (8, 150, 337, 277)]


@pytest.mark.parametrize(
    ("box", "size"),
    [
        (Box(7, 11, 390, 300), 224),
        (Box(0, 0, 400, 500), 224),
        (Box(50, 60, 210, 330), 224),  # grows in one direction, shrinks in the other
        (Box(0, 0, 400, 500), 96),
        (Box(30, 20, 300, 400), 64),
    ],
)
def test_cuts_are_as_good_as_pillows(box, size):
    """They differ from bilinear ones about as much as bicubic ones do."""
    image = photo(400, 500)
    (got,) = cut_views(np.asarray(image), [box], [View(size, WHOLE, WHOLE)])
    assert got.shape == (size, size, 3) and got.dtype == np.uint8
    want = resized(image, box, size)
    error = np.abs(got - want)
    assert error.mean() < 1.5 * np.abs(resized(image, box, size, BICUBIC) - want).mean()
    assert error.max() <= 40  # at a sharp edge


def test_growing_crops_are_bilinear():
    image = photo(400, 500)
    box = Box(100, 200, 60, 150)
    (got,) = cut_views(np.asarray(image), [box], [IMAGENET])
    assert np.abs(got - resized(image, box, 224)).max() <= 1


@pytest.mark.parametrize("side", [96, 130, 512])
def test_shrinking_averages(side):
    """Without antialiasing the noise would keep its standard deviation of 74."""
    noise = np.random.RandomState(0).randint(0, 256, (side, side, 3)).astype(np.uint8)
    box = Box(0, 0, side, side)
    (got,) = cut_views(noise, [box], [View(32, WHOLE, WHOLE)])
    assert got.std() < 1.2 * 74 * 32 / side


def test_a_crop_is_cut_out_of_the_whole_image_not_of_a_square():
    image = photo(300, 900)
    views = [View(48, (0.1, 0.3), WHOLE), View(32, (0.5, 1.0), (0.5, 3.0))]
    for row in range(8):
        uniforms = [draw_uniforms(0, 0, v, range(8))[row] for v in range(2)]
        got = decode_views(encode(image, "PNG"), views, uniforms)
        boxes = crop_boxes((300, 900), views, uniforms)
        want = cut_views(np.asarray(image), boxes, views)
        for one, other in zip(got, want, strict=True):
            np.testing.assert_array_equal(one, other)
        (pixels,) = decode_views(np.asarray(image), views[:1], uniforms[:1])
        np.testing.assert_array_equal(pixels, got[0])


@pytest.mark.parametrize(
    ("scale", "reduction"), [(1.0, 8), (0.5, 4), (0.2, 4), (0.05, 2), (0.004, 1)]
)
@pytest.mark.parametrize("rotated", [False, True])
def test_large_jpegs_are_decoded_no_larger_than_needed(
    monkeypatch, scale, reduction, rotated
):
    decode_whole, sizes = of_views._decode_whole, []

    def spy(*arguments):
        sizes.append(decode_whole(*arguments))
        return sizes[-1]

    monkeypatch.setattr(of_views, "_decode_whole", spy)
    exif = Image.Exif()
    exif[274] = 6 if rotated else 1
    # Blocks that the edge cuts lie at the other edge of a turned image.
    shape = (800, 1000) if rotated else (803, 1001)
    image = photo(*shape)
    stored = image.transpose(Image.Transpose.ROTATE_90) if rotated else image
    jpeg = encode(stored, "JPEG", quality=95, exif=exif)
    # The second view alone would allow 1/8.
    views = [View(100, (scale, scale), WHOLE), View(8, (0.9, 0.9), WHOLE)]
    got, _ = decode_views(jpeg, views, in_the_middle(2))
    assert sizes[0].shape[0] == -(-shape[0] // reduction)
    box, _ = crop_boxes(shape, views, in_the_middle(2))
    top, left, bottom, right = (
        reduction * int(edge / reduction + 0.5)
        for edge in (
            box.top,
            box.left,
            box.top + box.height,
            box.left + box.width,
        )
    )
    nearest = Box(top, left, bottom - top, right - left)
    assert np.abs(got - resized(image, nearest, 100)).mean() < 2.5


KINDS = {
    "JPEG": (photo(48, 48), "JPEG", {"quality": 90}),
    "gray JPEG": (photo(48, 48).convert("L"), "JPEG", {}),
    "CMYK JPEG": (photo(48, 48).convert("CMYK"), "JPEG", {}),
    "progressive JPEG": (photo(48, 48), "JPEG", {"progressive": True}),
    "PNG": (photo(48, 48), "PNG", {}),
    "transparent PNG": (photo(48, 48).convert("RGBA").rotate(45), "PNG", {}),
    "palette": (photo(48, 48).convert("P"), "PNG", {}),
    "16 bits": (
        Image.fromarray(np.arange(48 * 48, dtype=np.uint16).reshape(48, 48) * 28),
        "PNG",
        {},
    ),
    "WebP": (photo(48, 48), "WEBP", {}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_all_kinds_of_images_look_as_in_evaluation(kind):
    encoded = encode(KINDS[kind][0], KINDS[kind][1], **KINDS[kind][2])
    (got,) = decode_views(encoded, [View(48, WHOLE, WHOLE)], in_the_middle())
    want = decode_image(io.BytesIO(encoded.content), 48, name="")
    assert np.abs(got.astype(int) - want).max() <= 1


@pytest.mark.parametrize("orientation", range(10))
def test_rotated_jpegs_are_upright(orientation):
    exif = Image.Exif()
    exif[274] = orientation
    encoded = encode(photo(48, 48), "JPEG", exif=exif)
    (got,) = decode_views(encoded, [View(48, WHOLE, WHOLE)], in_the_middle())
    want = decode_image(io.BytesIO(encoded.content), 48, name="")
    assert np.abs(got.astype(int) - want).max() <= 1


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("damage", ["half", "garbage", "nothing", "missing"])
def test_what_cannot_be_decoded_is_named(tmp_path, kind, damage):
    path = tmp_path / f"a.{kind.lower()}"
    data = encode(photo(64, 64), kind).content
    content = {"half": data[: len(data) // 2], "garbage": b"no image", "nothing": b""}
    if damage != "missing":
        path.write_bytes(content[damage])
    with pytest.raises(ValueError, match=r"a\.\w+ cannot be decoded .*replace or"):
        decode_views(
            Encoded(str(path), name=str(path)),
            [View(8, WHOLE, WHOLE)],
            in_the_middle(),
        )


def test_bytes_after_the_end_of_a_jpeg_do_no_harm(tmp_path: Path):
    jpeg = encode(photo(64, 64), "JPEG")
    views, numbers = [View(16, WHOLE, WHOLE)], in_the_middle()
    (want,) = decode_views(jpeg, views, numbers)
    (got,) = decode_views(
        jpeg._replace(content=jpeg.content + b"\0" * 9), views, numbers
    )
    assert np.abs(got.astype(int) - want).max() <= 1
