"""Parts of a checkpoint read outside training: what it is, and its arrays, strictly."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Generator, Iterator
from typing import Any

import ml_collections
import orbax.checkpoint as ocp
from etils import epath
from flax.traverse_util import unflatten_dict

from snclr_jax.models import Variables
from snclr_jax.run.digest import by_path, digest_of_json, digests
from snclr_jax.run.files import CHECKPOINTS
from snclr_jax.settings.paths import located, storable

# What says nothing about the files of a checkpoint: no leave, no memory, no connection.
# TensorStore and XLA raise errors of one kind, and write which in their text; those of
# object stores have many kinds.
_MISSING = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
_STORES = ("aiohttp", "gcsfs", "google", "requests", "urllib3")
OUT_OF_MEMORY = re.compile("RESOURCE_EXHAUSTED|Out of memory")
_ELSEWHERE = re.compile(
    f"{OUT_OF_MEMORY.pattern}|PERMISSION_DENIED|UNAUTHENTICATED|UNAVAILABLE|DEADLINE_EXCEEDED"
    "|Permission denied|Too many open files|Cannot allocate memory|Stale file handle"
)


class Damaged(ValueError):
    """A checkpoint that is not what was saved."""


@contextlib.contextmanager
def damage(folder: epath.Path) -> Generator[None]:
    """Turns what Orbax raises where files are cut or missing into `Damaged`.

    Raises:
      Damaged: there.
      OSError: where the files may be whole and cannot be read now.
    """
    try:
        yield
    except Damaged:
        raise
    except Exception as error:  # where a file is cut, Orbax raises just that
        said = str(error).partition("\n")[0]
        if any(map(_is_elsewhere, causes(error))):
            raise OSError(
                f"{folder} cannot be read now; it may be whole. Orbax says: {said}"
            ) from error
        raise Damaged(
            f"{folder} cannot be read; it is damaged, or older than this version. "
            f"Orbax says: {said}"
        ) from error


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yields an error and what it followed from, the first one last."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_elsewhere(error: BaseException) -> bool:
    return (
        (isinstance(error, OSError) and not isinstance(error, _MISSING))
        or isinstance(error, MemoryError)
        or type(error).__module__.partition(".")[0] in _STORES
        or bool(_ELSEWHERE.search(str(error)))
    )


def find_checkpoint(path: epath.PathLike) -> epath.Path:
    """Returns the folder of a whole checkpoint.

    Args:
      path: a run's workdir, for its newest checkpoint, or one checkpoint's folder.

    Raises:
      ValueError: where there is none, or it was not written to its end.
    """
    path = storable(path)
    if not path.exists():
        raise ValueError(f"{path} does not exist; name a workdir or a checkpoint of it")
    if path.parent.name == CHECKPOINTS:
        if ocp.utils.is_tmp_checkpoint(path) or not (path / "state").exists():
            raise ValueError(
                f"{path} was not written to its end; name another checkpoint, or the "
                "workdir for the newest whole one"
            )
        return path
    steps = saved_steps(path)
    if not steps:
        raise ValueError(
            f"no whole checkpoint in {path / CHECKPOINTS}; train first, or name "
            "another workdir"
        )
    return path / CHECKPOINTS / str(max(steps))


def saved_steps(workdir: epath.PathLike) -> list[int]:
    """Returns the steps of a run's whole checkpoints, none where there is no run."""
    folder = located(workdir) / CHECKPOINTS
    return ocp.utils.checkpoint_steps(folder) if folder.exists() else []


def checkpoint_config(folder: epath.Path) -> ml_collections.ConfigDict:
    """Returns the config that is stored in a checkpoint.

    Raises:
      Damaged: where it is missing or cannot be read.
      ValueError: where an earlier version wrote it.
    """
    config = read_json(folder, "config")
    check_digests(folder, {"config": digest_of_json(config)})
    if "objective" not in config:
        raise ValueError(
            f"{folder} is of a run of an earlier version, whose config has no section "
            "'objective'; read it with that version"
        )
    return ml_collections.ConfigDict(config)


