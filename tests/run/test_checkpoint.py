"""Checkpoints that do not fit, are damaged or missing end in a clear message."""

from __future__ import annotations

import contextlib
import errno
import json
import re
import shutil

import gcsfs
import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import tiny
from jax.experimental import multihost_utils
from saved import batches

from snclr_jax.run import checkpoint
from snclr_jax.run.checkpoint import Checkpoints
from snclr_jax.run.checkpoint_reader import Damaged, saved_steps
from snclr_jax.run.restore import _together, read_state
from snclr_jax.settings.paths import LiteralPath


def arbitrary(state, step=0):
    """Returns the state with numbers of its own in every array, as if after training.

    At the start the queue is empty, the optimizer's state zero and the target network
    a copy: a part that was lost, or taken for another, would not be seen.
    """
    rng = np.random.default_rng(step)

    def fill(leaf):
        if np.issubdtype(leaf.dtype, np.integer):
            values = rng.integers(1, 32, leaf.shape)
        else:
            values = rng.normal(size=leaf.shape)
        return jax.device_put(values.astype(leaf.dtype), leaf.sharding)

    state = jax.tree.map(fill, state)
    return state.replace(step=jax.device_put(np.int32(step), state.step.sharding))


def blank(state):
    # As a program, a product would be compiled for every shape.
    return jax.tree.map(
        lambda leaf: jax.device_put(np.zeros(leaf.shape, leaf.dtype), leaf.sharding),
        state,
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory, mesh_of):
    """A workdir with steps 0 and 1, the state of step 1, and its next batch."""
    workdir = tmp_path_factory.mktemp("saved")
    _, _, state = tiny.build(tiny.config(), mesh_of(4))
    data = batches()
    with contextlib.closing(Checkpoints(workdir, keep=2)) as checkpoints:
        for step in range(2):
            state = arbitrary(state, step)
            next(data)
            clock = {"train_seconds": 1.5 * step, "images": 4}
            checkpoints.save(state, data, clock, tiny.config())
            checkpoints.wait()
    return workdir, state, next(data)


def copy(saved, tmp_path):
    shutil.copytree(saved[0], tmp_path / "copy")
    return tmp_path / "copy"


def test_state_position_and_clock_come_back(saved):
    workdir, state, expected = saved
    data = batches()
    with contextlib.closing(Checkpoints(workdir, keep=1)) as checkpoints:
        restored, clock = checkpoints.restore(blank(state), data)
    jax.tree.map(np.testing.assert_array_equal, restored, state)
    for ours, theirs in zip(
        jax.tree.leaves(restored), jax.tree.leaves(state), strict=True
    ):
        assert ours.sharding.is_equivalent_to(theirs.sharding, ours.ndim)
    assert clock == {"train_seconds": 1.5, "images": 4}
    np.testing.assert_array_equal(next(data)["index"], expected["index"])


def test_a_state_of_another_shape_is_refused_and_nothing_is_moved(
    saved, mesh_of, tmp_path
):
    workdir = copy(saved, tmp_path)
    _, _, other = tiny.build(tiny.config(model__embedding_dim=8), mesh_of(4))
    with contextlib.closing(Checkpoints(workdir, keep=1)) as checkpoints:
        with pytest.raises(ValueError, match="checkpoints/1 holds another network"):
            checkpoints.restore(other, batches())
    assert (workdir / "checkpoints" / "1").exists()
    assert not (workdir / "damaged_checkpoints").exists()


def cut(checkpoint):
    for file in (checkpoint / "state").rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[:10])


def halve(checkpoint):
    """The largest file, where the arrays are."""
    files = [each for each in (checkpoint / "state").rglob("*") if each.is_file()]
    file = max(files, key=lambda each: each.stat().st_size)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def lose_metadata(checkpoint):
    (checkpoint / "state" / "_METADATA").unlink()


def lose_the_position(checkpoint):
    shutil.rmtree(checkpoint / "data")


def move_the_position(checkpoint):
    (file,) = (checkpoint / "data").glob("metadata")
    file.write_text(json.dumps({"step": 7}))


def name_the_clock_otherwise(checkpoint):
    (file,) = (checkpoint / "clock").glob("metadata")
    file.write_text(file.read_text().replace("images", "imagos"))


