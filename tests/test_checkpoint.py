"""Checkpoints that do not fit, are damaged or missing end in a clear message."""

from __future__ import annotations

import contextlib
import shutil

import jax
import numpy as np
import pytest
import tiny

from snclr_jax.checkpoint import Checkpoints, claim_workdir
from snclr_jax.data.pipeline import train_batches
from snclr_jax.data.split import Split


def batches():
    split = Split(lambda indices: np.zeros((len(indices), 4, 4, 3), np.uint8), size=20)
    return train_batches(split, batch_size=4, seed=0, num_workers=0, views=None)


@pytest.fixture(scope="module")
def saved(tmp_path_factory, mesh_of):
    """A workdir with steps 0 and 1, the state of step 1, and its next batch."""
    workdir = tmp_path_factory.mktemp("saved")
    _, _, state = tiny.build(tiny.config(), mesh_of(4))
    data = batches()
    with contextlib.closing(Checkpoints(workdir, keep=2)) as checkpoints:
        for step in range(2):
            state = state.replace(step=state.step * 0 + step)
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
    with contextlib.closing(Checkpoints(workdir)) as checkpoints:
        blank = jax.tree.map(lambda leaf: leaf * 0, state)
        restored, clock = checkpoints.restore(blank, data)
    jax.tree.map(np.testing.assert_array_equal, restored, state)
    for ours, theirs in zip(
        jax.tree.leaves(restored), jax.tree.leaves(state), strict=True
    ):
        assert ours.sharding.is_equivalent_to(theirs.sharding, ours.ndim)
    assert clock == {"train_seconds": 1.5, "images": 4}
    np.testing.assert_array_equal(next(data)["index"], expected["index"])


def test_a_state_of_another_shape_is_refused(saved, mesh_of):
    _, _, other = tiny.build(tiny.config(model__embedding_dim=8), mesh_of(4))
    with contextlib.closing(Checkpoints(saved[0])) as checkpoints:
        with pytest.raises(ValueError, match="checkpoints/1 cannot be read"):
            checkpoints.restore(other, batches())


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_is_used(saved, tmp_path):
    workdir = copy(saved, tmp_path)
    newest = workdir / "checkpoints" / "1"
    for file in (newest / "state").rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[:10])
    with contextlib.closing(Checkpoints(workdir)) as checkpoints:
        with pytest.raises(ValueError, match="remove that folder"):
            checkpoints.restore(saved[1], batches())
    shutil.rmtree(newest)
    with contextlib.closing(Checkpoints(workdir)) as checkpoints:
        assert checkpoints.restore(saved[1], batches())[0].step == 0


def test_no_checkpoint_says_so(tmp_path, saved):
    with contextlib.closing(Checkpoints(tmp_path)) as checkpoints:
        with pytest.raises(ValueError, match="no checkpoint in .*train first"):
            checkpoints.restore(saved[1], batches())


def test_a_workdir_belongs_to_one_config(tmp_path):
    claim_workdir(tiny.config(), tmp_path / "run")
    claim_workdir(tiny.config(log__every_steps=7), tmp_path / "run")
    with pytest.raises(ValueError, match="config.loss.temperature is 0.3, the run"):
        claim_workdir(tiny.config(loss__temperature=0.3), tmp_path / "run")


def test_checkpoints_without_their_config_are_not_continued(saved):
    with pytest.raises(ValueError, match="holds checkpoints but no config.json"):
        claim_workdir(tiny.config(), saved[0])
