"""`snclr prepare`, killed anywhere, continues to the bytes of an undisturbed run."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from full_disk import full_disk
from pictures import (
    assert_reads_as,
    assert_reads_nothing,
    save,
    snapshot,
)

from snclr_jax.data.prepare import run
from snclr_jax.data.prepare.checking import read_checked
from snclr_jax.data.prepare.metadata import write_metadata
from snclr_jax.data.prepare.run import prepare
from snclr_jax.data.prepare.shards import JOURNAL, Journal, plan_shards
from snclr_jax.data.prepare.sources import EncodedImage, open_source

ROOT = Path(__file__).parents[2]


class Killed(BaseException):
    """No handler of errors sees it."""


class Killer:
    """Kills at the n-th moment that matters: a file brought to the disk or renamed."""

    def __init__(self, monkeypatch, at: int) -> None:
        self.left = at
        for name in ("fsync", "replace"):
            monkeypatch.setattr(os, name, self.before(getattr(os, name)))
        write_shard = run.write_shard

        def write_half(path, checked, serializer, **options):
            return write_shard(path, self.during(checked), serializer, **options)

        monkeypatch.setattr(run, "write_shard", write_half)

    def count(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise Killed

    def before(self, call):
        def counted(*arguments):
            self.count()
            return call(*arguments)

        return counted

    def during(self, checked):
        for each in checked:
            self.count()
            yield each


def test_a_run_killed_at_any_moment_continues_to_the_same_bytes(
    folder, tmp_path, no_pool, monkeypatch
):
    # Slow, and a killed process, unlike a fallen computer, loses nothing it wrote.
    monkeypatch.setattr(os, "fsync", lambda file: None)
    (folder / "train" / "bee" / "bad.png").write_bytes(b"no image" * 100)
    options = {"shard_mb": 3e-3, "max_unreadable": 0.1}
    want = snapshot(prepare(str(folder), "photos", str(tmp_path), **options))
    assert sum("array_record" in name for name in want) == 5
    killed, at = True, 0
    while killed:
        at += 1
        out = tmp_path / str(at)
        with monkeypatch.context() as patch:
            Killer(patch, at)
            try:
                prepare(str(folder), "photos", str(out), **options)
                killed = False
            except Killed:
                left = snapshot(out / "photos" / "1.0.0")
                assert "dataset_info.json" not in left or left == want
        made = prepare(str(folder), "photos", str(out), **options)
        assert snapshot(made) == want, at
    assert at > 40


def test_whole_shards_are_kept_and_half_a_line_of_the_journal_is_not(
    folder, tmp_path, no_pool, monkeypatch
):
    out = tmp_path / "out"
    want = snapshot(prepare(str(folder), "photos", str(tmp_path), shard_mb=3e-3))
    with monkeypatch.context() as patch, pytest.raises(Killed):
        Killer(patch, 26)
        prepare(str(folder), "photos", str(out), shard_mb=3e-3)
    made = out / "photos" / "1.0.0"
    _, *lines = (made / "prepared.jsonl").open()
    whole = [json.loads(line)["file"] for line in lines]
    assert len(whole) == 3
    with (made / "prepared.jsonl").open("a") as journal:
        journal.write('{"file": "photos-tr')
    kept = {name: (made / name).stat().st_mtime_ns for name in whole}
    assert snapshot(prepare(str(folder), "photos", str(out), shard_mb=3e-3)) == want
    assert kept == {name: (made / name).stat().st_mtime_ns for name in whole}


def test_sigkill_leaves_no_workers_and_the_same_command_continues(tmp_path):
    image = save(tmp_path / "in" / "0.png", 0, side=600)  # 1.08 MB: a shard of its own
    for i in range(1, 24):
        os.link(image, image.with_name(f"{i}.png"))
    command = [
        *(sys.executable, "-m", "snclr_jax.main", "prepare", "--workers=2"),
        *(f"--source={tmp_path / 'in'}", "--name=photos", "--shard_mb=1"),
    ]
    out = tmp_path / "out" / "photos" / "1.0.0"
    silent = {"stdout": subprocess.DEVNULL, "cwd": ROOT}
    process = subprocess.Popen([*command, f"--out={tmp_path / 'out'}"], **silent)
    while not list(out.glob("*-of-*")):
        assert process.poll() is None
        time.sleep(0.001)
    time.sleep(random.uniform(0, 0.1))
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "dataset_info.json").exists()
    deadline = time.monotonic() + 10
    while any(is_alive(int(child)) for child in children.split()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    subprocess.run([*command, f"--out={tmp_path / 'out'}"], check=True, **silent)
    want = prepare(str(tmp_path / "in"), "photos", str(tmp_path), shard_mb=1)
    assert snapshot(out) == snapshot(want)


def test_a_killed_worker_ends_the_others_and_is_named(tmp_path):
    file = save(tmp_path / "0.png", 0, side=600)
    images = [EncodedImage("0.png", str(file), 0, file.stat().st_size)] * 80
    others = set(multiprocessing.active_children())
    checked = read_checked(images, workers=2)
    next(checked)
    workers = set(multiprocessing.active_children()) - others
    os.kill(workers.pop().pid, signal.SIGKILL)
    with pytest.raises(ValueError, match="a worker process was killed.*--workers"):
        list(checked)
    assert not any(worker.is_alive() for worker in workers)


def is_alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rsplit(")", 1)[1].split()[0] != "Z"


def test_a_full_disk_is_named_and_the_run_continues(folder, tmp_path, no_pool):
    save(folder / "train" / "bee" / "large.png", 0, side=400)
    message = r"array_record-.*\.part cannot be written"
    with pytest.raises(OSError, match=message), full_disk(300_000):
        prepare(str(folder), "photos", str(tmp_path))
    assert_reads_nothing(tmp_path)
    assert_reads_as(folder, prepare(str(folder), "photos", str(tmp_path)), "test")


def test_every_file_that_a_full_disk_cuts_is_named(folder, tmp_path):
    source = open_source(str(folder))
    shards = plan_shards("photos", source.splits, 1e9)
    lines = [{"images": 1, "bytes": 1, "unreadable": [{"file": "a"}]} for _ in shards]
    writes = {
        "metadata.part": lambda: write_metadata(
            tmp_path, "photos", source, shards, lines
        ),
        "unreadable.jsonl": lambda: run._write_unreadable(tmp_path, source, lines),
        "prepared.jsonl": lambda: Journal(tmp_path, {}),
    }
    for name, write in writes.items():
        message = f"^{tmp_path / name} cannot be written .*too large"
        with pytest.raises(OSError, match=message), full_disk():
            write()
    journal = Journal(tmp_path, {})
    message = f"^{tmp_path / JOURNAL} cannot be written"
    with pytest.raises(OSError, match=message), full_disk(), closing(journal):
        journal.add({})
