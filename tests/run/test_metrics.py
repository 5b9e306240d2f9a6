"""Metrics: every step once, means over an interval, and numbers only."""

from __future__ import annotations

import contextlib
import os
import sys
import time

import jax.numpy as jnp
import pytest
from etils import epath
from full_disk import full_disk

from snclr_jax.objectives.snclr import SNCLR
from snclr_jax.run.metrics import (
    METRICS_FILE,
    Clock,
    MetricWriter,
    NonFiniteError,
    PendingMetrics,
    Progress,
    read_metrics,
    say,
)


def metrics(loss, **others):
    values = {"loss": loss, "gradient_norm": 1.0, "parameter_norm": 1.0} | others
    return {name: jnp.float32(value) for name, value in values.items()}


def test_an_interval_is_averaged_and_taken_once():
    pending = PendingMetrics()
    assert pending.take() is None
    for step in (1, 2, 3):
        pending.add(step, metrics(float(step)))
    step, count, means = pending.take()
    assert (step, count, means["loss"]) == (3, 3, 2.0)
    assert pending.take() is None


@pytest.mark.parametrize("name", ["loss", "gradient_norm", "parameter_norm"])
def test_the_first_step_that_is_no_number_is_named(name):
    pending = PendingMetrics()
    pending.add(7, metrics(1.0))
    pending.add(8, metrics(1.0) | {name: jnp.float32("nan")})
    pending.add(9, metrics(1.0) | {name: jnp.float32("inf")})
    with pytest.raises(NonFiniteError, match=f"step 8 is not finite.*{name} nan"):
        pending.take()


def test_a_continued_run_writes_every_step_once(tmp_path):
    writer = MetricWriter(tmp_path, first_step=0, to=["tensorboard"])
    for step in (0, 10, 20, 30):
        writer.write(step, {"loss": float(step)})
    writer.close()
    with (tmp_path / METRICS_FILE).open("a") as file:
        file.write('{"step": 40, "lo')  # killed while it wrote
    writer = MetricWriter(tmp_path, first_step=20, to=())
    writer.write(30, {"loss": -1.0})
    writer.close()
    lines = [(line["step"], line["loss"]) for line in read_metrics(tmp_path)]
    assert lines == [(0, 0.0), (10, 10.0), (20, 20.0), (30, -1.0)]
    assert any((tmp_path / "tensorboard").iterdir())


def test_what_was_written_stays_where_a_continuation_cannot_be_written(
    tmp_path, monkeypatch
):
    writer = MetricWriter(tmp_path, first_step=0, to=())
    writer.write(1, {"loss": 1.0})
    writer.close()

    def fail(path, text, encoding):
        raise OSError("no space left")

    monkeypatch.setattr(epath.Path, "write_text", fail)
    with pytest.raises(OSError, match="no space left"):
        MetricWriter(tmp_path, first_step=1, to=())
    assert read_metrics(tmp_path) == [{"step": 1, "loss": 1.0}]


def test_the_file_that_a_full_disk_cuts_off_is_named_and_goes_on_whole(tmp_path):
    path = tmp_path / METRICS_FILE
    writer = MetricWriter(tmp_path, first_step=0, to=())
    writer.write(1, {"loss": 1.0})
    full = full_disk(path.stat().st_size + 9)
    message = f"^{path} cannot be written .*; free"
    with pytest.raises(OSError, match=message), full, contextlib.closing(writer):
        writer.write(2, {"loss": 2.0})
    with contextlib.closing(MetricWriter(tmp_path, first_step=1, to=())) as writer:
        writer.write(2, {"loss": 2.0})
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2]


@pytest.mark.parametrize("damage", [b"\0\0\0\n", b'{"st\n', b"\xff\n", b"7\n"])
def test_a_damaged_line_is_passed_over_and_not_kept(tmp_path, damage):
    whole = b'{"step": 1, "loss": 1.0}\n'
    (tmp_path / METRICS_FILE).write_bytes(damage + whole)
    with pytest.warns(UserWarning, match="metrics.jsonl: 1 damaged lines"):
        MetricWriter(tmp_path, first_step=1, to=()).close()
    assert (tmp_path / METRICS_FILE).read_bytes() == whole


def test_the_clock_counts_laps_and_waiting_across_restarts():
    clock = Clock(**Clock(train_seconds=5.0, images=100, waited=2.0).totals())
    clock.start()
    time.sleep(0.05)
    seconds = clock.lap(images=32, waited=0.03)
    assert 0.05 <= seconds < 5
    time.sleep(0.3)
    clock.start()  # what came before, such as an evaluation, does not count
    assert clock.lap(images=8, waited=0.0) < 0.25
    totals = clock.totals()
    assert totals["images"] == 140 and totals["waited"] == pytest.approx(2.03)
    assert totals["train_seconds"] == pytest.approx(5 + seconds, abs=0.25)
    # Checkpoints from before waiting was measured.
    assert Clock(train_seconds=5.0, images=100).waited == 0.0


def test_progress_shows_the_share_of_waiting(capsys):
    progress = Progress(10, 0, shown=())
    progress.show(5, {"loss": 1.0, "images_per_second": 80.0, "data_wait": 0.034})
    progress.show(6, {"loss": 1.0, "images_per_second": 80.0})
    progress.close()
    printed = capsys.readouterr().out
    assert "step 5: loss 1.000, images/s 80, waiting for data 3%\n" in printed
    assert "step 6: loss 1.000, images/s 80\n" in printed


def test_progress_names_what_a_newcomer_has_to_read(capsys):
    names = [metric for _, metric, *_ in (*SNCLR.shown, *Progress.SHOWN)]
    progress = Progress(10, 0, shown=SNCLR.shown)
    progress.show(5, dict.fromkeys(["loss", *names], 0.25))
    progress.close()
    assert capsys.readouterr().out == (
        "step 5: loss 0.250, positiveness entropy 0.25, neighbor similarity 0.25, "
        "neighbor age 0, neighbors of own class 25%, search recall 0.250, "
        "online probe % 0.2, feature std 0.25, gradient norm 0.25, "
        "learning rate 0.25, images/s 0, waiting for data 25%\n"
    )


def test_a_run_goes_on_where_nobody_can_read_what_it_says(monkeypatch):
    """As after a terminal was closed: the state is yet to be saved."""
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as closed:
        monkeypatch.setattr(sys, "stdout", closed)
        say("into nowhere")
        say("and again")
