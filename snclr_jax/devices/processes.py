"""One process of many: where `jax.distributed` is started, and what all are told."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

# JAX's own are 100 and 300: the rest of a run is to stop within a minute of a loss.
HEARTBEAT_SECONDS = 30
SHUTDOWN_SECONDS = 30
# At its own limit XLA aborts the process, with a stack trace for a message.
START_SECONDS = 300
XLA_START_SECONDS = START_SECONDS + 60
GOOGLE = b"0x1ae0"
# PCI classes of what Google's virtual machines have besides TPUs.
STORAGE_OR_NETWORK = (b"0x01", b"0x02")
# What others raise for an error of one process. Of several, the first kind counts: what
# is refused, or is a fault, does not pass where another error does.
KINDS = (ValueError, RuntimeError, OSError)


@dataclasses.dataclass(frozen=True)
class Plan:
    """How a process joins the others.

    Attributes:
      reason: what decided it, in words; empty where nothing is to be said.
      arguments: of `jax.distributed.initialize`; None for a process on its own.
    """

    reason: str = ""
    arguments: dict[str, Any] | None = None


def start(
    *,
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
) -> None:
    """Makes this process one of many where it is; call it before a device is touched.

    Args:
      coordinator: HOST:PORT at which process 0 listens; with the other two, or none.
      processes: number of processes.
      process: this one, from 0.

    Ends the process, with a message, where the others do not come within
    `START_SECONDS`: the call that waits for them cannot be left.

    Raises:
      ValueError: where the arguments or what surrounds the process contradict.
      ConnectionError: where the processes do not find each other.
      OSError: where this is process 0, and another program listens at its port.
    """
    plan = make_plan(
        os.environ,
        on_tpu=has_tpu(),
        coordinator=coordinator,
        processes=processes,
        process=process,
    )
    if plan.arguments is None:
        if plan.reason:
            print(plan.reason)
        return
    if plan.arguments.get("process_id") == 0:
        _try_port(plan.arguments["coordinator_address"])
    # Its handler swallows the SIGTERM that comes before the loop has its own.
    jax.config.update("jax_enable_preemption_service", False)
    limit = threading.Timer(START_SECONDS, _end, [_unmet(plan)])
    limit.daemon = True
    limit.start()
    try:
        jax.distributed.initialize(
            **plan.arguments,
            initialization_timeout=XLA_START_SECONDS,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=SHUTDOWN_SECONDS,
        )
    except jax.errors.JaxRuntimeError as error:
        raise ConnectionError(f"{_unmet(plan)}. JAX says: {error}") from error
    finally:
        limit.cancel()
    if jax.process_count() > 1 and jax.default_backend() == "cpu":
        # A program that one process reads and another compiles has its collectives in
        # another order, and XLA aborts (jax 0.10.2).
        jax.config.update("jax_enable_compilation_cache", False)
    if jax.process_index() == 0:
        print(f"{jax.process_count()} processes, by {plan.reason}", flush=True)


def _try_port(coordinator: str) -> None:
    """Listens for a moment where JAX is about to; in vain, it ends in a segfault."""
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    address = ("", int(coordinator.rpartition(":")[2]))
    try:
        socket.create_server(address, family=family, dualstack_ipv6=both).close()
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise OSError(
            f"--coordinator={coordinator}: process 0 cannot listen at that port "
            f"({why}); wait for the program that has it, or use another port"
        ) from error


def _unmet(plan: Plan) -> str:
    return (
        f"the processes ({plan.reason}) did not find each other: start all of them "
        f"within {START_SECONDS // 60} minutes, with a port that is free and open"
    )


def _end(message: str) -> None:
    print(f"snclr: {message}", file=sys.stderr, flush=True)
    os._exit(os.EX_TEMPFAIL)


def make_plan(
    environment: Mapping[str, str],
    *,
    on_tpu: bool,
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
) -> Plan:
    """Returns how to join: by flags, else by Cloud TPU, else by SLURM, else not.

    Args:
      environment: variables of the process.
      on_tpu: whether the machine has TPU chips.
      coordinator, processes, process: as in `start`.

    Raises:
      ValueError: as in `start`.
    """
    flags = {
        "--coordinator": coordinator,
        "--processes": processes,
        "--process": process,
    }
    missing = [name for name, value in flags.items() if value is None]
    if coordinator is not None and processes is not None and process is not None:
        return _by_flags(coordinator, processes, process)
    if len(missing) < len(flags):
        raise ValueError(
            f"{' and '.join(missing)} must be given too: --coordinator=HOST:PORT, "
            "--processes=N and --process=0 to N-1 go together"
        )
    if on_tpu and "tpu" in (environment.get("JAX_PLATFORMS") or "tpu"):
        return Plan("Cloud TPU", {})
    return _by_launcher(environment)


def _by_flags(coordinator: str, processes: int, process: int) -> Plan:
    found = re.fullmatch(r".+:(\d+)", coordinator)
    if not found or not 0 < int(found[1]) < 2**16:
        raise ValueError(
            f"--coordinator={coordinator} is not HOST:PORT, such as 10.0.0.2:8476"
        )
    if not 0 <= process < processes:
        raise ValueError(
            f"--process={process} is not one of --processes={processes}; use 0 to "
            f"{processes - 1}"
        )
    return Plan(
        f"flags, with process 0 at {coordinator}",
        {
            "coordinator_address": coordinator,
            "num_processes": processes,
            "process_id": process,
            # SLURM around it would choose this process's devices.
            "cluster_detection_method": "deactivate",
        },
    )


def _by_launcher(environment: Mapping[str, str]) -> Plan:
    # Of the step: a shell of salloc has its job's number of tasks, and is one process.
    tasks = _count(environment, "SLURM_STEP_NUM_TASKS")
    if tasks > 1:
        found = {"cluster_detection_method": "slurm", "num_processes": tasks}
        return Plan("SLURM", found)
    allotted = _count(environment, "SLURM_NTASKS")
    if allotted > 1:
        return Plan(
            f"1 process: SLURM has {allotted} tasks, but srun did not start this as "
            "one of them"
        )
    ranks = _count(environment, "OMPI_COMM_WORLD_SIZE")
    if ranks > 1:
        raise ValueError(
            f"mpirun started {ranks} processes that would not know of each other; give "
            f"each --coordinator=HOST:PORT --processes={ranks} "
            "--process=$OMPI_COMM_WORLD_RANK"
        )
    return Plan()


def _count(environment: Mapping[str, str], name: str) -> int:
    """Returns a number of processes; 1 where the variable is not set, or empty."""
    text = environment.get(name) or "1"
    if not text.isdecimal():
        raise ValueError(
            f"{name}={text} is no number of processes; unset it, or say it with "
            "--coordinator, --processes and --process"
        )
    return int(text)


def from_first(compute: Callable[[], Any]) -> Any:
    """Returns what process 0 computes, on every process.

    Files of a run are read there: another machine may see them later, or never.

    Args:
      compute: called on process 0; returns what JSON can hold.

    Raises:
      ValueError, OSError, RuntimeError: on every other process, where process 0 raises
        the first, the second or anything else, with its message.
    """
    if jax.process_count() == 1:
        return compute()
    answer: dict[str, Any] = {}
    failed = None
    if jax.process_index() == 0:
        try:
            answer["value"] = compute()
        except Exception as error:
            failed, answer = error, told(error)
    text = np.frombuffer(json.dumps(answer).encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(text.size)))
    text = multihost_utils.broadcast_one_to_all(np.resize(text, size))
    if failed:
        raise failed
    answer = json.loads(text.tobytes())
    if "error" in answer:
        raise KINDS[answer["kind"]](answer["error"])
    return answer["value"]


def told(error: Exception) -> dict[str, Any]:
    """Returns what the others hear of an error: its message, and which of `KINDS`."""
    for kind in (ValueError, OSError):
        if isinstance(error, kind):
            return {"error": str(error), "kind": KINDS.index(kind)}
    # The first line of XLA's errors says what is wrong.
    said = f"{type(error).__name__}: {error}".partition("\n")[0]
    return {"error": said, "kind": KINDS.index(RuntimeError)}


def from_all(value: Any) -> list[Any]:
    """Returns what every process passes, in their order, on every process.

    Args:
      value: what JSON can hold; where it takes long to compute, let `in_agreement` wait
        for it, and for its errors.
    """
    if jax.process_count() == 1:
        return [value]
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.int32(text.size))
    # A program is compiled for each length: few lengths.
    longest = 1 << int(np.max(sizes) - 1).bit_length()
    padded = np.pad(text, (0, longest - text.size))
    texts = multihost_utils.process_allgather(padded)
    return [
        json.loads(text[:size].tobytes())
        for text, size in zip(texts, sizes, strict=True)
    ]


def has_tpu(devices: Path = Path("/sys/bus/pci/devices")) -> bool:
    """Whether TPU chips are on this machine's PCI bus; asks no runtime for them."""
    return any(
        (device / "vendor").read_bytes().strip() == GOOGLE
        and not (device / "class").read_bytes().startswith(STORAGE_OR_NETWORK)
        for device in devices.glob("*")
    )