def read_json(folder: epath.Path, item: str) -> Any:
    """Returns what a checkpoint holds under the name of an item.

    Raises:
      Damaged: where it is missing or cannot be read.
    """
    # The handler alone: a checkpointer would wait for other processes, which may fail.
    with damage(folder):
        return ocp.JsonCheckpointHandler().restore(folder / item)


def stored_arrays(folder: epath.Path, item: str = "state") -> Variables:
    """Returns shapes and types of a checkpoint's arrays, as nested dictionaries.

    Raises:
      Damaged: where they cannot be read.
    """
    with damage(folder):
        return ocp.StandardCheckpointHandler().metadata(folder / item).tree


def read_arrays(
    folder: epath.Path, parts: dict[str, Variables]
) -> dict[str, Variables]:
    """Returns parts of a checkpoint's state, and refuses anything but what is expected.

    Args:
      folder: of a whole checkpoint.
      parts: by path in the state, such as "params/encoder", what it must consist of:
        nested dictionaries of `jax.ShapeDtypeStruct` with shardings.

    Returns:
      The same dictionaries of arrays.

    Raises:
      ValueError: where an array is missing, of another shape or type, or one too many;
        names them. Also where an array has other bits than were saved.
    """
    parts = {path: part for path, part in parts.items() if part}
    wanted = unflatten_dict(parts, sep="/")
    # Known before anything is read: a partial restore skips what is not asked for.
    stored = stored_arrays(folder)
    for path, part in parts.items():
        with damage(folder):
            arrays = _at(stored, path)
        check_same_arrays(f"{folder}: {path}", arrays, part)
    with damage(folder), contextlib.closing(ocp.PyTreeCheckpointer()) as reader:
        restored = reader.restore(
            folder / "state",
            args=ocp.args.PyTreeRestore(
                item=wanted,
                restore_args=ocp.checkpoint_utils.construct_restore_args(wanted),
                partial_restore=True,
            ),
        )
    check_digests(folder, digests(restored))
    return {path: _at(restored, path) for path in parts}


def check_digests(folder: epath.Path, computed: dict[str, str]) -> None:
    """Raises Damaged unless parts of a checkpoint have the digests that were saved."""
    saved = read_json(folder, "digest")
    if unknown := computed.keys() - saved:
        raise Damaged(
            f"{folder} has no digest of {min(unknown)}; it is damaged, or older than "
            "this version"
        )
    wrong = [name for name, value in computed.items() if saved[name] != value]
    if wrong:
        raise Damaged(
            f"{folder} is damaged: {len(wrong)} of its parts have other bits than "
            f"were saved, the first is {wrong[0]}"
        )


def check_same_arrays(source: str, actual: Any, expected: Any) -> None:
    """Raises ValueError unless two trees have the same names, shapes and types."""
    if wrong := differences(actual, expected):
        more = f"; and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ValueError(
            f"{source} holds another network than its config: {'; '.join(wrong[:3])}"
            f"{more}. Nothing was loaded"
        )


def differences(actual: Any, expected: Any) -> list[str]:
    """Returns how names, shapes and types of two trees differ, array by array."""
    actual, expected = (
        {name: (leaf.shape, str(leaf.dtype)) for name, leaf in by_path(tree).items()}
        for tree in (actual, expected)
    )
    wrong = [f"{name} is missing" for name in expected if name not in actual]
    wrong += [f"{name} is not part of it" for name in actual if name not in expected]
    return wrong + [
        f"{name} is {actual[name]}, not {expected[name]}"
        for name in expected
        if name in actual and actual[name] != expected[name]
    ]


def _at(tree: Variables, path: str) -> Variables:
    for name in path.split("/"):
        tree = tree[name]
    return tree
