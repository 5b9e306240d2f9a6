"""What happens to real runs: kills, full disks, flipped bits, requests to stop."""

from __future__ import annotations

import contextlib
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from real_runs import STEPS, RealRun, assert_same_bits

from snclr_jax.run.checkpoint_reader import saved_steps
from snclr_jax.run.metrics import read_metrics

KILLS = 20
STOP_SECONDS = 30


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Final state and losses of a run of one process, by its number of devices."""
    folder = tmp_path_factory.mktemp("undisturbed")
    runs = {count: RealRun(folder / str(count), devices=count) for count in (1, 2)}
    return {
        count: (run.finish(), losses(folder / str(count)))
        for count, run in runs.items()
    }


def losses(workdir: Path) -> list[tuple[float, float]]:
    return [(e["step"], e["loss"]) for e in read_metrics(workdir) if "loss" in e]


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_run_that_is_killed_at_any_moment_ends_with_the_same_bits(
    tmp_path, undisturbed, processes
):
    draw = random.Random(processes)
    run = RealRun(tmp_path / "run", processes=processes)
    for number, step in enumerate(sorted(draw.choices(range(1, STEPS - 6), k=KILLS))):
        run.wait_for_step(step)
        if number % 2:
            run.wait_for_save()
        else:
            time.sleep(draw.uniform(0, 0.3))
        run.kill()
        run = RealRun(tmp_path / "run", processes=processes)
    state, expected_losses = undisturbed[processes]
    assert_same_bits(run.finish(), state)
    found = dict(losses(tmp_path / "run"))
    assert sorted(found) == [step for step, _ in losses(tmp_path / "run")]
    for step, loss in expected_losses:
        assert found.get(step, loss) == loss
    assert not (tmp_path / "run" / "damaged_checkpoints").exists()


@pytest.mark.slow
@pytest.mark.parametrize("asked", [0, 1])
def test_a_request_to_one_of_two_processes_stops_both_after_the_same_step(
    tmp_path, undisturbed, asked
):
    run = RealRun(tmp_path / "run", processes=2)
    run.wait_for_step(20)
    run.processes[asked].send_signal(signal.SIGTERM)
    started = time.monotonic()
    codes, said = run.end()
    assert time.monotonic() - started < STOP_SECONDS
    assert codes == [128 + signal.SIGTERM] * 2, said
    (step,) = re.findall(r"stopped by SIGTERM and saved step (\d+)", said)
    assert max(saved_steps(tmp_path / "run")) == int(step)
    # Nor does it matter that one process with both devices goes on.
    rest = {"processes": 2} if asked else {"devices": 2}
    state, expected_losses = undisturbed[2]
    assert_same_bits(RealRun(tmp_path / "run", **rest).finish(), state)
    found = dict(losses(tmp_path / "run"))
    assert all(found.get(step, loss) == loss for step, loss in expected_losses)


@pytest.mark.slow
def test_two_processes_end_like_one_and_keep_others_out(tmp_path, undisturbed):
    run = RealRun(tmp_path / "run", processes=2)
    run.wait_for_step(5)
    codes, said = RealRun(tmp_path / "run", processes=2).end()
    assert codes == [1, 1], said
    holder = f"in use by another run (process {run.processes[0].pid} on"
    assert said.count(holder) == 2  # every process says why it ends
    state, expected_losses = undisturbed[2]
    assert_same_bits(run.finish(), state)
    assert losses(tmp_path / "run") == expected_losses


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_flipped_bit_costs_the_steps_since_the_checkpoint_before(
    tmp_path, undisturbed, processes
):
    run = RealRun(tmp_path / "run", processes=processes)
    run.wait_for(lambda: len(saved_steps(tmp_path / "run")) > 1)
    run.kill()
    newest = max(saved_steps(tmp_path / "run"))
    before = min(saved_steps(tmp_path / "run"))
    folder = tmp_path / "run" / "checkpoints" / str(newest) / "state"
    files = [each for each in folder.rglob("*") if each.is_file()]
    file = max(files, key=lambda each: each.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    run = RealRun(tmp_path / "run", processes=processes)
    codes, said = run.end()
    assert set(codes) == {0}, said
    assert re.search(rf"checkpoints/{newest} .*damaged.*moved to", said)
    assert f"steps {before} to {STEPS}" in said
    with np.load(run.output) as arrays:
        assert_same_bits(dict(arrays), undisturbed[processes][0])


@pytest.mark.slow
def test_a_killed_run_of_one_process_goes_on_as_two(tmp_path, undisturbed):
    run = RealRun(tmp_path / "run", devices=2)
    run.wait_for_step(20)
    run.kill()
    state, _ = undisturbed[2]
    assert_same_bits(RealRun(tmp_path / "run", processes=2).finish(), state)


@pytest.mark.slow
@pytest.mark.parametrize("failing", [0, 1])
def test_where_one_process_cannot_save_all_of_them_end(
    tmp_path, undisturbed, monkeypatch, failing
):
    monkeypatch.setenv("SAVE_SECONDS", "20")
    workdir = tmp_path / "run"
    run = RealRun(workdir, processes=2)
    run.wait_for(lambda: bool(saved_steps(workdir)))
    saved = max(saved_steps(workdir))
    # Larger files cannot be written: as on a full disk, for this process alone.
    limits = (512, resource.RLIM_INFINITY)
    resource.prlimit(run.processes[failing].pid, resource.RLIMIT_FSIZE, limits)
    codes, said = run.end()
    # Without the first process, which they meet at, JAX aborts the others.
    assert 0 not in codes, said
    assert re.search("^snclr: .*too large", said, re.MULTILINE | re.IGNORECASE), said
    assert max(saved_steps(workdir)) == saved
    state, _ = undisturbed[2]
    assert_same_bits(RealRun(workdir, processes=2).finish(), state)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_to_the_whole_process_group_saves(tmp_path, rng, number):
    """As Ctrl-C and SLURM send it: to the workers that decode images, too."""
    (tmp_path / "images").mkdir()
    for index in range(64):
        # Large, so that the loop waits for the workers.
        pixels = rng.integers(0, 256, (900, 900, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{index}.jpg")
    fields = {
        "data.name": "folder",
        "data.path": tmp_path / "images",
        "data.resident": False,
        "data.num_workers": 2,
        "batch_size": 16,
        "epochs": 1000,
        "log.every_steps": 1,
    }
    workdir = tmp_path / "run"
    run = subprocess.Popen(
        [
            *(Path(sys.executable).with_name("snclr"), "train"),
            *("--config=configs/digits.py:debug", f"--workdir={workdir}"),
            *(f"--config.{field}={value}" for field, value in fields.items()),
        ],
        cwd=Path(__file__).parents[1],
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    while not any("loss" in line for line in read_metrics(workdir)):
        assert run.poll() is None, run.communicate()[0]
        time.sleep(0.1)
    time.sleep(rng.uniform(0.0, 1.0))
    os.killpg(run.pid, number)
    said, _ = run.communicate(timeout=30)
    assert run.returncode == 128 + number, said
    assert "the same command continues from there" in said
    assert saved_steps(workdir)


@pytest.fixture
def small_disk(tmp_path):
    """A folder with room for a few checkpoints; needs the right to mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder]
    if shutil.which("mount") is None or subprocess.run(mount).returncode != 0:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.slow