def flip_a_byte(checkpoint):
    """In the middle of the largest file, where the arrays are."""
    files = [each for each in (checkpoint / "state").rglob("*") if each.is_file()]
    file = max(files, key=lambda each: each.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def store_other_bits(checkpoint):
    """As if one bit of one array had flipped on the disk."""
    (file,) = (checkpoint / "digest").glob("metadata")
    digest = json.loads(file.read_text())
    name = "objective/keys"
    digest[name] = f"{int(digest[name], 16) ^ 1:08x}"
    file.write_text(json.dumps(digest))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, "cannot be read; it is damaged"),
        (halve, "cannot be read; it is damaged"),
        (lose_metadata, "cannot be read; it is damaged"),
        (lose_the_position, "cannot be read; it is damaged"),
        (flip_a_byte, "is damaged"),
        (store_other_bits, "1 of its parts have other bits.*objective/keys"),
        (move_the_position, "1 of its parts have other bits.*data"),
        (name_the_clock_otherwise, "1 of its parts have other bits.*clock"),
    ],
)
def test_a_damaged_checkpoint_gives_way_to_the_one_before_it(
    saved, tmp_path, capsys, damage, message
):
    workdir = copy(saved, tmp_path)
    damage(workdir / "checkpoints" / "1")
    data = batches()
    with contextlib.closing(Checkpoints(workdir, keep=2)) as checkpoints:
        state, clock = checkpoints.restore(saved[1], data)
        assert (state.step, clock["train_seconds"]) == (0, 0.0)
        assert data.get_state() == {"step": 1}
        # The step that was damaged can be saved again.
        state = state.replace(step=state.step + 1)
        checkpoints.save(state, data, clock, tiny.config())
        checkpoints.wait()
        assert checkpoints.restore(saved[1], data)[0].step == 1
    said = capsys.readouterr().out
    assert re.search(rf"checkpoints/1.*{message}.*moved to", said)
    moved, why = sorted((workdir / "damaged_checkpoints").iterdir())
    assert moved.is_dir() and why.name == f"{moved.name}.txt"
    assert re.search(message, why.read_text())


def test_where_every_checkpoint_is_damaged_the_run_stops_each_time(saved, tmp_path):
    workdir = copy(saved, tmp_path)
    for step in ("0", "1"):
        cut(workdir / "checkpoints" / step)
    for _ in range(2):  # the second would otherwise begin anew
        with contextlib.closing(Checkpoints(workdir, keep=1)) as checkpoints:
            assert checkpoints.latest_step == 1
            with pytest.raises(ValueError, match="/1 .*no other checkpoint is left"):
                checkpoints.restore(saved[1], batches())


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EMFILE, "Too many open files"),
        PermissionError(errno.EACCES, "Permission denied"),
        MemoryError(),
        ValueError("Error opening: [OS error 13: EACCES Permission denied]"),
        OSError("Forbidden: b/bucket/o"),  # by gcsfs
        gcsfs.retry.HttpError({"code": 503, "message": "try again"}),
        jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_cannot_be_read_now_is_not_taken_for_damaged(
    saved, tmp_path, monkeypatch, error
):
    def fail(*arguments, **named):
        raise error

    workdir = copy(saved, tmp_path)
    with contextlib.closing(Checkpoints(workdir, keep=1)) as checkpoints:
        monkeypatch.setattr(ocp.StandardCheckpointHandler, "restore", fail)
        with pytest.raises(OSError, match="checkpoints/1 cannot be read now"):
            checkpoints.restore(saved[1], batches())
    assert not (workdir / "damaged_checkpoints").exists()


@pytest.mark.parametrize("kind", [OSError, Damaged])
def test_what_one_process_cannot_read_ends_all_of_them(monkeypatch, kind):
    def gather(here):
        return np.stack([here, [kind is OSError, kind is Damaged]])

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(multihost_utils, "process_allgather", gather)
    with pytest.raises(kind, match="checkpoints/7 cannot be read by process 1"):
        with _together("checkpoints/7"):
            pass
    with pytest.raises(Damaged, match="of its own"):
        with _together("checkpoints/7"):
            raise Damaged("of its own")


