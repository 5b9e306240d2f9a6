"""Image folders, and decoding whatever lies in them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from snclr_jax.data.decode import decode_image
from snclr_jax.data.folder import open_folder


def save(path: Path, color=(10, 20, 30), size=(8, 8), **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path, **options)
    return path


def decoded(path: Path, image: Image.Image, side: int = 8, **options) -> np.ndarray:
    image.save(path, **options)
    return decode_image(str(path), side, name=str(path))


@pytest.fixture
def labelled(tmp_path):
    for split, count in (("train", 3), ("test", 2)):
        for label, name in enumerate(("ant", "bee")):
            for i in range(count):
                color = (label * 100, i * 10, 0)
                save(tmp_path / split / name / f"{i}.png", color)
    return tmp_path


def test_class_folders_become_labels(labelled):
    train, test, names, _ = open_folder(str(labelled), 8, max_bad=0.0, pages=None)
    assert names == ("ant", "bee") and (train.size, test.size) == (6, 4)
    for split in (train, test):
        assert split.labels.dtype == np.int32 and split.group is None
        images = split.images()
        assert images.shape == (split.size, 8, 8, 3) and images.dtype == np.uint8
        assert (images[:, 0, 0, 0] == split.labels * 100).all()
    assert train.images()[:, 0, 0, 1].tolist() == [0, 10, 20] * 2


def test_splits_of_other_names_are_the_same(labelled):
    def identities() -> list[str]:
        return [
            s.identity
            for s in open_folder(str(labelled), 8, max_bad=0.0, pages=None)[:2]
        ]

    before = identities()
    (labelled / "test").rename(labelled / "Valid")
    (labelled / "train").rename(labelled / "Training")
    assert identities() == before


def test_train_alone_has_no_test_split(labelled):
    (labelled / "test").rename(labelled / "other")
    train, test, names, _ = open_folder(str(labelled), 8, max_bad=0.0, pages=None)
    assert train.size == 6 and test is None and names == ("ant", "bee")


def test_flat_and_nested_images_are_unlabelled(tmp_path):
    for number, name in enumerate(("b.jpg", "a/z.JPEG", "a/c.webp", "a/b/x.PNG")):
        save(tmp_path / name, (60 * number,) * 3)
    save(tmp_path / ".hidden.jpg")
    (tmp_path / "notes.txt").write_text("not an image")
    train, test, names, _ = open_folder(str(tmp_path), 8, max_bad=0.0, pages=None)
    assert train.labels is None and test is None and names is None
    # Sorted by path: a/b/x.PNG, a/c.webp, a/z.JPEG, b.jpg.
    levels = train.images()[:, 4, 4, 0].astype(int)
    assert np.abs(levels - [180, 120, 60, 0]).max() <= 3


def test_a_subset_has_the_originals_of_its_images(labelled):
    train = open_folder(str(labelled), 8, max_bad=0.0, pages=None)[0]
    part = train.subset(np.array([4, 0, 5])).subset(np.array([2, 0]))
    names = [original.name for original in part.originals(np.array([1, 0, 0]))]
    assert names == [str(labelled / "train/bee" / f"{i}.png") for i in (1, 2, 2)]


def test_names_are_paths_below_the_root(labelled):
    train, test, *_ = open_folder(str(labelled), 8, max_bad=0.0, pages=None)
    assert train.names([5, 0]) == ["train/bee/2.png", "train/ant/0.png"]
    assert test.names([1]) == ["test/ant/1.png"]
    (labelled / "train").rename(labelled / "other")
    everything = open_folder(str(labelled), 8, max_bad=0.0, pages=None)[0]
    assert everything.names([0, 9]) == ["other/ant/0.png", "test/bee/1.png"]


def test_a_file_name_that_is_not_text_is_spelled_out(tmp_path):
    saved = save(tmp_path / "train" / "ant" / "0.png", (9, 9, 9))
    (tmp_path / "train" / "käfer").mkdir()
    os.rename(saved, os.fsencode(tmp_path) + b"/train/k\xc3\xa4fer/\xff.png")
    train = open_folder(str(tmp_path), 8, max_bad=0.0, pages=None)[0].subset(
        np.array([0])
    )
    assert train.names([0]) == [r"train/käfer/\xff.png"]
    assert (train.images() == 9).all()


def test_a_class_folder_of_any_name_has_one_that_can_be_printed(tmp_path):
    save(tmp_path / "train" / "plain" / "0.png")
    (tmp_path / "train" / "plain").rename(tmp_path / "train" / "$x^{_}$\nnl")
    save(tmp_path / "train" / "plain" / "0.png")
    os.rename(tmp_path / "train" / "plain", os.fsencode(tmp_path) + b"/train/caf\xe9")
    names = open_folder(str(tmp_path), 8, max_bad=0.0, pages=None)[2]
    assert names == (r"$x^{_}$\nnl", r"caf\xe9")


@pytest.mark.parametrize("link", ["train/ant/up", "train/up", "train/ant/a/b/here"])
def test_a_link_that_leads_back_up_is_named(labelled, link):
    (labelled / link).parent.mkdir(parents=True, exist_ok=True)
    (labelled / link).symlink_to((labelled / link).parent)
    with pytest.raises(ValueError, match=f"{link} is a link to a folder that it lies"):
        open_folder(str(labelled), 8, max_bad=0.0, pages=None)


def test_links_to_folders_elsewhere_are_followed(labelled, tmp_path):
    save(tmp_path / "elsewhere" / "0.png")
    for name in ("train", "test"):
        (labelled / name / "cat").symlink_to(tmp_path / "elsewhere")
    train, _, names, _ = open_folder(str(labelled), 8, max_bad=0.0, pages=None)
    assert names == ("ant", "bee", "cat") and train.size == 7


def test_other_files_make_another_set(labelled):
    def identity() -> str:
        return open_folder(str(labelled), 8, max_bad=0.0, pages=None)[0].identity

    before = identity()
    assert before.startswith("6 images, names ") and identity() == before
    (labelled / "train" / "ant" / "0.png").rename(labelled / "train" / "ant" / "9.png")
    assert identity().startswith("6 images, names ") and identity() != before


def test_train_without_classes_is_unlabelled(tmp_path):
    save(tmp_path / "train" / "0.png")
    train, test, names, _ = open_folder(str(tmp_path), 8, max_bad=0.0, pages=None)
    assert train.size == 1 and train.labels is None and test is None and names is None


@pytest.mark.parametrize("path", ["", "missing"])
def test_missing_folder_is_named(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=rf"data\.path is '{path}', .* not a folder"):
        open_folder(path, 8, max_bad=0.0, pages=None)


def test_folder_without_images_lists_the_suffixes_and_what_is_there(labelled):
    for path in (labelled / "train").rglob("*.png"):
        path.rename(path.with_suffix(".AVIF"))
    with pytest.raises(ValueError, match=r"/train; .*\.jpeg, \.jpg, .* 6 x \.avif"):
        open_folder(str(labelled), 8, max_bad=0.0, pages=None)


def test_every_format_is_read_and_the_rest_is_counted(tmp_path):
    kinds = ("jpg", "jfif", "png", "webp", "gif", "bmp", "tif", "tiff")
    for number, kind in enumerate(kinds):
        save(tmp_path / f"{number}.{kind}", (200, 60, 10), (32, 32))
    save(tmp_path / "@eaDir" / "1.jpg")
    (tmp_path / "notes.txt").write_text("not an image")
    train, *_, notes = open_folder(str(tmp_path), 8, max_bad=0.0, pages=None)
    assert train.size == len(kinds) and train.labels is None
    assert np.abs(train.images().astype(int) - [200, 60, 10]).max() <= 4
    assert notes == ("data.path: passed over 1 x folder @eaDir, 1 x .txt",)


# Labels only score: what lacks one is trained on and not scored.


def test_classes_that_differ_are_named_and_not_scored(labelled):
    (labelled / "test" / "bee").rename(labelled / "test" / "cat")
    _, test, names, notes = open_folder(str(labelled), 8, max_bad=0.0, pages=None)
    assert names == ("ant", "bee") and test.labels.tolist() == [0, 0, -1, -1]
    assert notes == (
        "data.path: 2 of 4 test images (cat/0.png, cat/1.png) are of no class of the "
        "training images and are not scored",
        "data.path: the test images lack 1 of 2 classes (bee)",
    )


def test_loose_images_beside_classes_have_no_label(labelled):
    save(labelled / "train" / "loose.png")
    train, *_, notes = open_folder(str(labelled), 8, max_bad=0.0, pages=None)
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1, -1]
    assert "1 images (loose.png) lie beside the class folders of train" in notes[0]


def test_unsorted_test_images_are_not_scored(labelled):
    (labelled / "test").rename(labelled / "other")
    save(labelled / "test" / "0.png")
    _, test, _, notes = open_folder(str(labelled), 8, max_bad=0.0, pages=None)
    assert test.labels.tolist() == [-1] and "4 in other" in notes[0]
    assert "1 of 1 test images (0.png) are of no class" in notes[1]


def test_class_folders_alone_have_labels(labelled):
    train, test, names, _ = open_folder(
        str(labelled / "train"), 8, max_bad=0.0, pages=None
    )
    assert test is None and names == ("ant", "bee")
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("content", [b"", b"no image", "half"])
def test_unreadable_file_is_named(tmp_path, content):
    path = save(tmp_path / "a.jpg", size=(64, 64))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if content == "half" else content)
    split = open_folder(str(tmp_path), 8, max_bad=0.0, pages=None)[0]
    with pytest.raises(ValueError, match=r"a\.jpg cannot be decoded .*replace or"):
        split.images()


def test_central_square_is_resized_as_pillow_would(tmp_path):
    pixels = np.random.RandomState(0).randint(0, 256, (32, 64, 3), np.uint8)
    image = Image.fromarray(pixels)
    got = decoded(tmp_path / "wide.png", image, 16).astype(int)
    whole = np.asarray(image.resize((32, 16), Image.Resampling.BICUBIC), int)
    assert np.abs(got - whole[:, 8:24]).max() <= 1
    tall = decoded(tmp_path / "tall.png", image.rotate(90, expand=True), 16)
    assert np.abs(np.rot90(got) - tall).max() <= 1


def test_image_of_the_right_size_is_untouched(tmp_path):
    pixels = np.random.RandomState(0).randint(0, 256, (8, 8, 3), np.uint8)
    for name, options in (("a.png", {}), ("a.webp", {"lossless": True})):
        got = decoded(tmp_path / name, Image.fromarray(pixels), **options)
        assert np.array_equal(got, pixels)


def test_large_jpeg_is_as_good_as_decoded_whole(tmp_path):
    small = np.random.RandomState(0).randint(0, 256, (12, 12, 3), np.uint8)
    image = Image.fromarray(small).resize((600, 600), Image.Resampling.BICUBIC)
    got = decoded(tmp_path / "a.jpg", image, 32, quality=95).astype(int)
    with Image.open(tmp_path / "a.jpg") as whole:
        want = np.asarray(whole.resize((32, 32), Image.Resampling.BICUBIC), int)
    assert np.abs(got - want).max() <= 6 and np.abs(got - want).mean() < 1


def test_exif_rotation_is_applied(tmp_path):
    # EXIF 2.3, tag 274: how the stored rows and columns came from the upright picture.
    stored = {
        1: lambda up: up,
        2: lambda up: up[:, ::-1],
        3: lambda up: up[::-1, ::-1],
        4: lambda up: up[::-1],
        5: lambda up: up.transpose(1, 0, 2),
        6: lambda up: np.rot90(up),
        7: lambda up: up[::-1, ::-1].transpose(1, 0, 2),
        8: lambda up: np.rot90(up, -1),
    }
    upright = np.zeros((16, 16, 3), np.uint8)
    upright[:8, :8], upright[:8, 8:], upright[8:, :8] = 250, 150, 80
    for orientation, store in stored.items():
        exif = Image.Exif()
        exif[274] = orientation
        image = Image.fromarray(np.ascontiguousarray(store(upright)))
        got = decoded(tmp_path / "a.jpg", image, 16, exif=exif, quality=95)
        assert np.abs(got.astype(int) - upright).max() < 12, orientation


def test_grey_becomes_three_equal_channels(tmp_path):
    levels = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    want = np.repeat(levels[..., None], 3, axis=2)
    assert np.array_equal(decoded(tmp_path / "8.png", Image.fromarray(levels)), want)
    deep = levels.astype(np.uint16) * 256 + 200
    assert np.array_equal(decoded(tmp_path / "16.png", Image.fromarray(deep)), want)
    jpeg = decoded(tmp_path / "8.jpg", Image.fromarray(levels), quality=95)
    assert np.abs(jpeg.astype(int) - want).max() < 8
    bits = Image.fromarray(levels > 128)
    assert np.array_equal(
        decoded(tmp_path / "1.png", bits)[..., 0], np.where(levels > 128, 255, 0)
    )


def test_transparency_is_laid_on_white(tmp_path):
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    half = Image.new("RGBA", (8, 8), (255, 0, 0, 128))
    grey = Image.new("LA", (8, 8), (0, 64))
    for name in ("a.png", "a.webp"):
        options = {"lossless": True} if name.endswith("webp") else {}
        assert (decoded(tmp_path / name, clear, **options) == 255).all()
        assert (decoded(tmp_path / name, half, **options) == [255, 127, 127]).all()
    assert (decoded(tmp_path / "la.png", grey) == 191).all()


def test_palette_with_and_without_transparency(tmp_path):
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 10, 200, 30])
    assert (decoded(tmp_path / "p.png", image) == [10, 200, 30]).all()
    assert (decoded(tmp_path / "t.png", image, transparency=1) == 255).all()


def test_cmyk_jpeg_has_its_colors(tmp_path):
    for ink, want in (((0, 0, 0, 0), (255,) * 3), ((0, 255, 255, 0), (255, 0, 0))):
        got = decoded(tmp_path / "a.jpg", Image.new("CMYK", (8, 8), ink))
        assert np.abs(got.astype(int) - want).max() < 6
