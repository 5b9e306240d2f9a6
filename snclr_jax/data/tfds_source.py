"""Image sets that TensorFlow Datasets has prepared, read without TensorFlow."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from snclr_jax.data.decode import Encoded, decode_squares
from snclr_jax.data.form import RGB, Form
from snclr_jax.data.split import Split
from snclr_jax.settings.paths import located

_RECORDS_AT_ONCE = 4096  # one by one is four times slower
# What sets call the feature that names an image; the first that there is counts.
_NAME_FEATURES = ("file_name", "filename", "id")


def open_tfds(
    name: str,
    data_dir: str,
    image_size: int,
    *,
    train_split: str,
    test_split: str,
    max_bad: float,
    form: Form = RGB,
) -> tuple[Split, Split | None, tuple[str, ...] | None]:
    """Opens a prepared TFDS set with an "image" feature; never uses the network.

    Labels, where there is a "label" of classes, are read when first asked for: a record
    cannot be read without its encoded image, so that costs one pass over the files,
    which processes share (no image is decoded). The images' own names, where there is
    a "file_name", "filename" or "id", are read when they are asked for.

    Args:
      name: as TFDS spells it, "name", "name/config", each with ":version" if wanted;
        the newest prepared version otherwise.
      data_dir: folder that TFDS prepared the set in; "" for TFDS's default.
      image_size: side s of the decoded images, in pixels.
      train_split: TFDS split, slices such as "train[:90%]" included.
      test_split: the same; "" for none.
      max_bad: share of a split's images that may be bad, see `Split`.
      form: see `Encoded`.

    Returns:
      The training split, the test split and the classes' names.

    Raises:
      ValueError: where the set is not prepared, not as array_record, has no image, or
        lacks a split.
    """
    builder = tfds.builder_from_directory(_prepared_folder(name, data_dir))
    # The features of an image set are a dictionary.
    features = dict(cast(Mapping[str, Any], builder.info.features))
    if not isinstance(features.get("image"), tfds.features.Image):
        raise ValueError(
            f'data.tfds_name {name!r} has no feature "image" that is an image; its '
            f"features are {sorted(features)}"
        )
    label = features.get("label")
    label = label if isinstance(label, tfds.features.ClassLabel) else None
    open_split = functools.partial(
        _open_split, builder, image_size, label, max_bad, form
    )
    train = open_split("train_split", train_split)
    test = None
    if test_split:
        test = open_split("test_split", test_split)
    return train, test, tuple(label.names) if label and label.names else None


def _prepared_folder(name: str, data_dir: str) -> epath.Path:
    """The folder of the newest prepared version, found without asking TFDS.

    For a set that is not there, TFDS would go to the network, and retry for minutes.
    """
    core: Any = tfds.core  # TFDS imports lazily, which hides its modules
    typed = data_dir or core.constants.DATA_DIR
    root = located(typed)
    base, _, version = name.partition(":")
    levels = (
        [version or "*"] if "/" in base else [version or "*", f"*/{version or '*'}"]
    )
    folders = [
        info.parent
        for level in levels
        for info in (root / base).glob(f"{level}/dataset_info.json")
        if tfds.core.Version.is_valid(info.parent.name)  # not one half prepared
    ]
    configs = sorted({folder.parent.name for folder in folders})
    if not folders:
        raise ValueError(
            f"data.tfds_name {name!r} is not prepared under data.path {typed!r}; "
            "correct data.path, or prepare the set once, with a network and TensorFlow:"
            f" tfds build {name} --data_dir={typed} --file_format=array_record"
        )
    if len(configs) > 1:
        raise ValueError(
            f"data.tfds_name {name!r} is prepared in several configs under {typed}: "
            f"{configs}; name one, such as {base}/{configs[0]}"
        )
    return max(folders, key=lambda folder: tfds.core.Version(folder.name))


def _open_split(
    builder: Any,
    side: int,
    label: Any,
    max_bad: float,
    form: Form,
    field: str,
    split: str,
) -> Split:
    decoders = {"image": tfds.decode.SkipDecoding()}
    try:
        source = builder.as_data_source(split=split, decoders=decoders)
    except NotImplementedError as error:
        raise ValueError(
            f"data.tfds_name: {builder.data_dir} is prepared as "
            f"{builder.info.file_format.value}, which has no random access; prepare "
            "it in another data.path with: tfds build --file_format=array_record"
        ) from error
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"data.{field} {split!r} is not a split of {builder.info.full_name}; it "
            f"has {sorted(builder.info.splits)}, and slices of these"
        ) from error
    name = f"{builder.data_dir}, split {split}"
    encoded = functools.partial(_encoded, source, name, form)
    features = builder.info.features
    own_name = next((name for name in _NAME_FEATURES if name in features), None)
    return Split(
        functools.partial(decode_squares, encoded, side),
        encoded=encoded,
        size=len(source),
        labels=functools.partial(_read_labels, source, name) if label else None,
        names=functools.partial(_read_names, source, name, own_name)
        if own_name
        else split,
        stamp=f"{builder.info.full_name}, {int(builder.info.dataset_size)} bytes",
        max_bad=max_bad,
    )


def _encoded(source: Any, name: str, form: Form, indices: np.ndarray) -> list[Encoded]:
    records = _read_records(source, name, indices.tolist())
    return [
        Encoded(record["image"], f"{name}, image {index}", form)
        for index, record in zip(indices, records, strict=True)
    ]


def _read_labels(source: Any, name: str, rows: range) -> np.ndarray:
    return np.array(_read_feature(source, name, "label", rows), np.int32)


def _read_names(source: Any, name: str, feature: str, indices: np.ndarray) -> list[str]:
    names = _read_feature(source, name, feature, indices.tolist())
    return [
        # The bytes of a file's name need not be UTF-8.
        own.decode("utf-8", "backslashreplace") if isinstance(own, bytes) else str(own)
        for own in names
    ]


def _read_feature(
    source: Any, name: str, feature: str, indices: Sequence[int]
) -> list[Any]:
    values = []
    for start in range(0, len(indices), _RECORDS_AT_ONCE):
        rows = indices[start : start + _RECORDS_AT_ONCE]
        values += [record[feature] for record in _read_records(source, name, rows)]
    return values


def _read_records(source: Any, name: str, indices: Sequence[int]) -> list[Any]:
    try:
        if len(indices) == 1:
            return [
                source[indices[0]]
            ]  # in this thread: several start one of their own
        return source.__getitems__(indices)
    except RuntimeError as error:
        raise ValueError(
            f"{name} cannot be read ({error}); its files are damaged or incomplete: "
            "delete the folder and prepare the set again"
        ) from error