def test_a_queue_of_no_rows_is_saved_and_restored(mesh_of, tmp_path):
    config = tiny.config(objective__queue__size=0, objective__queue__k=0)
    _, _, state = tiny.build(config, mesh_of(1))
    state = arbitrary(state).replace(objective=state.objective)
    with contextlib.closing(Checkpoints(tmp_path, keep=1)) as checkpoints:
        checkpoints.save(state, batches(), {}, config)
        checkpoints.wait()
        restored, _ = checkpoints.restore(blank(state), batches())
    jax.tree.map(np.testing.assert_array_equal, restored, state)


def test_a_probe_of_other_classes_begins_anew(mesh_of, tmp_path):
    _, _, state = tiny.build(tiny.config(), mesh_of(1), probe_classes=10)
    _, _, other = tiny.build(tiny.config(), mesh_of(1), probe_classes=7)
    with contextlib.closing(Checkpoints(tmp_path, keep=1)) as checkpoints:
        checkpoints.save(state, batches(), {}, tiny.config())
        checkpoints.wait()
        restored, _ = checkpoints.restore(other, batches())
    assert restored.probe is other.probe


@pytest.mark.parametrize("damaged", [False, True])
def test_a_probe_is_restored_or_found_damaged(saved, mesh_of, tmp_path, damaged):
    _, _, state = tiny.build(tiny.config(), mesh_of(1), probe_classes=10)
    state = arbitrary(state)
    with contextlib.closing(Checkpoints(tmp_path, keep=1)) as checkpoints:
        checkpoints.save(state, batches(), {}, tiny.config())
        checkpoints.wait()
        if damaged:
            shutil.rmtree(tmp_path / "checkpoints" / "0" / "probe")
            with pytest.raises(ValueError, match="checkpoints/0 cannot be read; it is"):
                checkpoints.restore(state, batches())
        else:
            restored, _ = checkpoints.restore(blank(state), batches())
            jax.tree.map(np.testing.assert_array_equal, restored, state)


def test_a_checkpoint_fits_another_number_of_devices(saved, mesh_of):
    workdir, state, _ = saved
    _, _, fresh = tiny.build(tiny.config(), mesh_of(2))
    with contextlib.closing(Checkpoints(workdir, keep=1)) as checkpoints:
        restored, _ = checkpoints.restore(fresh, batches())
    jax.tree.map(np.testing.assert_array_equal, restored, state)
    assert len(restored.objective.keys.sharding.device_set) == 2


def test_a_queue_of_another_size_or_type_starts_empty(saved, mesh_of, capsys):
    for changed in (
        {"objective__queue__size": 24},
        {"objective__queue__dtype": "bfloat16"},
    ):
        _, _, state = tiny.build(tiny.config(**changed), mesh_of(4))
        with contextlib.closing(Checkpoints(saved[0], keep=1)) as checkpoints:
            restored, _ = checkpoints.restore(state, batches())
        jax.tree.map(np.testing.assert_array_equal, restored.objective, state.objective)
        assert restored.objective.keys.dtype == state.objective.keys.dtype
        assert restored.objective.keys.sharding == state.objective.keys.sharding
        jax.tree.map(np.testing.assert_array_equal, restored.params, saved[1].params)
        assert restored.step == 1


def test_no_checkpoint_says_so(tmp_path, saved):
    with contextlib.closing(Checkpoints(tmp_path, keep=1)) as checkpoints:
        with pytest.raises(ValueError, match="no checkpoint in .*train first"):
            checkpoints.restore(saved[1], batches())


@pytest.mark.parametrize("name", ["lr[0.1]", "link/../x"])
def test_a_workdir_keeps_checkpoints_whatever_its_name(saved, tmp_path, name):
    (tmp_path / "far" / "away").mkdir(parents=True)
    (tmp_path / "link").symlink_to("far/away")
    state = saved[1]
    with contextlib.closing(Checkpoints(f"{tmp_path}/{name}", keep=1)) as checkpoints:
        checkpoints.save(state, batches(), {}, tiny.config())
        restored, _ = checkpoints.restore(blank(state), batches())
    jax.tree.map(np.testing.assert_array_equal, restored, state)
    assert saved_steps(f"{tmp_path}/{name}") == [1]


