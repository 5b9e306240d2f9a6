"""TIFFs of several pages and of kinds that Pillow cannot read, and HEIC."""

from __future__ import annotations

import io
import sys

import numpy as np
import pillow_heif
import pytest
import tifffile
from bad_pictures import NOT_AN_IMAGE
from PIL import Image

from snclr_jax.data.crop import DRAWS, View
from snclr_jax.data.decode import Encoded, UnreadableImage, decode_image
from snclr_jax.data.decode_views import decode_views
from snclr_jax.data.folder import open_folder
from snclr_jax.data.form import Form
from snclr_jax.data.layout import passed_over

WHOLE = View(8, (1.0, 1.0), (1.0, 1.0))
PAGES = np.random.RandomState(0).randint(0, 256, (5, 8, 8), np.uint8)


def both_ways(image: Encoded) -> list[np.ndarray]:
    content = image.content
    file = io.BytesIO(content) if isinstance(content, bytes) else content
    square = decode_image(file, 8, name="it", form=image.form, page=image.page)
    return [square, *decode_views(image, [WHOLE], np.full((1, DRAWS), 0.5))]


def written(pixels: np.ndarray, **options) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    "options",
    [
        {"photometric": "minisblack"},
        {"photometric": "minisblack", "bigtiff": True},
        {"imagej": True},
        {"ome": True, "metadata": {"axes": "TYX"}},
    ],
    ids=str,
)
def test_pages_are_images_where_that_is_asked_for(tmp_path, options):
    (tmp_path / "stack.tif").write_bytes(written(PAGES, **options))
    Image.fromarray(PAGES[3]).save(tmp_path / "single.tif")
    Image.fromarray(PAGES[4]).save(tmp_path / "z.png")
    first = open_folder(str(tmp_path), 8, max_bad=0.0, pages=None)[0]
    assert np.array_equal(first.images()[..., 0], PAGES[[3, 0, 4]])
    split = open_folder(str(tmp_path), 8, max_bad=0.0, pages="all")[0]
    assert np.array_equal(split.images()[..., 0], PAGES[[3, 0, 1, 2, 3, 4, 4]])
    assert split.names([0, 1, 5, 6]) == [
        *("single.tif", "stack.tif, page 1", "stack.tif, page 5", "z.png")
    ]
    assert split.identity != first.identity
    for row, image in enumerate(split.originals(np.arange(7))):
        for got in both_ways(image):
            assert np.array_equal(got, split.images()[row]), row


def test_pages_of_a_stack_have_its_class(tmp_path):
    for name in ("ant", "bee"):
        folder = tmp_path / "train" / name
        folder.mkdir(parents=True)
        (folder / "0.tif").write_bytes(written(PAGES, photometric="minisblack"))
    split = open_folder(str(tmp_path), 8, max_bad=0.0, pages="all")[0]
    assert split.labels.tolist() == [0] * 5 + [1] * 5


def test_a_damaged_page_alone_is_bad(tmp_path):
    content = bytearray(written(PAGES, photometric="minisblack", compression="zlib"))
    with tifffile.TiffFile(io.BytesIO(content)) as stack:
        (offset,) = stack.pages[2].dataoffsets
    content[offset : offset + 20] = bytes(20)
    (tmp_path / "0.tif").write_bytes(content)
    split = open_folder(str(tmp_path), 8, max_bad=0.2, pages="all")[0]
    assert np.array_equal(split.images()[..., 0], PAGES[[0, 1, 3, 3, 4]])
    assert list(split.bad.errors) == [2]


def test_a_page_of_a_file_that_is_too_large_as_a_whole_is_read(tmp_path, monkeypatch):
    path = tmp_path / "0.tif"
    path.write_bytes(written(PAGES, photometric="minisblack"))
    monkeypatch.setattr("snclr_jax.data.decode.MAX_BYTES", 100)
    for got in both_ways(Encoded(str(path), "it", page=4)):
        assert np.array_equal(got[..., 0], PAGES[4])
    with pytest.raises(UnreadableImage, match="bytes, more than"):
        both_ways(Encoded(str(path), "it"))


RAMP = np.linspace(0, 1, 64).reshape(8, 8)


@pytest.mark.parametrize("kind", [np.float16, np.float64, np.uint64])
def test_gray_values_that_pillow_lacks_become_those_of_the_range(kind):
    scale = 1000 if kind == np.uint64 else 1
    content = written((RAMP * scale).astype(kind))
    with pytest.raises(OSError):
        Image.open(io.BytesIO(content))
    for got in both_ways(Encoded(content, "it", Form((0, scale)))):
        assert np.abs(got[..., 0] - RAMP * 255).max() < 1.2
    with pytest.raises(UnreadableImage, match="floats have no full range.*data.range"):
        both_ways(Encoded(content, "it"))


def test_color_in_planes_of_its_own_is_read():
    content = written(PAGES[:3], photometric="minisblack", planarconfig="separate")
    with pytest.raises(OSError):
        Image.open(io.BytesIO(content))
    for got in both_ways(Encoded(content, "it")):
        assert np.array_equal(got, np.moveaxis(PAGES[:3], 0, -1))


@pytest.mark.parametrize(
    ("pixels", "options", "reason"),
    [
        (
            np.zeros((8, 8, 17), np.uint8),
            {"planarconfig": "contig"},
            "17 channels",
        ),
        (
            np.zeros((5, 8, 8), np.uint8),
            {"planarconfig": "separate"},
            "5 channels",
        ),
        (np.zeros((8, 8, 3), np.float32), {}, "color of type float32, and integers"),
    ],
)
def test_what_no_image_can_be_made_of_is_refused(pixels, options, reason):
    photometric = "rgb" if pixels.shape[-1] == 3 else "minisblack"
    content = written(pixels, photometric=photometric, **options)
    with pytest.raises(UnreadableImage, match=reason):
        both_ways(Encoded(content, "it"))


def test_tifffile_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(UnreadableImage, match=r"pip install 'snclr_jax\[tiff\]'"):
        both_ways(Encoded(written(RAMP), "it"))
    with pytest.raises(UnreadableImage, match=NOT_AN_IMAGE):
        both_ways(Encoded(b"not a TIFF", "it"))


def test_heic_is_read_upright(tmp_path):
    pixels = np.zeros((64, 32, 3), np.uint8)
    pixels[:32], pixels[32:] = (250, 20, 20), (20, 20, 250)
    exif = Image.Exif()
    exif[274] = 6  # to be turned to the right
    image = Image.fromarray(np.rot90(pixels).copy())
    for suffix, options in ((".heic", {"exif": exif.tobytes()}), (".HEIF", {})):
        stored = pillow_heif.from_pillow(image if options else Image.fromarray(pixels))
        stored.save(tmp_path / f"0{suffix}", quality=90, **options)
    split = open_folder(str(tmp_path), 8, max_bad=0.0, pages=None)[0]
    want = np.concatenate([np.tile(pixels[:1, :8], (4, 1, 1)), pixels[-4:, :8]])
    assert split.size == 2
    for image in split.originals(np.arange(2)):
        for got in both_ways(image):
            assert np.abs(got[[0, 7]].astype(int) - want[[0, 7]]).max() < 30, image.name


def test_heic_that_is_passed_over_names_what_reads_it():
    said = passed_over([".heic", ".heic", ".txt"])
    assert said == "2 x .heic (pip install 'snclr_jax[heic]' reads them), 1 x .txt"
