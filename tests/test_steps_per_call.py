"""Runs that take several steps in a call: the run that takes one, and exact resume."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest
import tiny
from real_runs import interrupt_at_batch

from snclr_jax import train as train_module
from snclr_jax.devices.stop_requests import Interrupted
from snclr_jax.run.checkpoint_reader import saved_steps
from snclr_jax.run.metrics import read_metrics
from snclr_jax.train import train

pytestmark = pytest.mark.usefixtures("equal_runs_share_a_step")

# Of 9 steps; what is due after them makes calls of 2, 2, 1, 2, 1 and 1 steps.
IMAGES = np.random.default_rng(0).integers(0, 256, (48, 32, 32, 3), dtype=np.uint8)
EVERY = dict(
    epochs=3,
    log__every_steps=5,
    checkpoint__every_steps=4,
    checkpoint__keep=9,
    evaluate__every_epochs=0,
)


@pytest.fixture(scope="module")
def train_digits(mesh_of):
    """Returns a function that trains on the same images, with the final state."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_module, "make_mesh", lambda: mesh_of(1))
        yield lambda workdir, **fields: train(
            tiny.config(**EVERY, **fields), str(workdir), data=IMAGES
        )


@pytest.fixture(scope="module")
def in_twos(train_digits, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("in_twos")
    return workdir, train_digits(workdir, steps_per_call=2)


def test_metrics_and_checkpoints_are_those_of_single_steps(
    in_twos, train_digits, tmp_path
):
    workdir, state = in_twos
    alone = train_digits(tmp_path)
    for each in (workdir, tmp_path):
        assert sorted(saved_steps(each)) == [4, 8, 9]
    lines, expected = (
        [line for line in read_metrics(each) if "loss" in line]
        for each in (workdir, tmp_path)
    )
    assert [line["step"] for line in lines] == [line["step"] for line in expected]
    for line, other in zip(lines, expected, strict=True):
        for name in ("loss", "learning_rate", "ema_momentum", "neighbor_age"):
            assert line[name] == pytest.approx(other[name], rel=1e-4), name
    # Tests compile without optimization, and then a loop's last bits differ.
    for leaf, other in zip(
        jax.tree.leaves(state.params), jax.tree.leaves(alone.params), strict=True
    ):
        np.testing.assert_allclose(leaf, other, atol=1e-5)


def test_a_run_that_was_stopped_between_two_calls_ends_with_the_same_bits(
    in_twos, train_digits, tmp_path, monkeypatch
):
    _, state = in_twos
    with monkeypatch.context() as patch:
        interrupt_at_batch(3, patch)
        with pytest.raises(Interrupted):
            train_digits(tmp_path, steps_per_call=2)
    assert max(saved_steps(tmp_path)) == 5
    continued = train_digits(tmp_path, steps_per_call=2)
    jax.tree.map(np.testing.assert_array_equal, continued, state)


def test_calls_longer_than_the_interval_of_metrics_are_refused(train_digits, tmp_path):
    with pytest.raises(ValueError, match="steps_per_call 6 is more than log.every_st"):
        train_digits(tmp_path, steps_per_call=6)


def test_steps_per_call_may_change_when_a_run_continues(in_twos, train_digits):
    workdir, state = in_twos
    again = train_digits(workdir, steps_per_call=1)
    jax.tree.map(np.testing.assert_array_equal, again, state)
    assert json.loads((workdir / "config.json").read_text())["steps_per_call"] == 1
