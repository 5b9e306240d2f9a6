"""The folder of a run: it belongs to one config, and to one run at a time."""

from __future__ import annotations

import contextlib
import functools
import json
import sys
import urllib.parse
from collections.abc import Callable, Generator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import ml_collections
from etils import epath

from snclr_jax.configs.base import EPOCHS
from snclr_jax.devices.processes import from_first
from snclr_jax.run.changes import (
    FIXED,
    FOUND,
    FREE_SECTIONS,
    MEANING,
    change_sentence,
    changed_fields,
    refuse_changes,
    under,
)
from snclr_jax.run.checkpoint_reader import Damaged, checkpoint_config, saved_steps
from snclr_jax.run.files import (
    CHECKPOINTS,
    CONFIG_FILE,
    DATA_FILE,
    NAMED_WRONGLY,
    PACKAGES_FILE,
    SHOWN_FILE,
    read_if_there,
    read_object,
    write_whole,
)
from snclr_jax.run.packages import changed_packages, installed
from snclr_jax.run.workdir_lock import WorkdirLock
from snclr_jax.settings.objective import objective_class
from snclr_jax.settings.paths import absolute_paths, located, storable
from snclr_jax.settings.ranges import get_field
from snclr_jax.step.channels import COLOR


@contextlib.contextmanager
def own_workdir(
    config: ml_collections.ConfigDict,
    workdir: epath.PathLike,
    *,
    identity: Mapping[str, str] = MappingProxyType({}),
    allow: Sequence[str] = (),
) -> Generator[tuple[list[str], Callable[[], None]]]:
    """Keeps a workdir for this run, which process 0 checks; `record_run` is to follow.

    A second run in the same folder is refused, on any machine that shares it. An object
    store (gs://) has no such lock, nor has every file system; the run goes on without.

    Args:
      config: the run's.
      workdir: the run's folder.
      identity, allow: as in `check_workdir`.

    Yields:
      What the changes mean, one sentence each, where there is no lock, and which
      packages are others. And what every process is to call before it writes: it
      raises `InUse` where the lock's file was removed, and another run let in.

    Raises:
      ValueError: on every process, where the workdir is another run's, cannot be
        written to, or has a name that no checkpoint can be written under.
      OSError: on every process, where it cannot be written to now, as on a full disk.
    """
    with contextlib.closing(WorkdirLock(workdir)) as lock:

        def claim() -> list[str]:
            if str(workdir).startswith("gs://"):
                _look_up_bucket(workdir)
            try:
                storable(workdir)
                said = [] if "://" in str(workdir) else lock.take()
                changes = check_workdir(config, workdir, identity=identity, allow=allow)
                return [*said, *changes, *changed_packages(workdir)]
            except OSError as error:
                raise _not_writable(workdir, error) from error

        yield from_first(claim), functools.partial(from_first, lock.keep)