def test_a_first_checkpoint_that_cannot_be_read_back_is_not_counted_as_saved(
    saved, tmp_path, monkeypatch
):
    # Orbax then finds nothing that it could put together, and says nothing.
    monkeypatch.setattr(LiteralPath, "glob", lambda *_: iter(()))
    with contextlib.closing(Checkpoints(tmp_path, keep=1)) as checkpoints:
        with pytest.raises(OSError, match="was just saved cannot be read back: .*/1 "):
            checkpoints.save(saved[1], batches(), {}, tiny.config())


def test_only_the_first_checkpoint_is_read_back(saved, tmp_path, monkeypatch):
    read = []

    def count(folder, state):
        read.append(folder.name)
        return read_state(folder, state)

    monkeypatch.setattr(checkpoint, "read_state", count)
    state = saved[1]
    for steps in ((1, 2), (3,)):  # the second time, a continuation has read one
        with contextlib.closing(Checkpoints(tmp_path, keep=9)) as checkpoints:
            if checkpoints.latest_step is not None:
                checkpoints.restore(state, batches())
            for step in steps:
                now = state.replace(step=state.step * step)
                checkpoints.save(now, batches(), {}, tiny.config())
    assert read == ["1", "2"]


@pytest.mark.parametrize("gone", ["checkpoints", "."])
def test_a_folder_that_is_gone_is_named_and_not_made_anew(saved, tmp_path, gone):
    workdir = copy(saved, tmp_path)
    checkpoints = Checkpoints(workdir, keep=2)
    checkpoints.restore(saved[1], batches())
    (workdir / gone).rename(tmp_path / "elsewhere")
    state = saved[1].replace(step=saved[1].step + 1)
    with pytest.raises(OSError, match="removed or renamed during the run: bring it b"):
        checkpoints.save(state, batches(), {}, tiny.config())
    assert not (workdir / gone).exists()
    (tmp_path / "elsewhere").rename(workdir / gone)
    with contextlib.closing(checkpoints):
        checkpoints.save(state, batches(), {}, tiny.config())
    assert max(saved_steps(workdir)) == 2


def test_a_folder_that_a_failed_save_made_anew_is_not_taken_for_the_one_before(
    saved, tmp_path, monkeypatch
):
    def fail(*arguments, **named):
        raise ValueError("NOT_FOUND: Error writing")

    workdir = copy(saved, tmp_path)
    with contextlib.closing(Checkpoints(workdir, keep=2)) as checkpoints:
        (workdir / "checkpoints").rename(tmp_path / "elsewhere")
        (workdir / "checkpoints").mkdir()
        monkeypatch.setattr(ocp.CheckpointManager, "wait_until_finished", fail)
        with pytest.raises(OSError, match=r"\(NOT_FOUND.*removed or renamed during"):
            checkpoints.wait()
        monkeypatch.undo()


@pytest.mark.parametrize(
    "error, lacked",
    [
        (OSError(errno.ENOSPC, "No space left on device"), "there is room and leave"),
        (OSError(errno.EMFILE, "Too many open files"), "more files may be open"),
        (TimeoutError("Timed out after 86400 seconds"), "a save takes less than 5 min"),
        (RuntimeError("can't start new thread"), "more threads may be started"),
    ],
)
def test_a_save_that_fails_says_what_is_left(
    saved, tmp_path, monkeypatch, error, lacked
):
    def fail(*arguments, **named):
        raise error

    left = {tmp_path / "new": "begins anew", copy(saved, tmp_path): "from step 1"}
    monkeypatch.setattr(ocp.CheckpointManager, "save", fail)
    state = saved[1].replace(step=saved[1].step + 1)
    for workdir, said in left.items():
        with contextlib.closing(Checkpoints(workdir, keep=2)) as checkpoints:
            message = rf"\(.*{error.args[-1]}\).*{said} once {lacked}"
            with pytest.raises(OSError, match=message):
                checkpoints.save(state, batches(), {}, tiny.config())


def test_processes_that_see_other_checkpoints_do_not_go_on(saved, monkeypatch):
    """Each would restore another step, where the workdir is no shared folder."""

    def differ(compute, facts):
        raise ValueError(str(facts(compute())))

    monkeypatch.setattr(checkpoint, "in_agreement", differ)
    with pytest.raises(ValueError, match=r"checkpoints': \[\d+(, \d+)*\]"):
        Checkpoints(saved[0], keep=2)
