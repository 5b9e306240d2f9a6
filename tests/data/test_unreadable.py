"""What is not decoded, and why; and what is unusual but an image."""

from __future__ import annotations

import io
import os
import pickle
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from bad_pictures import BAD, PNG, encoded, noise
from PIL import Image, ImageFile

from snclr_jax.data.crop import DRAWS, View
from snclr_jax.data.decode import MAX_BYTES, Encoded, UnreadableImage, decode_image
from snclr_jax.data.decode_views import decode_views

WHOLE = View(8, (1.0, 1.0), (1.0, 1.0))


def write(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    return str(path)


def reasons(path: str) -> set[str]:
    """Why both ways of decoding refuse a file."""
    found = set()
    for decode in (
        lambda: decode_image(path, 8, name="it"),
        lambda: decode_views(Encoded(path, "it"), [WHOLE], np.full((1, DRAWS), 0.5)),
    ):
        with pytest.raises(UnreadableImage, match="^it cannot be decoded as an") as at:
            decode()
        found.add(at.value.reason)
    return found


# What is refused, and why.


@pytest.mark.parametrize("name", BAD)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_bad_file_is_refused_with_its_reason(tmp_path, monkeypatch, name):
    content, reason = BAD[name]
    path = write(tmp_path / name, content)
    if name.startswith(("bomb", "larg")):  # by its head alone

        def decode(*arguments):
            raise AssertionError("decoded")

        monkeypatch.setattr(ImageFile.ImageFile, "load", decode)
        monkeypatch.setattr(cv2, "imdecode", decode)
    for found in reasons(path):
        assert re.search(reason, found), found
        assert str(tmp_path) not in found


def test_what_is_no_file_or_too_long_a_one_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")  # would be waited for, without end
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "link.png").symlink_to(tmp_path / "nothing")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    with (tmp_path / "long.png").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    want = {
        "pipe.png": "not a file",
        "folder.png": "not a file",
        "zero.png": "not a file",
        "link.png": "FileNotFoundError: No such file or directory",
        "long.png": "715,827,881 bytes, more than the 715,827,880 that are read",
    }
    for name, reason in want.items():
        assert reasons(str(tmp_path / name)) == {reason}


def test_a_file_that_may_not_be_read_is_refused(tmp_path, monkeypatch):
    path = write(tmp_path / "a.png", PNG)
    if os.geteuid() == 0:  # who may read everything

        def stat(path):
            raise PermissionError(13, "Permission denied", path)

        monkeypatch.setattr("snclr_jax.data.decode.os.stat", stat)
    else:
        os.chmod(path, 0)
    assert reasons(path) == {"PermissionError: Permission denied"}


def test_a_name_of_any_bytes_breaks_no_line_and_no_terminal():
    error = UnreadableImage("a\nb\x1b[31m\udcff 'ä\".png", "empty")
    assert error.name == r"""a\nb\x1b[31m\udcff 'ä".png"""
    again = pickle.loads(pickle.dumps(error))
    assert (
        str(again)
        == str(error)
        == (
            r"""a\nb\x1b[31m\udcff 'ä".png cannot be decoded as an image (empty); """
            "replace or remove it"
        )
    )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_damage_anywhere_is_an_image_or_refused(kind):
    """No other error, whatever bytes are changed or missing."""
    whole, random = encoded(noise(side=32), kind), np.random.RandomState(0)
    refused = 0
    for _ in range(60):
        content = bytearray(whole)
        for place in random.randint(len(whole), size=4):
            content[place] = random.randint(256)
        image = Encoded(bytes(content[: random.randint(1, 2 * len(whole))]), "it")
        for decode in (
            lambda: decode_image(io.BytesIO(image.content), 8, name="it"),  # noqa: B023
            lambda: decode_views(image, [WHOLE], np.full((1, DRAWS), 0.5))[0],  # noqa: B023
        ):
            try:
                assert decode().shape == (8, 8, 3)
            except UnreadableImage:
                refused += 1
    assert refused > 20


def test_lack_of_memory_is_not_the_images_fault(monkeypatch):
    def load(image):
        raise MemoryError

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    with pytest.raises(MemoryError):
        decode_image(io.BytesIO(PNG), 8, name="it")


# What is unusual, but an image.


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_an_animation_is_its_first_frame(kind):
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    content = encoded(
        frames[0], kind, save_all=True, append_images=frames[1:], duration=9, **options
    )
    with Image.open(io.BytesIO(content)) as image:
        assert image.n_frames == 3
    for got in (
        decode_image(io.BytesIO(content), 8, name=""),
        *decode_views(Encoded(content, ""), [WHOLE], np.full((1, DRAWS), 0.5)),
    ):
        assert (got == [255, 0, 0]).all()


@pytest.mark.parametrize("marked", [True, False])
def test_cmyk_has_its_colors_adobes_inverted_too(marked):
    """Every CMYK JPEG that is found in practice is inverted, as Adobe's are."""
    inks = np.random.RandomState(0).randint(0, 256, (4, 4, 4)).astype(np.uint8)
    large = inks.repeat(16, axis=0).repeat(16, axis=1)
    content = encoded(
        Image.fromarray(large, "CMYK"), "JPEG", quality=100, subsampling=0
    )
    marker = content.index(b"\xff\xee")
    assert content[marker + 4 : marker + 9] == b"Adobe"
    if not marked:
        content = content[:marker] + content[marker + 16 :]
    # The colors of four inks, each a share of white that is taken away.
    cyan_magenta_yellow, black = inks[..., :3].astype(float), inks[..., 3:] / 255
    want = (255 - cyan_magenta_yellow) * (1 - black)
    pillows = np.asarray(Image.fromarray(inks, "CMYK").convert("RGB"), float)
    assert np.abs(pillows - want).max() <= 1
    view = View(64, (1.0, 1.0), (1.0, 1.0))
    for got in (
        decode_image(io.BytesIO(content), 64, name=""),
        *decode_views(Encoded(content, ""), [view], np.full((1, DRAWS), 0.5)),
    ):
        centers = got[8::16, 8::16].astype(float)
        assert np.abs(centers - want).max() < 6


def test_sixteen_bits_are_scaled_not_clipped():
    levels = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1024 + 513
    color = np.stack([levels, levels[::-1], levels.T], axis=-1)
    for pixels in (levels, color):
        file = io.BytesIO(cv2.imencode(".png", pixels)[1].tobytes())
        got = decode_image(file, 8, name="")
        want = np.broadcast_to(pixels.reshape(8, 8, -1) >> 8, (8, 8, 3))
        np.testing.assert_array_equal(got[..., ::-1], want)


def test_a_rotated_tiff_is_upright():
    pixels = np.zeros((8, 16, 3), np.uint8)
    pixels[:, :4] = 255  # as stored; a quarter turn brings the white to the top
    exif = Image.Exif()
    exif[274] = 6
    content = encoded(Image.fromarray(pixels), "TIFF", exif=exif)
    for got in (
        decode_image(io.BytesIO(content), 8, name=""),
        *decode_views(Encoded(content, ""), [WHOLE], np.full((1, DRAWS), 0.5)),
    ):
        assert got.shape == (8, 8, 3) and (got == 0).all()  # the square in the middle