def record_run(
    config: ml_collections.ConfigDict,
    workdir: epath.PathLike,
    identity: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Writes config, what is shown, images and packages of a run; process 0 does.

    Only where nothing has refused the run: from here on the workdir belongs to it.

    Args:
      config, workdir, identity: as in `check_workdir`.

    Raises:
      ValueError, OSError: on every process, where the workdir cannot be written to,
        at all or now.
    """
    shown = objective_class(config.objective.name).shown
    contents = {
        # `snclr watch` reads it, which imports no JAX, and so no objective.
        SHOWN_FILE: [
            (label, metric, form) for label, metric, form, watched in shown if watched
        ],
        DATA_FILE: dict(identity),
        PACKAGES_FILE: installed(),
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


def _not_writable(workdir: epath.PathLike, error: OSError) -> ValueError | OSError:
    kind = ValueError if isinstance(error, NAMED_WRONGLY) else OSError
    # The files in it are not the user's to name: the workdir is.
    said = error.__cause__ or error
    return kind(
        f"--workdir={workdir} cannot be written to: {said}; change that, or use "
        "another --workdir"
    )


def _look_up_bucket(workdir: epath.PathLike) -> None:
    """Fails where Orbax would, but not hours later, when a checkpoint is deleted."""
    # They come with gcsfs, which no other workdir needs.
    from google.api_core.exceptions import RetryError, ServerError
    from google.cloud import storage

    bucket = urllib.parse.urlsplit(str(workdir)).netloc
    try:
        storage.Client().get_bucket(bucket)
    except Exception as error:  # Google's have no kind in common
        passes = isinstance(error, (OSError, RetryError, ServerError))
        raise (OSError if passes else ValueError)(
            f"--workdir={workdir}: bucket {bucket} cannot be looked up: {error}; it "
            "must exist, and give this account roles/storage.objectAdmin and "
            "roles/storage.legacyBucketReader"
        ) from error


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
        if under(name, fixed) or any(under(field, (name,)) for field in fixed):
            raise ValueError(
                f"--allow_changes={name}: {', '.join(fixed)} say which arrays a run "
                "has, and cannot change; start a run of its own in another --workdir "
                "(an encoder can be its start, see model.init_from)"
            )
        if under(name, (FOUND,)):
            continue
        try:
            get_field(config, name)
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"--allow_changes={name} names no field and no section of the config"
            ) from error
    ours, changes = as_json(config), []
    steps = saved_steps(workdir)
    if steps or (epath.Path(workdir) / CONFIG_FILE).exists():
        theirs = read_config(workdir)
        if "objective" not in theirs:
            raise ValueError(
                f"{workdir} holds a run of an earlier version, whose config has no "
                "section 'objective'; start a new run in another --workdir"
            )
        # An earlier version kept the paths as they were typed.
        theirs = as_json(absolute_paths(ml_collections.ConfigDict(theirs)))
        # Before there was a choice of them.
        theirs["data"] = {"channels": COLOR} | theirs.get("data", {})
        changes = [
            change
            for change in changed_fields(ours, theirs)
            if not under(change[0], FREE_SECTIONS)
        ]
        if (before := _images_before(workdir)) is not None:
            changes += changed_fields(dict(identity), before, FOUND)
        taken = list(allow)
        if "epochs" in allow:  # warm-ups that nobody has set follow them
            taken += [name for name, *_ in changes if name.endswith(EPOCHS)]
        refused = [change for change in changes if not under(change[0], taken)]
        refuse_changes(workdir, refused, fixed)
    step = max(steps, default=0)
    meaning = MEANING | {
        f"objective.{name}": text for name, text in objective.changes.items()
    }
    return [change_sentence(meaning, step, *change) for change in changes]


def as_json(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Returns a config as it reads when it comes back from a JSON file."""
    return json.loads(config.to_json())


def read_config(workdir: epath.PathLike) -> dict[str, Any]:
    """Returns the config of the run in a workdir, which every checkpoint holds, too.

    Raises:
      ValueError: where there is no run, or its config cannot be read.
    """
    path = epath.Path(workdir) / CONFIG_FILE
    steps = saved_steps(workdir)
    try:
        return read_object(path)
    except (FileNotFoundError, NotADirectoryError):
        lost = f"{path} does not exist"
        fix = f"so {workdir} holds no run; check --workdir"
    except ValueError as error:
        lost = f"{path} is damaged ({error})"
        fix = "with no checkpoint to lose; remove it and run train with its config"
    for step in sorted(steps, reverse=True):
        folder = located(workdir) / CHECKPOINTS / str(step)
        with contextlib.suppress(Damaged):
            config = as_json(checkpoint_config(folder))
            print(f"{lost}; its copy in {folder} is read", file=sys.stderr)
            return config
    if steps:
        fix = (
            "and no checkpoint holds a whole copy of it; restore it, or use another "
            "--workdir"
        )
    raise ValueError(f"{lost}, {fix}")


def has_images(workdir: epath.PathLike, identity: Mapping[str, str]) -> bool:
    """Whether the run in a workdir trains on these images, see `Data.identity`."""
    before = _images_before(workdir)
    return before is not None and before.get("train") == identity["train"]


def _images_before(workdir: epath.PathLike) -> dict[str, str] | None:
    """Returns which images the run in a workdir was started with, where it says so."""
    return read_if_there(
        epath.Path(workdir) / DATA_FILE,  # an earlier version wrote none
        "remove it, where the images are those that the run had",
    )
