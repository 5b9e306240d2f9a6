"""Which columns of a table hold images and labels, and what its classes are called."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pyarrow as pa

# The first that there is counts, in capital letters or not.
_IMAGES = ("image", "img", "picture", "photo", "jpg", "jpeg", "png", "webp", "bytes")
_IMAGES += ("file_name", "filename", "image_path", "path")
_LABELS = ("label", "labels", "class", "target", "category", "fine_label", "cls")


def image_column(schema: pa.Schema, wanted: str | None, file: str) -> str:
    """Returns the column of encoded images, or of paths of images.

    It is binary, text, or as the data sets of Hugging Face have it: a structure of
    "bytes" and "path". Where none is named, the feature that is an image counts, then
    one of the usual names, then the only column of bytes.

    Args:
      schema: of the table.
      wanted: `data.image_column`.
      file: the table's, for errors.

    Raises:
      ValueError: where there is none.
    """
    return _column(
        schema,
        wanted,
        ("Image", _IMAGES, _is_image, _is_binary),
        f"data.image_column: {file}",
        "encoded images or their paths",
    )


def label_column(schema: pa.Schema, wanted: str | None, file: str) -> str:
    """Returns the column of classes, numbers or names; "" where there is none.

    Args:
      schema: of the table.
      wanted: `data.label_column`; None is the feature of classes, or a usual name.
      file: the table's, for errors.

    Raises:
      ValueError: where one is named that is not there.
    """
    try:
        return _column(
            schema,
            wanted,
            ("ClassLabel", _LABELS, _is_label, None),
            f"data.label_column: {file}",
            "classes, as integers or text",
        )
    except ValueError:
        if wanted:
            raise
        return ""


def class_names(schema: pa.Schema, column: str) -> tuple[str, ...] | None:
    """Returns what the features of Hugging Face call the classes, or None."""
    names = _features(schema).get(column, {}).get("names")
    return tuple(map(str, names)) if names else None


def _column(
    schema: pa.Schema,
    wanted: str | None,
    rules: tuple[str, tuple[str, ...], Callable, Callable | None],
    where: str,
    what: str,
) -> str:
    feature, usual, fits, only = rules
    fitting = [field.name for field in schema if fits(field.type)]
    if wanted:
        chosen = [name for name in fitting if name == wanted]
    else:
        features = _features(schema)
        chosen = [n for n in fitting if features.get(n, {}).get("_type") == feature]
        chosen += [n for name in usual for n in fitting if n.lower() == name]
        if not chosen and only:
            chosen = [field.name for field in schema if only(field.type)]
            chosen = chosen if len(chosen) == 1 else []
    if not chosen:
        columns = ", ".join(f"{field.name} ({field.type})" for field in schema)
        raise ValueError(
            f"{where} has no column {repr(wanted) + ' ' if wanted else ''}of {what}; "
            f"name one of its columns, {columns}"
        )
    return chosen[0]


def _features(schema: pa.Schema) -> dict[str, Any]:
    try:
        stored = json.loads((schema.metadata or {})[b"huggingface"])
        features = stored["info"]["features"]
        return {n: f for n, f in features.items() if isinstance(f, dict)}
    except (KeyError, TypeError, AttributeError, ValueError):
        return {}


def _is_binary(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        fields = {
            kind.field(i).name: kind.field(i).type for i in range(kind.num_fields)
        }
        return "bytes" in fields and _is_binary(fields["bytes"])
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _is_image(kind: pa.DataType) -> bool:
    return _is_binary(kind) or _is_text(kind)


def _is_label(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_boolean(kind) or _is_text(kind)
