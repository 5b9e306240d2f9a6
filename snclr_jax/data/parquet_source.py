"""Tables of images: parquet and Arrow files, as the data sets of Hugging Face are."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from snclr_jax.data.cached import made_once
from snclr_jax.data.decode import Encoded
from snclr_jax.data.form import RGB, Form
from snclr_jax.data.large_files import find_files
from snclr_jax.data.layout import USUAL
from snclr_jax.data.parquet_columns import class_names, image_column, label_column
from snclr_jax.data.rows import class_numbers, open_rows
from snclr_jax.data.split import Split

SUFFIXES = (".parquet", ".arrow")
_ROWS_AT_ONCE = 256  # that a copy holds in memory


def open_parquet(
    path: str,
    image_size: int,
    *,
    max_bad: float,
    splits: tuple[str, str] = USUAL,
    columns: tuple[str | None, str | None] = (None, None),
    form: Form = RGB,
) -> tuple[Split, Split | None, tuple[str, ...] | None, tuple[str, ...]]:
    """Opens a folder of tables, or one table; images are read when they are asked for.

    A parquet file has no random access: its columns of images and labels are copied
    once, to an Arrow file in the user's cache, and read from there through memory maps.
    Arrow files are read where they are. Paths of images are those below the folder of
    their table.

    Args:
      path: the folder, or a file.
      image_size: side s of the decoded images, in pixels.
      max_bad: share of a split's images that may be bad, see `Split`.
      splits: see `large_files.divide`.
      columns: of images and of labels; None finds them, see `image_column`.
      form: see `Encoded`.

    Returns:
      The training split, the test split, the classes' names and notes for a person, as
      `open_folder`.

    Raises:
      ValueError: for a folder without tables, a table that cannot be read or lacks a
        column, and for a cache that cannot be written.
      OSError: where a file cannot be read.
    """
    files = find_files(path, SUFFIXES, splits)
    train = _Tables(files.root, files.train, columns, form)
    test = None
    if files.test:
        test = _Tables(files.root, files.test, (train.image, columns[1]), form)
    notes = files.notes
    if copied := train.copied + (test.copied if test else 0):
        notes.append(
            f"{copied / 2**20:.1f} MB of parquet are copied once, to the user's cache, "
            "to read any image of them"
        )
    return open_rows(train, test, side=image_size, max_bad=max_bad, notes=notes)


class _Tables:
    """The rows of some tables, one after the other.

    Args:
      root: folder of the tables.
      files: names of them below it.
      columns: of images and labels, or None.
      form: see `Encoded`.

    Attributes:
      size: number of rows.
      image: column of the images.
      label: column of the labels, or "".
      class_names: as the features of Hugging Face have them, or None.
      copied: bytes of the copies.
    """

    def __init__(
        self,
        root: Path,
        files: Sequence[str],
        columns: tuple[str | None, str | None],
        form: Form,
    ) -> None:
        self._root, self._files, self._form = root, files, form
        self._stored, self.copied, ends = [], 0, [0]
        image, label = columns
        _table.cache_clear()  # a file may have been written anew
        for file in files:
            whole = str(root / file)
            schema = _read(whole, _schema)
            image = image_column(schema, image, whole)
            label = label_column(schema, label, whole) if label != "" else ""
            stored = whole
            if file.lower().endswith(".parquet"):
                kept = [name for name in (image, label) if name]
                suffix = "-".join(["", *map(_plain, kept)]) + ".arrow"
                copy = functools.partial(_read, whole, _copy, kept)
                stored = made_once(whole, suffix, copy)
                self.copied += os.path.getsize(stored)
            self._stored.append(stored)
            ends.append(ends[-1] + _read(stored, _table).num_rows)
            if file == files[0]:
                self.class_names = class_names(schema, label)
        self.image, self.label = image or "", label or ""
        self._ends, self.size = np.array(ends), ends[-1]
        if not self.size:
            raise ValueError(
                f"data.path: no rows in {', '.join(files)}; name a folder with images, "
                "or other splits by data.train_split and data.test_split"
            )

    def encoded(self, indices: np.ndarray) -> list[Encoded]:
        """Returns the images of some rows, as they are stored."""
        return [
            Encoded(self._content(file, self._image(file, row)), name, self._form)
            for (file, row), name in zip(
                map(self._place, indices.tolist()), self.names(indices), strict=True
            )
        ]

    def names(self, indices: np.ndarray) -> list[str]:
        """Returns what some rows are called: their paths or their numbers."""
        names = []
        for file, row in map(self._place, indices.tolist()):
            image = self._image(file, row)
            path = image.get("path") if isinstance(image, dict) else image
            named = path if isinstance(path, str) and path else f"row {row}"
            names.append(f"{self._files[file]}, {named}")
        return names

    def labels(self) -> np.ndarray | list[str] | None:
        """Returns the label of every row: numbers, names ("" is none), or None."""
        if not self.label:
            return None
        columns = [_table(file).column(self.label) for file in self._stored]
        if pa.types.is_integer(columns[0].type) or pa.types.is_boolean(columns[0].type):
            values = [value for column in columns for value in column.to_pylist()]
            return class_numbers(values, f"{self._root}: column {self.label}")
        return [value or "" for column in columns for value in column.to_pylist()]

    def _place(self, index: int) -> tuple[int, int]:
        """The table that a row is in, and its number there."""
        file = int(np.searchsorted(self._ends, index, side="right")) - 1
        return file, index - int(self._ends[file])

    def _image(self, file: int, row: int) -> Any:
        return _table(self._stored[file]).column(self.image)[row].as_py()

    def _content(self, file: int, image: Any) -> bytes | str:
        if isinstance(image, dict):
            image = image.get("bytes") or image.get("path")
        if isinstance(image, str):
            return str((self._root / self._files[file]).parent / image)
        return image or b""


def _read(file: str, read: Any, *arguments: Any) -> Any:
    """Returns `read(file, ...)`, and says what to do where the file is damaged."""
    try:
        return read(file, *arguments)
    except pa.ArrowException as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"{file} cannot be read as a table ({reason}); fetch it again where it is "
            "damaged, or remove it"
        ) from error


def _schema(file: str) -> pa.Schema:
    if file.lower().endswith(".parquet"):
        return pq.read_schema(file)
    return _table(file).schema


def _copy(file: str, columns: list[str], out: str) -> None:
    """Writes some columns of a parquet file as an Arrow file."""
    with pq.ParquetFile(file, memory_map=True) as stored:
        schema = pa.schema([stored.schema_arrow.field(name) for name in columns])
        with pa.ipc.new_file(out, schema) as written:
            for rows in stored.iter_batches(_ROWS_AT_ONCE, columns=columns):
                written.write_batch(rows.select(columns))


@functools.cache  # of each process: a map costs no memory
def _table(file: str) -> pa.Table:
    """The rows of an Arrow file, through a memory map."""
    with pa.memory_map(file) as mapped:
        is_file = mapped.read(6) == b"ARROW1"
        mapped.seek(0)
        opened = pa.ipc.open_file if is_file else pa.ipc.open_stream
        return opened(mapped).read_all()


def _plain(column: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in column)
