"""What is decoded, and how such files are called."""

from __future__ import annotations

import contextlib

# Pillow reads more, some of it by starting other programs (EPS).
FORMATS = {
    "JPEG": (".jpeg", ".jpg", ".jpe", ".jfif"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "TIFF": (".tiff", ".tif"),
}
with contextlib.suppress(ImportError):  # an extra
    import pillow_heif

    pillow_heif.register_heif_opener()
    FORMATS["HEIF"] = (".heic", ".heif")
SUFFIXES = tuple(suffix for suffixes in FORMATS.values() for suffix in suffixes)
