"""The folder of a run: it belongs to one config, and to one run at a time."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import IO, Any

import ml_collections
from etils import epath

from snclr_jax.devices.processes import from_first
from snclr_jax.run.checkpoint_reader import saved_steps
from snclr_jax.run.files import (
    CHECKPOINTS,
    CONFIG_FILE,
    DATA_FILE,
    SHOWN_FILE,
    write_whole,
)
from snclr_jax.settings.objective import objective_class

LOCK_FILE = "lock"
FOUND = "data.found"  # which images: what a config cannot say
# What may change between a run and its continuation: it does not enter the training
# step.
FREE_SECTIONS = ("log", "checkpoint", "evaluate", "data.max_bad", "data.num_workers")
# What says which arrays the networks and the optimizer have.
FIXED = ("model", "optim.name", "objective.name")
# What a change means beyond the new value from that step on.
MEANING = {
    "batch_size": "an epoch has another number of steps, and schedules and order of "
    "the images go on as if all steps so far had been of this batch size",
    "epochs": "the schedules go on as those of this length",
    "seed": "order and augmentation of the images go on as those of this seed",
    "data": "the order of the images goes on as that of these data",
}


@contextlib.contextmanager
def own_workdir(
    config: ml_collections.ConfigDict,
    workdir: epath.PathLike,
    *,
    identity: Mapping[str, str] = MappingProxyType({}),
    allow: Sequence[str] = (),
) -> Iterator[list[str]]:
    """Keeps a workdir for this run, which process 0 checks; `record_run` is to follow.

    A second run in the same folder is refused, on any machine that shares it. The
    kernel lets go of the lock however the process ends. An object store (gs://) has no
    such lock.

    Args:
      config: the run's.
      workdir: the run's folder.
      identity, allow: as in `check_workdir`.

    Yields:
      What the changes mean, one sentence each.

    Raises:
      ValueError: on every process, where the workdir is another run's, or cannot be
        written to.
    """
    with contextlib.ExitStack() as held:

        def claim() -> list[str]:
            try:
                if str(workdir).startswith("gs://"):
                    _look_up_bucket(workdir)
                elif "://" not in str(workdir):
                    held.enter_context(_lock(workdir))
                return check_workdir(config, workdir, identity=identity, allow=allow)
            except OSError as error:
                raise _not_writable(workdir, error) from error

        yield from_first(claim)


def record_run(
    config: ml_collections.ConfigDict,
    workdir: epath.PathLike,
    identity: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Writes the config, what is shown of a run, and its images; process 0 does.

    Only where nothing has refused the run: from here on the workdir belongs to it.

    Args:
      config, workdir, identity: as in `check_workdir`.

    Raises:
      ValueError: on every process, where the workdir cannot be written to.
    """
    shown = objective_class(config.objective.name).shown
    contents = {
        # `snclr watch` reads it, which imports no JAX, and so no objective.
        SHOWN_FILE: [
            (label, metric, form) for label, metric, form, watched in shown if watched
        ],
        DATA_FILE: dict(identity),
        CONFIG_FILE: as_json(config),
    }

    def write() -> None:
        folder = epath.Path(workdir)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, content in contents.items():
                write_whole(folder / name, json.dumps(content, indent=2))
        except OSError as error:
            raise _not_writable(workdir, error) from error

    from_first(write)


def _not_writable(workdir: epath.PathLike, error: OSError) -> ValueError:
    return ValueError(
        f"--workdir={workdir} cannot be written to: {error}; change that, or use "
        "another --workdir"
    )


def _look_up_bucket(workdir: epath.PathLike) -> None:
    """Fails where Orbax would, but not hours later, when a checkpoint is deleted."""
    from google.cloud import storage  # comes with gcsfs, which no other workdir needs

    bucket = urllib.parse.urlsplit(str(workdir)).netloc
    try:
        storage.Client().get_bucket(bucket)
    except Exception as error:  # Google's have no kind in common
        raise ValueError(
            f"--workdir={workdir}: bucket {bucket} cannot be looked up: {error}; it "
            "must exist, and give this account roles/storage.objectAdmin and "
            "roles/storage.legacyBucketReader"
        ) from error


def _lock(workdir: epath.PathLike) -> IO[str]:
    """Returns the open file that locks a folder until it is closed."""
    path = epath.Path(workdir) / LOCK_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    file = open(path, "a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        holder = file.read()
        file.close()
        raise ValueError(
            f"{workdir} is in use by another run ({holder}); wait for it, stop it, or "
            "use another --workdir"
        ) from error
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}")
    file.flush()
    return file


def check_workdir(
    config: ml_collections.ConfigDict,
    workdir: epath.PathLike,
    *,
    identity: Mapping[str, str] = MappingProxyType({}),
    allow: Sequence[str] = (),
) -> list[str]:
    """Checks a config against the one that the run in a workdir has, if there is one.

    Args:
      config: the run's.
      workdir: the run's folder.
      identity: which images the config's data are, see `Data.identity`: a folder may
        hold others than it did. Kept in `data.json`, and named "data.found" in `allow`.
      allow: fields, such as "epochs", or sections, such as "data", that may differ
        from those of the run so far.

    Returns:
      What the changes mean, one sentence each.

    Raises:
      ValueError: where the workdir holds a run of another or of an unknown config, or
        a field to allow is one that no run can change.
    """
    objective = objective_class(config.objective.name)
    fixed = (*FIXED, *(f"objective.{name}" for name in objective.fixed))
    for name in allow:
        if _under(name, fixed) or any(_under(field, (name,)) for field in fixed):
            raise ValueError(
                f"--allow_changes={name}: {', '.join(fixed)} say which arrays a run "
                "has, and cannot change; start a run of its own in another --workdir "
                "(an encoder can be its start, see model.init_from)"
            )
    path = epath.Path(workdir) / CONFIG_FILE
    ours, changes = as_json(config), []
    if path.exists():
        theirs = read_config(workdir)
        if "objective" not in theirs:
            raise ValueError(
                f"{workdir} holds a run of an earlier version, whose config has no "
                "section 'objective'; start a new run in another --workdir"
            )
        changes = [
            change
            for change in _differences(ours, theirs)
            if not _under(change[0], FREE_SECTIONS)
        ]
        if (before := _images_before(workdir)) is not None:
            changes += _differences(dict(identity), before, FOUND)
        refused = [change for change in changes if not _under(change[0], allow)]
        _refuse(workdir, refused, fixed)
    elif any(path.parent.glob(f"{CHECKPOINTS}/[0-9]*")):
        raise ValueError(
            f"{workdir} holds checkpoints but no {CONFIG_FILE}, so what they belong to "
            "is unknown; restore that file, or use another --workdir"
        )
    step = max(saved_steps(workdir), default=0)
    meaning = MEANING | {
        f"objective.{name}": text for name, text in objective.changes.items()
    }
    return [_sentence(meaning, step, *change) for change in changes]


def _refuse(
    workdir: epath.PathLike, changes: list[tuple], fixed: Sequence[str]
) -> None:
    if not changes:
        return
    differing = "; ".join(
        f"{_full(field)} is {ours!r}, the run has {theirs!r}"
        for field, ours, theirs in changes
    )
    names = ",".join(field for field, _, _ in changes if not _under(field, fixed))
    take = f", or take the change with --allow_changes={names}" if names else ""
    raise ValueError(
        f"{workdir} holds a run of another config: {differing}. Use the same config to "
        f"continue it, or another --workdir{take}"
    )


def _sentence(
    meaning: Mapping[str, str], step: int, field: str, ours: Any, theirs: Any
) -> str:
    # Of a section and a field of it, the field says more.
    names = [name for name in meaning if _under(field, (name,))]
    known = [meaning[max(names, key=len)]] if names else []
    change = f"{_full(field)} was {theirs!r} and is {ours!r} from step {step} on"
    return "; ".join([change, *known])


def _full(field: str) -> str:
    return field if _under(field, (FOUND,)) else f"config.{field}"


def _under(field: str, names: Sequence[str]) -> bool:
    """Whether a field is one of the names, or lies in a section that is."""
    return any(field == name or field.startswith(f"{name}.") for name in names)


def as_json(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Returns a config as it reads when it comes back from a JSON file."""
    return json.loads(config.to_json())


def read_config(workdir: epath.PathLike) -> dict[str, Any]:
    """Returns the config that the run in a workdir was started with.

    Raises:
      ValueError: where there is no run, or its config cannot be read.
    """
    path = epath.Path(workdir) / CONFIG_FILE
    if not path.exists():
        raise ValueError(
            f"{workdir} holds no run: {path} does not exist; check --workdir"
        )
    return _parsed(path, "restore it, or remove it and run train with the run's config")


def has_images(workdir: epath.PathLike, identity: Mapping[str, str]) -> bool:
    """Whether the run in a workdir trains on these images, see `Data.identity`."""
    before = _images_before(workdir)
    return before is not None and before.get("train") == identity["train"]


def _images_before(workdir: epath.PathLike) -> dict[str, str] | None:
    """Returns which images the run in a workdir was started with, where it says so."""
    path = epath.Path(workdir) / DATA_FILE
    if not path.exists():  # by a version that did not note it
        return None
    return _parsed(path, "remove it, where the images are those that the run had")


def _parsed(path: epath.Path, fix: str) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); {fix}") from error


def _differences(ours: Any, theirs: Any, prefix: str = "") -> list[tuple]:
    if not (isinstance(ours, dict) and isinstance(theirs, dict)):
        return [] if ours == theirs else [(prefix, ours, theirs)]
    fields = sorted(set(ours) | set(theirs))
    start = f"{prefix}." if prefix else ""
    return [
        difference
        for field in fields
        for difference in _differences(
            ours.get(field), theirs.get(field), f"{start}{field}"
        )
    ]
