"""Mistakes in images of large files, and of files of several pages."""

from __future__ import annotations

from mistakes.mistake import of

MISTAKES = [
    *of(
        "snclr_jax/data/large_files.py",
        "tests/data/test_large_files.py",
        (
            "a part of a word names a split",
            'rf"(?<![^\\W_])(',
            'rf"(',
        ),
        (
            "test images are trained on",
            "return of[train], of[test] if test else [], notes",
            "return list(names), of[test] if test else [], notes",
        ),
    ),
    *of(
        "snclr_jax/data/cached.py",
        "tests/data/test_large_files.py",
        (
            "what was made of an earlier file is read",
            'f"{path}\\0{status.st_size}\\0{status.st_mtime_ns}"',
            "path",
        ),
    ),
    *of(
        "snclr_jax/data/rows.py",
        "tests/data/test_large_files.py",
        (
            "other images are the same set",
            "            content = repr(content.shape).encode() + content.tobytes()",
            "            content = repr(content.shape).encode()",
        ),
    ),
    *of(
        "snclr_jax/data/parquet_source.py",
        "tests/data/test_large_files.py",
        (
            "the first row of a table is that after the last of another",
            'np.searchsorted(self._ends, index, side="right")) - 1',
            'np.searchsorted(self._ends[1:], index, side="left"))',
        ),
    ),
    *of(
        "snclr_jax/data/parquet_source.py",
        "tests/data/test_parquet.py",
        (
            "paths are those below the folder that the command runs in",
            "return str((self._root / self._files[file]).parent / image)",
            "return image",
        ),
    ),
    *of(
        "snclr_jax/data/webdataset_source.py",
        "tests/data/test_webdataset.py",
        (
            "names that lead out of a tar are read",
            "if leads_out(name):",
            "if False:",
        ),
        (
            "the mask of a sample is its image",
            ".lower() in SUFFIXES",
            ".lower() not in SUFFIXES",
        ),
    ),
    *of(
        "snclr_jax/data/digits.py",
        "tests/data/test_digits.py",
        (
            "two digits are half as wide as they are",
            "y * (wide / high)",
            "y",
        ),
        (
            "the second digit is the tens",
            "[::-1]",
            "",
        ),
        (
            "pairs share originals with those that are held back",
            "start + share * size",
            "share * count",
        ),
    ),
    *of(
        "snclr_jax/data/omniglot.py",
        "tests/data/test_omniglot.py",
        (
            "characters of all alphabets are one by their numbers",
            "([^/]+/[^/]+)/(",
            "(?:[^/]+/)([^/]+)/(",
        ),
        (
            "a drawing of two archives is two images",
            "drawings.setdefault(key,",
            "drawings.setdefault(name,",
        ),
        (
            "a writer is trained on and scored",
            "range(TRAIN_WRITERS + 1, 100)",
            "range(TRAIN_WRITERS, 100)",
        ),
    ),
    *of(
        "snclr_jax/data/numpy_source.py",
        "tests/data/test_numpy_source.py",
        (
            "numbers that are no classes are labels",
            '.dtype.kind in "iub"',
            '.dtype.kind in "iubf"',
        ),
    ),
    *of(
        "snclr_jax/data/decode.py",
        "tests/data/test_tiff.py",
        (
            "every page of a file is the one before it",
            "image.seek(page)",
            "image.seek(page - 1)",
        ),
        (
            "a page is refused where its file is large",
            "if page is None:  # else",
            "if True:  # else",
        ),
    ),
    *of(
        "snclr_jax/data/tiff.py",
        "tests/data/test_tiff.py",
        (
            "planes of color are rows",
            'if stored.axes.startswith("S"):  # channels first',
            "if False:",
        ),
    ),
]
