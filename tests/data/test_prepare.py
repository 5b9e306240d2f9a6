"""`snclr prepare`: what is read back, what is left out, and what is refused."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
from array_record.python.array_record_module import ArrayRecordReader
from pictures import (
    assert_reads_as,
    assert_reads_nothing,
    make_folder,
    records,
    save,
    snapshot,
)
from PIL import Image

from snclr_jax.data import open_data
from snclr_jax.data.folder import open_folder
from snclr_jax.data.prepare import run, shards
from snclr_jax.data.prepare.parts import ALONE, Part
from snclr_jax.data.prepare.run import prepare

ROOT = Path(__file__).parents[2]


# What is read back.


def test_a_labelled_folder_reads_as_before_the_encoded_bytes_too(folder, tmp_path):
    made = prepare(str(folder), "photos", str(tmp_path), workers=2)
    assert_reads_as(folder, made, "test")
    for split, count in (("train", 12), ("test", 6)):
        found = records(made, split)
        assert len(found) == count
        for record in found:
            path = folder / split / record["file_name"].decode()
            assert record["image"] == path.read_bytes()
            assert record["label"] == ("ant lion", "bee").index(path.parent.name)
        # Left to itself, protobuf would choose an order in every process.
        (shard,) = made.glob(f"*-{split}.*")
        for record in ArrayRecordReader(str(shard)).read_all():
            keys = (b"\n\tfile_name", b"\n\5image", b"\n\5label")
            assert sorted(keys, key=record.index) == list(keys)


def test_val_serves_as_test_and_other_folders_are_listed(tmp_path, no_pool):
    source = make_folder(tmp_path / "pictures", test="val")
    save(source / "more" / "0.png", 0)
    made = prepare(str(source), "photos", str(tmp_path))
    assert_reads_as(source, made, "test")
    (line,) = map(json.loads, (made / "unreadable.jsonl").open())
    assert line == {
        "file": str(source / "more" / "0.png"),
        "reason": "outside train and val",
    }


def test_the_set_is_what_train_would_read(tmp_path, no_pool, capsys):
    source = make_folder(tmp_path / "pictures", test="valid")
    for name in ("bee/0.bmp", "bee/1.tif", "bee/2.gif", "@eaDir/0.png", "0.png"):
        save(source / "train" / name, 7)
    save(source / "valid" / "cat" / "0.png", 8)
    made = prepare(str(source), "photos", str(tmp_path))
    assert_reads_as(source, made, "test")
    assert len(records(made, "train")) == 16 and len(records(made, "test")) == 7
    printed = capsys.readouterr().out
    assert "--source: passed over 1 x folder @eaDir" in printed
    assert "1 of 7 test images (cat/0.png) are of no class" in printed


def test_a_folder_without_train_is_unlabelled_and_opens_as_data(tmp_path, no_pool):
    for seed, name in enumerate(("b.jpg", "a/z.JPEG", "a/c.webp", "a/b/x.PNG")):
        save(tmp_path / "in" / name, seed)
    (tmp_path / "in" / ".hidden.jpg").write_bytes(b"")
    made = prepare(str(tmp_path / "in"), "mine", str(tmp_path))
    assert_reads_as(tmp_path / "in", made, "")
    config = tiny.config(
        data__name="tfds",
        data__tfds_name="mine",
        data__path=str(tmp_path),
        data__test_split="",
        data__image_size=8,
    )
    data = open_data(config.data)
    assert data.train.size == 4 and not data.train.labelled and data.test is None
    assert np.array_equal(
        data.train.images(),
        open_folder(str(tmp_path / "in"), 8, max_bad=0.0, pages=None)[0].images(),
    )


# What is left out.


def damage(folder: Path) -> dict[str, str]:
    """Damages images and adds others; returns the damaged ones and the reasons."""
    train = folder / "train" / "bee"
    half = save(train / "half.jpg", 50, side=64)
    half.write_bytes(half.read_bytes()[:-20])
    (train / "empty.png").write_bytes(b"")
    (train / "text.jpg").write_text("no image")
    (train / "link.png").symlink_to(folder / "nothing.png")
    Image.new("1", (10000, 9000)).save(train / "bomb.png")  # 11 kB
    (train / "notes.txt").write_text("no image either")
    reasons = {
        "bomb.png": "10000 x 9000 pixels, more than the 89,478,485",
        "empty.png": "empty, a link to nothing, or",
        "half.jpg": "OSError: image file is truncated",
        "link.png": "empty, a link to nothing, or",
        "text.jpg": "not an image",
        "notes.txt": ".txt",
    }
    return {str(train / name): reason for name, reason in reasons.items()}


def test_unreadable_images_are_listed_and_the_rest_is_whole(folder, tmp_path, capsys):
    reasons = damage(folder)
    arguments = str(folder), "photos", str(tmp_path)
    made = prepare(*arguments, max_unreadable=0.5, workers=1)
    lines = [json.loads(line) for line in (made / "unreadable.jsonl").open()]
    assert [line["file"] for line in lines] == list(reasons)
    for line in lines:
        assert line["reason"].startswith(reasons[line["file"]])
        Path(line["file"]).unlink()
    assert_reads_as(folder, made, "test")
    printed = capsys.readouterr().out
    assert "5 unreadable images left out" in printed and "bomb.png (10000 x" in printed
    assert "1 other files left out" in printed and "notes.txt (.txt)" in printed


def test_too_many_unreadable_images_stop_until_allowed(folder, tmp_path, no_pool):
    (folder / "train" / "ant lion" / "bad.png").write_bytes(b"no image")
    (folder / "train" / "bee" / "bad.png").write_bytes(b"no image")
    arguments = str(folder), "photos", str(tmp_path)
    with pytest.raises(
        ValueError,
        match=r"bee/bad\.png is unreadable \(not an image in one.*"
        r"allows 1 of 20",
    ):
        prepare(*arguments, max_unreadable=0.05, shard_mb=1e-3)
    assert not (tmp_path / "photos" / "1.0.0" / "dataset_info.json").exists()
    assert_reads_nothing(tmp_path)
    with pytest.raises(ValueError, match="2 are, and --max_unreadable allows 1 of 20"):
        prepare(*arguments, max_unreadable=0.05, shard_mb=1e-3)
    made = prepare(*arguments, max_unreadable=0.1, shard_mb=1e-3)
    assert len((made / "unreadable.jsonl").read_text().split("\n")) == 3


def test_shards_whose_images_are_all_unreadable_hurt_no_others(tmp_path, no_pool):
    for name in ("a", "b", "c", "d", "e"):
        save(tmp_path / "in" / f"{name}.png", ord(name))
    for name in ("a", "c", "e"):
        (tmp_path / "in" / f"{name}.png").write_bytes(b"no image" * 100)
    arguments = str(tmp_path / "in"), "photos", str(tmp_path)
    made = prepare(*arguments, max_unreadable=1, shard_mb=1e-6)
    assert len(list(made.glob("*.array_record-*"))) == 5
    for name in ("a", "c", "e"):
        (tmp_path / "in" / f"{name}.png").unlink()
    assert_reads_as(tmp_path / "in", made, "")
    (tmp_path / "in" / "b.png").write_bytes(b"no image")
    (tmp_path / "in" / "d.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="no image of split train can be read"):
        prepare(*arguments[:1], "none", str(tmp_path), max_unreadable=1)


# What is refused.


def test_a_finished_set_is_left_alone(folder, tmp_path, no_pool, capsys):
    made = prepare(str(folder), "photos", str(tmp_path))
    shard = "photos-{}.array_record-00000-of-00001"
    metadata = {"dataset_info.json", "features.json", "label.labels.txt"}
    reports = {"prepared.jsonl", "unreadable.jsonl"}
    assert set(snapshot(made)) == (
        {shard.format("train"), shard.format("test")} | metadata | reports
    )
    before = {path: path.stat().st_mtime_ns for path in made.iterdir()}
    contents = snapshot(made)
    capsys.readouterr()
    assert prepare(str(folder), "photos", str(tmp_path)) == made
    assert "is finished; nothing is left to do" in capsys.readouterr().out
    assert snapshot(made) == contents
    assert before == {path: path.stat().st_mtime_ns for path in made.iterdir()}


def test_another_source_or_setting_is_refused(folder, tmp_path, no_pool):
    arguments = str(folder), "photos", str(tmp_path)
    made = prepare(*arguments)
    with pytest.raises(ValueError, match=r"shard_mb 256\.0, now 128\.0"):
        prepare(*arguments, shard_mb=128)
    save(folder / "train" / "bee" / "new.png", 0)
    with pytest.raises(ValueError, match="'train': 12.*, now .*'train': 13"):
        prepare(*arguments)
    (folder / "train" / "bee" / "new.png").unlink()
    (folder / "train" / "bee" / "9.png").rename(folder / "train" / "bee" / "0.png")
    with pytest.raises(ValueError, match=r"\(sha256 [^,]*, now [^,]*\)"):
        prepare(*arguments)
    (folder / "train" / "bee" / "0.png").rename(folder / "train" / "bee" / "9.png")
    prepare(*arguments)
    next(made.glob("*-train.*")).unlink()
    with pytest.raises(ValueError, match="-train.*is missing or has changed"):
        prepare(*arguments)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_processes_share_the_shards_and_the_last_one_finishes(
    folder, tmp_path, no_pool, capsys, monkeypatch
):
    damage(folder)
    min(folder.glob("train/*/*.png")).write_bytes(b"")  # of the first part, too
    options = dict(max_unreadable=0.3, shard_mb=1e-3)
    alone = prepare(str(folder), "photos", str(tmp_path / "alone"), **options)
    arguments = str(folder), "photos", str(tmp_path / "shared")
    decoded, check = [], run.read_checked

    def read_checked(images, workers):
        decoded.append(len(images))
        return check(images, workers)

    monkeypatch.setattr(run, "read_checked", read_checked)
    for process in (2, 0):
        made = prepare(*arguments, **options, part=Part(process, 3))
        assert not (made / "dataset_info.json").exists()
    assert "process 0 of 3 has written its" in capsys.readouterr().out
    for wrong in (Part(0, 2), ALONE):
        with pytest.raises(ValueError, match=r"another .*prepared-0-of-3\.jsonl, prep"):
            prepare(*arguments, **options, part=wrong)
    with pytest.raises(ValueError, match="--process=3 is not one of --processes=3"):
        prepare(*arguments, **options, part=Part(3, 3))
    # Of all together: each of them had fewer.
    with pytest.raises(ValueError, match="processes are unreadable: 6 are, .* 5 of 23"):
        prepare(*arguments, **options | {"max_unreadable": 0.25}, part=Part(1, 3))
    # Two that end at once: one of them finishes.
    identity = json.loads((alone / "prepared.jsonl").open().readline())
    with contextlib.closing(shards.Journal(made, identity)):
        prepare(*arguments, **options, part=Part(1, 3))
        assert not (made / "dataset_info.json").exists()
    prepare(*arguments, **options, part=Part(1, 3))
    assert snapshot(made) == snapshot(alone)
    total = sum(identity["images"].values())
    assert sum(decoded) == total and max(decoded) < total / 2
    prepare(*arguments, **options, part=Part(2, 3))
    assert "is finished" in capsys.readouterr().out


def test_folders_of_others_and_of_the_source_are_not_touched(folder, tmp_path, no_pool):
    foreign = tmp_path / "photos_5" / "1.0.0"
    foreign.mkdir(parents=True)
    (foreign / "dataset_info.json").write_text("{}")
    with pytest.raises(ValueError, match="files that snclr prepare has not written"):
        prepare(str(folder), "photos_5", str(tmp_path))
    made = prepare(str(folder), "photos", str(tmp_path))
    identity = json.loads((made / "prepared.jsonl").read_text().split("\n")[0])
    journal = shards.Journal(made, identity)
    with pytest.raises(ValueError, match="another snclr prepare is writing"):
        prepare(str(folder), "photos", str(tmp_path))
    journal.close()
    prepare(str(folder), "photos", str(tmp_path))
    with pytest.raises(ValueError, match="pictures/1.0.0, for the set, lies inside"):
        prepare(str(folder), "pictures", str(tmp_path))


def test_where_there_are_no_locks_a_set_is_prepared_and_it_says_so(
    tmp_path, monkeypatch, capsys
):
    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    shards.Journal(tmp_path, {"bytes": 1}).close()
    (line,) = capsys.readouterr().out.splitlines()
    assert "has no locks (No locks available); start no second snclr prepare" in line


def test_a_journal_that_is_removed_meanwhile_ends_the_run(tmp_path):
    """Another one was let in, and writes the same shards."""
    with contextlib.closing(shards.Journal(tmp_path, {"bytes": 1})) as journal:
        (tmp_path / "prepared.jsonl").unlink()
        with contextlib.closing(shards.Journal(tmp_path, {"bytes": 1})):
            with pytest.raises(ValueError, match="prepared.jsonl was removed while"):
                journal.add({"file": "a", "size": 1})


def test_names_that_tfds_does_not_accept_are_refused(folder, tmp_path):
    for name in ("My_Photos", "5photos", "my-photos", "a/b", ""):
        with pytest.raises(ValueError, match=f"--name={name} cannot name a TFDS set"):
            prepare(str(folder), name, str(tmp_path / "out"))
    with pytest.raises(ValueError, match="--source=nowhere does not exist"):
        prepare("nowhere", "photos", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_workers_import_neither_jax_nor_tfds():
    code = (
        "import sys, snclr_jax.main, snclr_jax.data.prepare.checking\n"
        "print({'jax', 'grain', 'tensorflow_datasets'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=ROOT)
    assert found.stdout == b"set()\n"
