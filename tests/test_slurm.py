"""launch/slurm.sh on a cluster of one node: whatever ends a job, the same bits."""

from __future__ import annotations

import os
import re
import signal
import socket
from pathlib import Path

import pytest
from slurm_cluster import Cluster, Job, lacking

from snclr_jax.run.checkpoint_reader import find_checkpoint, read_json, saved_steps

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(bool(lacking()), reason=f"not installed: {lacking()}"),
]
LAST = 31
HEARD = "SIGTERM: the run saves and stops"
SAVED = re.compile(r"stopped by SIGTERM and saved step (\d+)")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    cluster = Cluster(tmp_path_factory.mktemp("slurm"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.end()


@pytest.fixture(scope="module")
def undisturbed(cluster):
    """The bits of a job that nothing happens to."""
    job = Job(cluster, cluster.folder / "undisturbed")
    job.end("COMPLETED")
    assert "2 processes, by SLURM" in job.said and "slurm.sh" not in job.said
    return bits(job)


@pytest.fixture
def held(cluster, tmp_path):
    """A job in the middle of its run."""
    job = Job(cluster, tmp_path / "run", "--time=60", held=True)
    job.wait_until_held()
    yield job
    cluster.call("scancel", job.number, fails=True)


def bits(job: Job) -> dict[str, str]:
    assert max(saved_steps(job.workdir)) == LAST
    found = read_json(find_checkpoint(job.workdir), "digest")
    del found["clock"]  # no two runs take the same time
    return found


def stop_heard(job: Job) -> None:
    job.wait_for(lambda: HEARD in job.said)
    job.let_go()


def tasks(job: Job) -> list[int]:
    """The processes of a job's tasks, in their order."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "environ").read_bytes().decode().split("\0")
            command = (process / "cmdline").read_text()
        except OSError:
            continue
        if f"SLURM_JOB_ID={job.number}" in words and "\0train\0" in command:
            (rank,) = (w for w in words if w.startswith("SLURM_PROCID=")) or ("",)
            found[rank] = int(process.name)
    return [found[rank] for rank in sorted(found)]


def assert_went_on(job: Job, undisturbed: dict[str, str], *, restarts: int = 1) -> int:
    """Asserts that a job completes with the same bits; returns where it continued."""
    job.end("COMPLETED")
    assert job.field("Restarts") == str(restarts), job.said
    starts = [int(step) for step in re.findall(rf"steps (\d+) to {LAST} on", job.said)]
    assert starts[0] == 0 < starts[-1], job.said
    assert bits(job) == undisturbed
    return starts[-1]


def test_a_refused_job_is_not_started_again(cluster, tmp_path):
    job = Job(cluster, tmp_path / "run", fields=("--config.epochs=-1",))
    job.end("FAILED")
    assert job.field("ExitCode") == "2:0" and job.field("Restarts") == "0"
    assert (
        "snclr: epochs -1 must be at least 1" in job.said and "slurm.sh" not in job.said
    )


def test_a_preempted_job_saves_and_goes_on(cluster, undisturbed, held):
    cluster.call("sbatch", "-phigh", "-n2", "-o/dev/null", "--wrap=sleep 1")
    stop_heard(held)
    start = assert_went_on(held, undisturbed)
    assert SAVED.findall(held.said) == [str(start)]
    assert "slurm.sh: stopped by SIGTERM; job" in held.said


def test_a_job_that_is_queued_again_by_hand_saves_and_goes_on(
    cluster, undisturbed, held
):
    cluster.call("scontrol", "requeue", held.number)
    stop_heard(held)
    start = assert_went_on(held, undisturbed)
    assert SAVED.findall(held.said) == [str(start)]
    assert "slurm.sh: stopped" not in held.said  # SLURM does it


def test_a_job_whose_time_is_up_saves_and_goes_on(cluster, undisturbed, held):
    _, minutes, _ = held.field("RunTime").split(":")
    limit = f"TimeLimit={int(minutes) + 3}"  # the script hears of it two minutes before
    cluster.call("scontrol", "update", f"JobId={held.number}", limit)
    stop_heard(held)
    start = assert_went_on(held, undisturbed)
    assert SAVED.findall(held.said) == [str(start)]


def test_a_cancelled_job_saves_and_the_same_command_continues(
    cluster, undisturbed, held
):
    cluster.call("scancel", held.number)
    stop_heard(held)
    held.end("CANCELLED")
    assert SAVED.findall(held.said) and "slurm.sh: stopped" not in held.said
    again = Job(cluster, held.workdir)
    again.end("COMPLETED")
    assert bits(again) == undisturbed


def test_a_killed_task_and_a_start_that_fails_are_tried_again(undisturbed, held):
    """JAX's port is taken when the job starts again."""
    port = int(held.number) % 2**12 + 2**16 - 2**12
    _, second = tasks(held)
    os.kill(second, signal.SIGKILL)
    held.let_go()
    held.wait_for(lambda: "slurm.sh: ended with 137; job" in held.said)
    with socket.create_server(("", port)):
        held.wait_for(lambda: held.said.count("goes back into the queue") == 2)
    start = assert_went_on(held, undisturbed, restarts=2)
    assert start == 10 and not SAVED.search(held.said)
