"""A run goes on with fewer or more devices, and is asked before it changes."""

from __future__ import annotations

import functools
import json
import signal
import time

import jax
import numpy as np
import pytest
import tiny

from snclr_jax import train as train_module
from snclr_jax.devices.stop_requests import Interrupted, StopRequests
from snclr_jax.run.metrics import read_metrics
from snclr_jax.train import train

STEPS = 12
# Of the loss, in float32: twelve steps of the same batches on other devices.
TOLERANCE = 1e-4


def config(**fields):
    settings = {"data__holdback": 1300, "log__every_steps": 1}
    return tiny.config(**settings | fields)


class Nothing:
    """In the place of an evaluator."""

    possible = False

    def __init__(self, *of_run) -> None:
        pass

    def baseline(self, *states) -> dict[str, float]:
        return {}


@pytest.fixture
def run(mesh_of, monkeypatch):
    """Trains on some devices until a step, or the end."""

    def run(workdir, devices, *, until=0, allow=(), **fields):
        monkeypatch.setattr(train_module, "make_mesh", lambda: mesh_of(devices))
        # What is measured beside the training takes most of so short a run.
        for evaluator in ("OnlineKnn", "OnlineGallery", "OnlineChoices"):
            monkeypatch.setattr(train_module, evaluator, Nothing)
        stop = functools.partial(stop_after, until)
        monkeypatch.setattr(StopRequests, "after", lambda self, step: stop(step))
        if not until:
            return train(config(**fields), str(workdir), allow=allow)
        with pytest.raises(Interrupted):
            train(config(**fields), str(workdir), allow=allow)

    return run


def stop_after(last: int, step: int) -> int:
    return signal.SIGTERM if step == last else 0


def losses(workdir):
    return [line["loss"] for line in read_metrics(workdir) if "loss" in line]


@pytest.mark.slow
def test_a_run_goes_on_with_fewer_devices_and_the_same_losses(
    run, tmp_path, monkeypatch
):
    run(tmp_path / "whole", 8)
    run(tmp_path / "moved", 8, until=4)
    # Nor does it matter what the new machine takes the time to be.
    monkeypatch.setattr(time, "time", lambda: 1e6)
    run(tmp_path / "moved", 4, until=8)
    state = run(tmp_path / "moved", 2)
    assert len(state.objective.keys.sharding.device_set) == 2
    expected, found = losses(tmp_path / "whole"), losses(tmp_path / "moved")
    assert len(expected) == len(found) == STEPS
    np.testing.assert_allclose(found, expected, rtol=TOLERANCE)
    # The steps before the move are the same bits.
    assert found[:4] == expected[:4]
    assert np.ptp(expected) > 100 * TOLERANCE


@pytest.mark.slow
def test_another_queue_is_taken_where_it_is_asked_for(run, tmp_path, capsys):
    run(tmp_path, 2, until=4)
    with pytest.raises(ValueError, match="size is 64, the run has 32.*allow_changes=o"):
        run(tmp_path, 2, objective__queue__size=64)
    state = run(tmp_path, 2, objective__queue__size=64, allow=("objective.queue.size",))
    said = capsys.readouterr().out
    assert (
        "config.objective.queue.size was 32 and is 64 from step 4 on; the queue starts"
        in said
    )
    pushed_at = np.asarray(state.objective.pushed_at)
    assert pushed_at.shape == (64,) and state.step == STEPS
    # 8 steps of 16 rows fill 64 twice; nothing is from before step 8.
    assert pushed_at.min() >= 8
    assert (
        json.loads((tmp_path / "config.json").read_text())["objective"]["queue"]["size"]
        == 64
    )
    # From now on it is the run's own.
    again = run(tmp_path, 2, objective__queue__size=64)
    jax.tree.map(np.testing.assert_array_equal, again, state)
