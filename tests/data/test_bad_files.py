"""`bad_files.jsonl`: what stands in it, who writes it, and what counts again."""

from __future__ import annotations

from pathlib import Path

import jax
import pytest
import tiny
from bad_pictures import (
    AT,
    check_lines,
    file_name,
    lines_in,
    make_bad_folder,
    make_folder,
    open_train,
)

from snclr_jax.data import Data, bad_files, open_data, shared
from snclr_jax.data.bad_files import FILE, BadFiles, describe_bad

pytestmark = pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    return make_bad_folder(tmp_path_factory.mktemp("bad"))


def test_what_was_repaired_stays_on_the_list_and_counts_no_more(folder, tmp_path):
    contents = [Path(folder, "train", file_name(row)).read_bytes() for row in range(40)]
    copy = make_folder(tmp_path / "copy", contents)
    split = open_train(copy)
    split.read(range(20))
    BadFiles(str(tmp_path), Data(split, None, None)).close()
    Path(copy, "train", file_name(4)).write_bytes(contents[3])
    files = BadFiles(str(tmp_path), Data(open_train(copy), None, None))
    files.close()
    assert files.count == sum(row < 20 for row in AT) - 1
    check_lines(tmp_path, tuple(row for row in AT if row < 20))


def test_a_damaged_list_is_named(folder, tmp_path):
    (tmp_path / FILE).write_text('{"split": "train", "ind')
    with pytest.raises(ValueError, match=r"bad_files\.jsonl is damaged .*remove it"):
        BadFiles(str(tmp_path), Data(open_train(folder), None, None))


def test_both_splits_are_listed_and_a_holdback_once(folder, tmp_path):
    test = Path(folder, "test")
    if not test.exists():
        test.symlink_to(Path(folder, "train"))
    config = tiny.config().data.copy_and_resolve_references()
    config.update(name="folder", path=folder, image_size=12, max_bad=0.5)
    for holdback, want in ((0, ["test"] * 13 + ["train"] * 13), (10, ["train"] * 13)):
        config.holdback = holdback
        data = open_data(config)
        data.test.read(range(data.test.size))
        data.train.read(range(data.train.size))
        workdir = tmp_path / str(holdback)
        workdir.mkdir()
        BadFiles(str(workdir), data).close()
        assert [line["split"] for line in lines_in(workdir)] == want
    test.unlink()


def test_processes_tell_each_other_and_one_writes(folder, tmp_path, monkeypatch):
    """Two processes that met different images, and the first of them."""
    split = open_train(folder)
    split.read(range(8))
    assert sorted(split.bad.errors) == [1, 4, 7]
    theirs = [(row, f"theirs/{row}", "torn") for row in (4, 5, 10)]
    told = []

    def gather(value):
        told.append(value)
        return [value, [theirs] if len(told) == 1 else [[]]]

    monkeypatch.setattr(shared, "from_all", gather)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    monkeypatch.setattr(bad_files, "from_first", lambda compute: compute())
    monkeypatch.setattr(bad_files, "in_agreement", lambda compute, facts: compute())
    files = BadFiles(str(tmp_path), Data(split, None, None))
    assert files.update() == 5 and files.update() == 0
    # What all know is not told again, by nobody.
    assert [[row for row, *_ in met] for (met,) in told] == [[1, 4, 7], [], []]
    assert sorted(split.bad.errors) == [1, 4, 5, 7, 10]
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(jax, "process_index", lambda: 0)
    files.close()
    by_index = {line["index"]: line["reason"] for line in lines_in(tmp_path)}
    assert by_index[5] == "torn" and by_index[4] != "torn"
    assert sorted(by_index) == [1, 4, 5, 7, 10]


def test_what_was_bad_before_is_tried_again_by_one_process_each(
    folder, tmp_path, monkeypatch
):
    split = open_train(folder)
    split.read(range(20))
    BadFiles(str(tmp_path), Data(split, None, None)).close()
    lines = [line["index"] for line in lines_in(tmp_path)]
    monkeypatch.setattr(bad_files, "from_first", lambda compute: compute())
    monkeypatch.setattr(bad_files, "in_agreement", lambda compute, facts: compute())
    monkeypatch.setattr(shared, "from_all", lambda value: [value])
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    again = open_train(folder)
    assert BadFiles(str(tmp_path), Data(again, None, None)).count == len(lines[1::3])
    assert sorted(again.bad.errors) == lines[1::3] and len(lines) > 3


def test_the_first_ones_are_named(folder):
    data = Data(open_train(folder), None, None)
    assert describe_bad(data) == ""
    data.train.read(range(8))
    said = describe_bad(data)
    assert said.startswith("3 images were replaced by others: /")
    assert said.count("cannot be decoded as an image (") == 3