def test_a_full_disk_ends_the_run_with_one_message_until_there_is_room(
    small_disk, tmp_path, undisturbed
):
    workdir = small_disk / "run"
    run = RealRun(workdir)
    run.wait_for(lambda: bool(saved_steps(workdir)))
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    codes, said = run.end()
    assert codes == [1], said
    (message,) = re.findall("^snclr: .*", said, re.MULTILINE)
    assert "cannot be written" in message and "No space" in message, said
    assert saved_steps(workdir)
    filler.unlink()
    assert_same_bits(RealRun(workdir).finish(), undisturbed[1][0])


@pytest.mark.slow
def test_a_read_only_workdir_is_refused_until_it_can_be_written(
    small_disk, undisturbed
):
    def remount(how: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{how}", small_disk], check=True)

    workdir = small_disk / "run"
    run = RealRun(workdir)
    run.wait_for(lambda: bool(saved_steps(workdir)))
    run.kill()
    remount("ro")
    before = read_metrics(workdir)
    codes, said = RealRun(workdir).end()
    assert codes == [1], said
    (message,) = re.findall("^snclr: .*", said, re.MULTILINE)
    assert "cannot be written to" in message and "Read-only" in message, said
    assert read_metrics(workdir) == before
    remount("rw")
    assert_same_bits(RealRun(workdir).finish(), undisturbed[1][0])
