"""How a process finds the others: decided from what surrounds it, and tried once."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest
from jax.experimental import multihost_utils

from snclr_jax.devices import processes
from snclr_jax.devices.processes import Plan, from_first, has_tpu, make_plan, start

TASK = {"SLURM_NTASKS": "8", "SLURM_STEP_NUM_TASKS": "8"}
# Of a shell that salloc starts on a node: a step of one task in a job of many.
SHELL = {"SLURM_NTASKS": "8", "SLURM_STEP_NUM_TASKS": "1"}
FLAGS = {"coordinator": "10.0.0.2:8476", "processes": 4, "process": 3}


@pytest.mark.parametrize(
    "environment",
    [{}, {"SLURM_NTASKS": "1"}, {"SLURM_NTASKS": ""}, {"OMPI_COMM_WORLD_SIZE": ""}],
)
def test_a_process_on_its_own_stays_so(environment):
    assert make_plan(environment, on_tpu=False) == Plan("", None)


def test_flags_come_first_and_are_taken_as_they_are():
    plan = make_plan(TASK, on_tpu=True, **FLAGS)
    assert plan.arguments == {
        "coordinator_address": "10.0.0.2:8476",
        "num_processes": 4,
        "process_id": 3,
        "cluster_detection_method": "deactivate",
    }


@pytest.mark.parametrize("platforms", [None, "", "tpu", "tpu,cpu"])
def test_jax_finds_the_others_of_a_cloud_tpu(platforms):
    environment = {} if platforms is None else {"JAX_PLATFORMS": platforms}
    assert make_plan(environment | TASK, on_tpu=True) == Plan("Cloud TPU", {})


def test_a_tpu_that_is_not_used_does_not_count():
    assert make_plan({"JAX_PLATFORMS": "cpu"}, on_tpu=True).arguments is None


def test_slurm_counts_where_srun_started_the_process():
    detected = {"cluster_detection_method": "slurm", "num_processes": 8}
    assert make_plan(TASK, on_tpu=False) == Plan("SLURM", detected)
    # The step says how many there are, not the job around it.
    few = make_plan(TASK | {"SLURM_STEP_NUM_TASKS": "2"}, on_tpu=False)
    assert few.arguments == detected | {"num_processes": 2}


@pytest.mark.parametrize("environment", [SHELL, {"SLURM_NTASKS": "8"}])
def test_a_shell_in_a_slurm_job_is_one_process(environment):
    alone = make_plan(environment, on_tpu=False)
    assert alone.arguments is None
    assert "8 tasks, but srun did not start this" in alone.reason


def test_a_number_of_processes_that_is_none_is_named():
    with pytest.raises(ValueError, match="SLURM_NTASKS=4x is no number of processes"):
        make_plan({"SLURM_NTASKS": "4x"}, on_tpu=False)


def test_mpirun_is_told_which_flags_to_give():
    with pytest.raises(ValueError, match=r"--processes=4 --process=\$OMPI_COMM"):
        make_plan({"OMPI_COMM_WORLD_SIZE": "4"}, on_tpu=False)


@pytest.mark.parametrize(
    "flags, message",
    [
        ({"process": 0}, "--coordinator and --processes must be given too"),
        ({"coordinator": "a:1", "processes": 2}, "^--process must be given too"),
        (FLAGS | {"process": 4}, "--process=4 is not one of --processes=4; use 0 to 3"),
        (FLAGS | {"process": -1}, "--process=-1 is not one of"),
        (FLAGS | {"coordinator": "10.0.0.2"}, "10.0.0.2 is not HOST:PORT"),
        (FLAGS | {"coordinator": "10.0.0.2:70000"}, "10.0.0.2:70000 is not HOST:PORT"),
    ],
)
def test_flags_that_cannot_be_are_refused_before_anything_starts(flags, message):
    with pytest.raises(ValueError, match=message):
        start(**flags)


@pytest.mark.parametrize("alone", [True, False])
def test_one_that_waits_in_vain_says_so_before_xla_aborts_it(
    monkeypatch, capsys, alone
):
    codes, given = [], {}

    def initialize(**arguments):
        given.update(arguments)
        end = time.monotonic() + 30
        while alone and not codes and time.monotonic() < end:
            time.sleep(0.01)

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    monkeypatch.setattr(jax.config, "update", lambda name, value: None)
    monkeypatch.setattr(os, "_exit", codes.append)
    monkeypatch.setattr(processes, "START_SECONDS", 0.2)
    start(**FLAGS)
    time.sleep(0 if alone else 0.4)
    assert codes == ([os.EX_TEMPFAIL] if alone else [])
    assert given["initialization_timeout"] > 300
    said = "snclr: the processes (flags, with process 0 at 10.0.0.2:8476) did not find"
    assert capsys.readouterr().err.startswith(said if alone else "")


def test_a_port_that_another_program_has_is_named(monkeypatch):
    """JAX's own service ends in a segmentation fault then (jax 0.10.2)."""
    monkeypatch.setattr(jax.distributed, "initialize", lambda **_: pytest.fail("began"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        coordinator = f"127.0.0.1:{taken.getsockname()[1]}"
        message = f"^--coordinator={coordinator}: .*Address already in use.; wait"
        with pytest.raises(OSError, match=message):
            start(coordinator=coordinator, processes=2, process=0)


def test_a_chip_of_google_is_a_tpu_and_its_disks_and_networks_are_not(tmp_path):
    def add(name: str, vendor: str, kind: str) -> None:
        (tmp_path / name).mkdir()
        (tmp_path / name / "vendor").write_text(vendor + "\n")
        (tmp_path / name / "class").write_text(kind + "\n")

    assert not has_tpu(tmp_path / "none")
    add("network", "0x1ae0", "0x020000")
    add("disk", "0x1ae0", "0x010802")
    add("gpu", "0x10de", "0x030200")
    assert not has_tpu(tmp_path)
    add("tpu", "0x1ae0", "0x120000")
    assert has_tpu(tmp_path)


# Into a file: Gloo writes to stdout too, from several threads and in pieces.
JOIN = """
import sys
_, coordinator, process, file, *on = sys.argv
sys.stdout = open(file, "w", buffering=1)
from snclr_jax.devices.processes import start
start(coordinator=coordinator, processes=2, process=int(process))
from snclr_jax.devices.agreement import in_agreement
print(in_agreement(lambda: "alike", lambda _: {"images": {"train": "7"}}))
try:
    in_agreement(lambda: None, lambda _: {"images": {"train": process}})
except ValueError as error:
    print(error)
import jax
from jax.experimental.multihost_utils import process_allgather
print(jax.process_count(), process_allgather(jax.numpy.array(jax.process_index())))
while on:
    process_allgather(jax.numpy.array(0))
"""


def join(process: int, port: int, file: Path, *on: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", JOIN, f"127.0.0.1:{port}", str(process), file, *on],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture
def port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture
def said(tmp_path):
    """The files of what two processes say."""
    return [tmp_path / f"{index}.txt" for index in range(2)]


def test_two_processes_find_each_other_and_compare_what_they_have(port, said):
    processes = [join(index, port, said[index]) for index in range(2)]
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    first = f"2 processes, by flags, with process 0 at 127.0.0.1:{port}\n"
    both = (
        "alike\nthe processes differ: images.train is '0' in process 0 and '1' in "
        "process 1. Start all of them with the same command, code, packages, images "
        "and files of the run\n2 [0 1]\n"
    )
    assert [file.read_text() for file in said] == [first + both, both]


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_one_that_loses_its_peer_ends_within_a_minute(port, said, lost):
    processes = [join(index, port, said[index], "on") for index in range(2)]
    try:
        while not all(file.exists() and "[0 1]" in file.read_text() for file in said):
            assert all(process.poll() is None for process in processes)
            time.sleep(0.1)
        processes[lost].kill()
        processes[1 - lost].communicate(timeout=60)
        assert processes[1 - lost].returncode != 0
    finally:
        for process in processes:
            process.kill()
            process.wait()


@pytest.mark.parametrize(
    "error, heard, words",
    [
        (FileNotFoundError, OSError, "it is not there"),
        (OSError, OSError, "it is not there"),
        (ValueError, ValueError, "it is not there"),
        (AttributeError, RuntimeError, "AttributeError: it is not there"),
    ],
)
def test_what_the_first_process_cannot_do_ends_the_others_as_it_may_pass(
    monkeypatch, error, heard, words
):
    """Its own error stays what it is, which its exit status says."""
    said = []

    def broadcast(array):
        said.append(array)
        return array

    def fail():
        raise error("it is not there")

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(multihost_utils, "broadcast_one_to_all", broadcast)
    with pytest.raises(error, match="^it is not there"):
        from_first(fail)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    answers = iter(said)
    monkeypatch.setattr(
        multihost_utils, "broadcast_one_to_all", lambda _: next(answers)
    )
    with pytest.raises(heard, match=f"^{words}") as other:
        from_first(fail)
    assert other.type is heard
