"""A SLURM cluster of one node on this machine, and jobs of launch/slurm.sh on it."""

from __future__ import annotations

import os
import random
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

from launch_stand_ins import ROOT

PROGRAMS = ("munged", "mungekey", "slurmctld", "slurmd", "sbatch", "scontrol")
# A job that was queued again waits as long as credentials live, 120 s elsewhere.
CREDENTIAL_SECONDS = 10
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY")
CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthInfo=socket={folder}/munge.socket,cred_expire={credentials}
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
GresTypes=gpu
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
# JAX's port follows from it: two clusters on a machine need different ones.
FirstJobId={first_job}
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 Gres=gpu:2
PartitionName=low Nodes={host} Default=YES PriorityTier=1 GraceTime=120
PartitionName=high Nodes={host} PriorityTier=2
"""
GPUS = "NodeName={host} Name=gpu File={folder}/gpu[0-1]\n"
# Runs as `snclr`: a start waits before its batch HELD where the file `hold` exists, so
# that what is done to a job comes in the middle of it, however fast the machine is.
HELD = 12
SNCLR = f"""#!{sys.executable}
import time
from pathlib import Path
from snclr_jax.main import keep_compiled, os, run
keep_compiled(os.environ)
from snclr_jax.data.feed import Feed
batches, hold = iter(range(10**6)), Path(os.environ["HOLD"])
next_batch = Feed.next
def next_or_wait(*arguments, **steps):
    if next(batches) == {HELD}:
        Path(f"{{hold}}.reached").touch()
        while hold.exists():
            time.sleep(0.05)
    return next_batch(*arguments, **steps)
Feed.next = next_or_wait
run()
"""


def lacking() -> list[str]:
    """Returns the programs of SLURM that are not installed."""
    return [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]


def _path() -> str:
    return f"{os.environ['PATH']}:/usr/sbin:/sbin"


class Cluster:
    """munged, slurmctld and slurmd, all of whose files lie in a folder.

    Args:
      folder: short, as it holds a socket.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("state", "spool"):
            (folder / name).mkdir()
        for name in ("gpu0", "gpu1"):
            (folder / name).symlink_to("/dev/null")
        words = {
            "host": socket.gethostname().partition(".")[0],
            "user": subprocess.check_output(["id", "-un"], text=True).strip(),
            "folder": folder,
            "credentials": CREDENTIAL_SECONDS,
            "ports": _free_ports(2),
            "first_job": random.randint(1, 4000),
        }
        (folder / "slurm.conf").write_text(CONFIG.format(**words))
        (folder / "gres.conf").write_text(GPUS.format(**words))
        (folder / "snclr").write_text(SNCLR)
        (folder / "snclr").chmod(0o755)
        self.environment = os.environ | {
            "PATH": _path(),
            "SLURM_CONF": str(folder / "slurm.conf"),
            "SNCLR": str(folder / "snclr"),
            # The last of a flag counts.
            "XLA_FLAGS": os.environ["XLA_FLAGS"]
            + " --xla_force_host_platform_device_count=1",
        }
        self._services: list[subprocess.Popen] = []

    def start(self) -> None:
        """Starts the services; `end` is to follow, also where this fails."""
        munge = f"{self.folder}/munge"
        self.call("mungekey", "--create", f"--keyfile={munge}.key")
        files = ("socket", "key-file", "pid-file", "seed-file", "log-file")
        options = [f"--{name}={munge}.{name.partition('-')[0]}" for name in files]
        self._serve("munged", "--foreground", "--force", *options)
        self._wait_for(lambda: Path(f"{munge}.socket").exists())
        self._serve("slurmctld", "-D")
        self._serve("slurmd", "-D")
        self._wait_for(lambda: "idle" in self.call("sinfo", "-h", fails=True))

    def call(self, *command: str | Path, fails: bool = False) -> str:
        """Returns what a program says; where it `fails`, too."""
        done = subprocess.run(
            [str(word) for word in command],
            env=self.environment,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
        )
        assert fails or done.returncode == 0, done.stdout
        return done.stdout.strip()

    def end(self) -> None:
        """Cancels the jobs and ends the services; SLURM ends the tasks."""
        try:
            self.call("scancel", "--state=PENDING,RUNNING,SUSPENDED", fails=True)
            self._wait_for(lambda: not self.call("squeue", "-h", fails=True))
        finally:
            for service in reversed(self._services):
                service.terminate()
                service.wait(timeout=30)

    def _serve(self, *command: str) -> None:
        with open(self.folder / f"{command[0]}.log", "w") as log:
            service = subprocess.Popen(
                command, env=self.environment, stdout=log, stderr=log
            )
        self._services.append(service)

    def _wait_for(self, happens) -> None:
        end = time.monotonic() + 60
        while not happens():
            assert time.monotonic() < end, self._logs()
            time.sleep(0.2)

    def _logs(self) -> str:
        return "".join(log.read_text() for log in self.folder.glob("*.log"))


class Job:
    """A run of 2 tasks, submitted as launch/README.md says.

    Args:
      cluster: where.
      workdir: of the run.
      options: of sbatch.
      fields: flags of the run.
      held: whether its start waits until `let_go`.
    """

    def __init__(
        self,
        cluster: Cluster,
        workdir: Path,
        *options: str,
        fields: tuple[str, ...] = (),
        held: bool = False,
    ) -> None:
        self.cluster, self.workdir = cluster, workdir
        self._log, self._hold = (workdir.with_suffix(end) for end in (".log", ".hold"))
        if held:
            self._hold.touch()
        self.number = cluster.call(
            *("env", f"HOLD={self._hold}", "sbatch", "--parsable"),
            *("--gpus-per-node=2", "--ntasks-per-node=2", "--cpus-per-task=1"),
            *(f"--output={self._log}", *options, ROOT / "launch" / "slurm.sh"),
            *("--config=digits:debug", f"--workdir={workdir}"),
            # 31 steps.
            *("--config.data.holdback=1000", "--config.log.every_steps=1"),
            *("--config.checkpoint.every_steps=5", *fields),
        )

    @property
    def said(self) -> str:
        """What the script and the tasks of all starts say."""
        return self._log.read_text() if self._log.exists() else ""

    def field(self, name: str) -> str:
        """Returns what SLURM says of the job, such as its JobState."""
        shown = self.cluster.call("scontrol", "show", "job", "-o", self.number)
        (value,) = re.findall(rf"\b{name}=(\S+)", shown)
        return value

    def wait_until_held(self) -> None:
        """Returns when both tasks are in the middle of the run."""
        self.wait_for(lambda: Path(f"{self._hold}.reached").exists())

    def let_go(self) -> None:
        """Lets a held start go on, and those after it."""
        self._hold.unlink()

    def wait_for(self, happens, *, seconds: float = 300) -> None:
        """Returns when `happens()` is true."""
        end = time.monotonic() + seconds
        while True:
            state = self.field("JobState")
            if happens():
                return
            in_time = state not in ENDED and time.monotonic() < end
            assert in_time, f"{state}: {self.said}"
            time.sleep(0.2)

    def end(self, state: str) -> None:
        """Waits until the job ends, in this state."""
        self.wait_for(lambda: self.field("JobState") == state)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
