"""From an encoded image of any size and mode to pixels: values, or a square."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import stat
from collections.abc import Callable, Generator, Sequence
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from snclr_jax.data.form import RGB, Form
from snclr_jax.data.formats import FORMATS
from snclr_jax.data.pixels import pixels_of, to_square
from snclr_jax.data.tiff import COLOR_CHANNELS, as_picture, is_tiff, read_tiff
from snclr_jax.data.upright import eight_bits, own_channels, square, upright

# 256 MiB of RGB, from where on Pillow warns of decompression bombs. An image that has
# more, as its first bytes tell, is not decoded.
MAX_PIXELS = 2**28 // 3
MAX_BYTES = 8 * MAX_PIXELS  # of a file: 16 bits of RGBA, not compressed

# Errors of the operating system that tell of an image. All others may be gone the next
# time, such as those of a mount; another image in its place would be of this run alone.
_OF_AN_IMAGE = (
    None,  # by Pillow
    errno.EACCES,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENOENT,
    errno.ENOTDIR,
)


class Encoded(NamedTuple):
    """An image as it is stored.

    Attributes:
      content: the path of its file, the file's bytes, or an array that `pixels_of`
        takes.
      name: what to call the image in an error.
      form: what the image becomes.
      page: of a TIFF whose pages are images; None is the first of any file.
    """

    content: str | bytes | np.ndarray
    name: str
    form: Form = RGB
    page: int | None = None


def printable(name: str) -> str:
    """A name may hold anything: no line breaks, no commands to a terminal."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)


class UnreadableImage(ValueError):
    """An image that cannot be decoded.

    Attributes:
      name: of the image.
      reason: in a few words, without the name.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name = printable(name)
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.describe()}; replace or remove it"

    def describe(self) -> str:
        """The message without what to do."""
        return f"{self.name} cannot be decoded as an image ({self.reason})"


def open_encoded(image: Encoded) -> Image.Image:
    """Does `open_image` for an image as it is stored.

    Raises:
      Exception: as `open_image`.
    """
    content = image.content
    if isinstance(content, np.ndarray):
        return Image.fromarray(pixels_of(content, "it"))
    return open_image(_file(content), image.page)


def stored_values(image: Encoded) -> np.ndarray:
    """Reads a whole image that is not in color, upright: (h, w, c) as it is stored.

    Raises:
      Exception: of many kinds, where it is no image, too large, or has not c channels.
    """
    if isinstance(image.content, np.ndarray):
        return pixels_of(image.content, "it", image.form)
    return _values(_file(image.content), image.form, image.page)


def _values(file: str | BinaryIO, form: Form, page: int | None) -> np.ndarray:
    check_file(file, page)
    if form.channels > 1 and is_tiff(file):  # Pillow may leave channels out
        most = 3 * MAX_PIXELS // form.channels
        return read_tiff(file, page, channels=(form.channels,), most_pixels=most)
    with open_image(file, page) as opened:
        return own_channels(opened, form.channels)


def _file(content: str | bytes) -> str | BinaryIO:
    return io.BytesIO(content) if isinstance(content, bytes) else content


def open_image(file: str | BinaryIO, page: int | None = None) -> Image.Image:
    """Reads the head of an image, and refuses what is too large to decode.

    Args:
      file: path or open file.
      page: see `Encoded`.

    Raises:
      Exception: of many kinds, where it is no image or has more than `MAX_PIXELS`.
    """
    check_file(file, page)
    try:
        image = Image.open(file, formats=tuple(FORMATS))
        if page:
            image.seek(page)
    except (UnidentifiedImageError, SyntaxError):
        if not is_tiff(file):
            raise
        return as_picture(
            read_tiff(file, page or 0, channels=COLOR_CHANNELS, most_pixels=MAX_PIXELS)
        )
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise ValueError(
            f"{image.width} x {image.height} pixels, more than the {MAX_PIXELS:,} that "
            "are decoded"
        )
    return image


def check_file(file: str | BinaryIO, page: int | None) -> None:
    """Raises ValueError where a path is that of no file, or of one that is too large.

    Args:
      file: path or open file; the latter is not checked.
      page: see `Encoded`.
    """
    if not isinstance(file, str):
        return
    status = os.stat(file)
    if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for, without end
        raise ValueError("not a file")
    if not status.st_size:
        raise ValueError("empty")
    if page is None:  # else not all is read
        check_size(status.st_size)


def check_size(size: int) -> None:
    """Raises ValueError where a file has more bytes than are read."""
    if size > MAX_BYTES:
        raise ValueError(f"{size:,} bytes, more than the {MAX_BYTES:,} that are read")


def decode_image(
    file: str | BinaryIO,
    side: int,
    *,
    name: str,
    form: Form = RGB,
    page: int | None = None,
) -> np.ndarray:
    """Decodes one image: upright, its central square resized to `side`.

    Resizing is antialiased and bicubic. Transparency is laid on white, as a page shows
    it; of more than 8 bits the form's levels become 8, where the image is gray, else
    the upper 8 are kept; CMYK becomes RGB as Pillow converts it; EXIF rotation is
    applied; of an animation the first frame counts. Where the form is not color, each
    channel stays as it is, and the levels are of all of them.

    Args:
      file: path or open file, in one of `FORMATS` and of `MAX_PIXELS` at most.
      side: s, in pixels.
      name: what to call the image in an error.
      form: see `Encoded`.
      page: see `Encoded`.

    Returns:
      uint8 (s, s, c).

    Raises:
      UnreadableImage: where the image cannot be decoded.
      OSError: where no file can be read, such as with too many open.
    """
    if not form.in_color:
        with unreadable(name):
            return to_square(eight_bits(_values(file, form, page), form.levels), side)
    with unreadable(name), open_image(file, page) as image:
        # A JPEG can be decoded at 1/2, 1/4 or 1/8 of its size; staying at twice the
        # wanted size leaves the final quality to the antialiased resize.
        image.draft(None, (2 * side, 2 * side))
        return square(upright(image, form.levels), side)


def decode_squares(
    encoded: Callable[[np.ndarray], Sequence[Encoded]], side: int, indices: np.ndarray
) -> np.ndarray:
    """Decodes the images `encoded(indices)` by `decode_image`: uint8 (b, s, s, c)."""
    return np.stack([_decode_square(image, side) for image in encoded(indices)])


def _decode_square(image: Encoded, side: int) -> np.ndarray:
    content, name, form, page = image
    if isinstance(content, np.ndarray):
        with unreadable(name):
            return to_square(pixels_of(content, "it", form), side)
    return decode_image(_file(content), side, name=name, form=form, page=page)


@contextlib.contextmanager
def unreadable(name: str) -> Generator[None]:
    """Turns whatever decoding raises into an `UnreadableImage`."""
    try:
        yield
    except MemoryError:  # tells of the machine, not of the image
        raise
    # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error and more.
    except Exception as error:
        if isinstance(error, OSError) and error.errno not in _OF_AN_IMAGE:
            raise OSError(
                f"{name} cannot be read now: {error.strerror}; the same command "
                "continues, without the image where that was removed"
            ) from error
        raise UnreadableImage(name, _reason(error)) from error


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return f"not an image in one of the formats {', '.join(FORMATS)}"
    if type(error) is ValueError:
        return str(error)
    # An error of the operating system repeats the path.
    what = getattr(error, "strerror", None) or error
    return f"{type(error).__name__}: {what}"
