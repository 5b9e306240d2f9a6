"""Tables of images: which columns count, and what is refused."""

from __future__ import annotations

import image_files
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from snclr_jax.data.parquet_source import open_parquet

PICTURES = image_files.pictures(4)
PIXELS = image_files.pixels(PICTURES)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def opened(path, table: pa.Table | dict, **options):
    table = table if isinstance(table, pa.Table) else pa.table(table)
    pq.write_table(table, path / "table.parquet")
    side = image_files.SIDE
    return open_parquet(str(path / "table.parquet"), side, max_bad=0.0, **options)


def structures() -> pa.Array:
    """Structures of the library `datasets`: bytes, a path, or both."""
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    rows = [
        {"bytes": content, "path": f"{i}.png"} for i, content in enumerate(PICTURES)
    ]
    return pa.array(rows, kind)


LARGE = pa.array(PICTURES, pa.large_binary())
TEXT = ["d", "c", "b", "a"]


@pytest.mark.parametrize(
    "columns",
    [
        {"image": PICTURES},
        {"IMG": LARGE, "thumbnail": PICTURES[::-1]},
        {"anything": structures(), "text": TEXT},
        {"only_bytes": LARGE, "text": TEXT, "number": [1.0, 2.0, 3.0, 4.0]},
        {"id": [b"0", b"1", b"2", b"3"], "jpg": PICTURES, "path": TEXT},
    ],
    ids=lambda columns: " ".join(columns),
)
def test_the_column_of_images_is_found(tmp_path, columns):
    train, test, names, _ = opened(tmp_path, columns)
    assert np.array_equal(train.images(), PIXELS)
    assert test is None and names is None and not train.labelled


def test_a_column_that_is_named_counts(tmp_path):
    columns = {"image": PICTURES[::-1], "other": PICTURES, "label": [0] * 4}
    columns["kind"] = [3, None, 1, 0]
    train, *_ = opened(tmp_path, columns, columns=("other", "kind"))
    assert np.array_equal(train.images(), PIXELS)
    assert train.labels.tolist() == [3, -1, 1, 0]
    # Another choice is another copy.
    train, *_ = opened(tmp_path, columns, columns=("image", None))
    assert np.array_equal(train.images(), PIXELS[::-1])
    assert train.labels.tolist() == [0] * 4


def test_paths_are_those_below_the_folder_of_the_table(tmp_path, monkeypatch):
    (tmp_path / "images").mkdir()
    for i, content in enumerate(PICTURES):
        (tmp_path / "images" / f"{i}.png").write_bytes(content)
    paths = [f"images/{i}.png" for i in range(4)]
    train, *_ = opened(tmp_path, {"file_name": paths})
    assert np.array_equal(train.images(), PIXELS)
    assert train.names([2]) == ["table.parquet, images/2.png"]
    identity = train.identity
    (moved := tmp_path / "moved").mkdir()
    (tmp_path / "images").rename(moved / "images")
    train, *_ = opened(moved, {"file_name": paths})
    assert np.array_equal(train.images(), PIXELS) and train.identity == identity


def test_classes_of_text_are_numbered_by_their_names(tmp_path):
    values = ["bee", "ant", None, "bee"]
    for labels in (values, pa.array(values).dictionary_encode()):
        train, _, names, _ = opened(tmp_path, {"image": PICTURES, "label": labels})
        assert names == ("ant", "bee") and train.labels.tolist() == [1, 0, -1, 1]


def test_test_images_of_other_classes_are_noted_and_not_scored(tmp_path):
    for split, labels in (("train", ["a", "b", "b", "a"]), ("test", ["b", "c"] * 2)):
        table = pa.table({"image": PICTURES, "label": labels})
        pq.write_table(table, tmp_path / f"{split}.parquet")
    *_, test, names, notes = open_parquet(str(tmp_path), 8, max_bad=0.0)
    assert names == ("a", "b") and test.labels.tolist() == [1, -1, 1, -1]
    assert any("2 of 4 test images" in note for note in notes)


def test_test_images_without_labels_are_no_error(tmp_path):
    train = {"image": PICTURES, "label": [0, 1, 0, 1]}
    pq.write_table(pa.table(train), tmp_path / "train.parquet")
    pq.write_table(pa.table({"image": PICTURES}), tmp_path / "test.parquet")
    train, test, _, notes = open_parquet(str(tmp_path), 8, max_bad=0.0)
    assert train.labelled and test is None
    assert "data.path: the test images have no labels" in notes[1]


@pytest.mark.parametrize(
    ("columns", "wanted", "message"),
    [
        (
            {"a": [1, 2], "b": ["x", "y"]},
            (None, None),
            r"data.image_column: .*table.parquet has no column of encoded images or "
            r"their paths; name one of its columns, a \(int64\), b \(string\)",
        ),
        (
            {"a": [b"x"], "b": [b"y"]},
            (None, None),
            r"data.image_column: .* name one of its columns, a \(binary\), b",
        ),
        ({"image": [b"x"]}, ("photo", None), r"has no column 'photo' of encoded"),
        ({"image": [1.5]}, ("image", None), r"has no column 'image' of encoded"),
        (
            {"image": [b"x"], "y": [0.5]},
            (None, "y"),
            r"data.label_column: .* has no column 'y' of classes.* y \(double\)",
        ),
        (
            {"image": [b"x"], "label": [2**40]},
            (None, None),
            r"column label has the value 1099511627776, .* data.label_column",
        ),
        ({"image": pa.array([], pa.binary())}, (None, None), "no rows in table.parq"),
    ],
)
def test_a_table_that_lacks_something_is_refused_in_a_line(
    tmp_path, columns, wanted, message
):
    with pytest.raises(ValueError, match=message) as error:
        opened(tmp_path, columns, columns=wanted)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
@pytest.mark.parametrize("content", [b"", b"PAR1", b"ARROW1\0\0" + b"x" * 64])
def test_a_damaged_file_is_named(tmp_path, suffix, content):
    (tmp_path / f"0.{suffix}").write_bytes(content)
    with pytest.raises(
        ValueError, match=rf"0\.{suffix} cannot be read as a table"
    ) as e:
        open_parquet(str(tmp_path), 8, max_bad=0.0)
    assert "\n" not in str(e.value)


def test_a_row_without_an_image_is_a_bad_image(tmp_path):
    rows = [{"bytes": PICTURES[0], "path": None}, None, {"bytes": None, "path": None}]
    train, *_ = opened(tmp_path, {"image": rows})
    with pytest.raises(ValueError, match=r"table.parquet, row 1 cannot be decoded"):
        train.images()
