"""Whole runs: what they leave behind, and that a killed one ends with the same bits."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
import tiny
from kept_logger import KeptLogger
from PIL import Image
from real_runs import STEPS, RealRun, assert_same_bits, interrupt_at_batch
from snclr_jax.configs import evaluate as evaluation
from tensorboard_events import scalars

from snclr_jax import loop as loop_module
from snclr_jax import train as train_module
from snclr_jax.data import open_data
from snclr_jax.data.feed import Feed
from snclr_jax.devices.mesh import make_mesh
from snclr_jax.devices.stop_requests import Interrupted
from snclr_jax.evaluate import run as evaluate_module
from snclr_jax.evaluate.memory import choices
from snclr_jax.evaluate.online import OnlineKnn
from snclr_jax.evaluate.run import evaluate
from snclr_jax.report.summary import _sentence, in_sentence
from snclr_jax.run.checkpoint import Checkpoints
from snclr_jax.run.checkpoint_reader import saved_steps
from snclr_jax.run.loggers import LOGGERS
from snclr_jax.run.metrics import NonFiniteError, read_metrics
from snclr_jax.run.watch import WatchedRun
from snclr_jax.run.workdir_lock import LOCK_FILE
from snclr_jax.train import train

pytestmark = pytest.mark.usefixtures("equal_runs_share_a_step", "few_digits")


@pytest.fixture(scope="module", autouse=True)
def two_devices(mesh_of):
    """Programs for eight take several times as long to compile and to run."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (train_module, evaluate_module):
            patch.setattr(module, "make_mesh", lambda: mesh_of(2))
        yield


def test_a_killed_run_ends_with_the_same_bits(tmp_path):
    # One after the other: what the first one compiles, the others find.
    a = RealRun(tmp_path / "a").finish()
    killed = RealRun(tmp_path / "b")
    killed.wait_for_step(25)  # four after a checkpoint
    killed.wait_for_save()
    killed.kill()
    b = RealRun(tmp_path / "b").finish()
    assert_same_bits(a, b)
    assert (a[".objective.pushed_at"] >= STEPS - 2).sum() == 32
    steps = [line["step"] for line in read_metrics(tmp_path / "b") if "loss" in line]
    assert steps == sorted(set(steps)) and steps[-1] == STEPS


@pytest.fixture(scope="module")
def finished(tmp_path_factory, few_digits):
    """A finished run on the embedded digits, with its config."""
    workdir = tmp_path_factory.mktemp("digits")
    config = tiny.config(data__holdback=100, evaluate__every_epochs=1)
    return config, str(workdir), train(config, str(workdir))


def test_a_run_leaves_its_summary(finished):
    config, workdir, state = finished
    summary = json.loads((Path(workdir) / "summary.json").read_text())
    for name in ("majority", "knn_raw_pixels", "knn_untrained", "knn_trained"):
        assert 2 < summary[name] < 60, name
        assert 2 < summary[f"{name}_balanced"] < 60, name
    assert summary["majority_balanced"] == pytest.approx(10)
    assert summary["train_seconds"] > 0
    assert summary["images_per_second"] > 0
    saved = Path(workdir, "checkpoints", str(state.step), "clock", "metadata")
    images = int(state.step) * config.batch_size
    assert json.loads(saved.read_text())["images"] == images
    lines = read_metrics(workdir)
    assert lines[0]["step"] == 0 and "knn_untrained" in lines[0]
    assert [line["step"] for line in lines if "knn" in line] == [int(state.step)]
    assert {"loss", "learning_rate", "neighbor_purity"} <= lines[-2].keys()
    assert choices.GOOD.keys() <= lines[-1].keys()
    assert "data_wait" not in summary and "data_wait" not in lines[-2]
    assert any((Path(workdir) / "tensorboard").iterdir())


def test_an_accuracy_is_said_with_the_balanced_one_and_that_of_the_majority():
    found = {"majority": 90.0, "knn_trained": 91.25, "knn_trained_balanced": 60.0}
    said = _sentence(found | {"train_seconds": 2.0, "images_per_second": 7})
    assert said.splitlines()[:2] == [
        "always the most frequent class: 90.00%",
        "kNN on the trained encoder: 91.25% (balanced 60.00%)",
    ]
    # An evaluator of one's own may have any names.
    numbers = {"knn": 1.0, "knn_balanced": 2.0, "mine": 3.0, "mine_balanced": 0.5}
    said = "kNN 1.00% (balanced 2.00%), mine 3, mine_balanced 0.5"
    assert in_sentence(numbers) == said


def test_a_finished_run_is_not_trained_again(finished):
    config, workdir, state = finished
    before = read_metrics(workdir)
    again = train(config, workdir)
    jax.tree.map(np.testing.assert_array_equal, again, state)
    assert read_metrics(workdir) == before


def test_a_run_that_was_killed_while_it_was_evaluated_has_the_line_in_the_end(
    finished, tmp_path, monkeypatch
):
    config, workdir, state = finished
    of_state = OnlineKnn.of_state

    def killed(knn, evaluated):
        if int(evaluated.step) > 0:
            raise KeyboardInterrupt
        return of_state(knn, evaluated)

    with monkeypatch.context() as patched:
        patched.setattr(OnlineKnn, "of_state", killed)
        with pytest.raises(KeyboardInterrupt):
            train(config, str(tmp_path))
    again = train(config, str(tmp_path))
    jax.tree.map(np.testing.assert_array_equal, again, state)
    scores = [
        [(line["step"], line["knn"]) for line in read_metrics(each) if "knn" in line]
        for each in (workdir, tmp_path)
    ]
    assert scores[0] == scores[1] != []


class EveryFewSteps:
    """An evaluator of a user."""

    def __init__(self, every: int, lock: Path) -> None:
        self.every_steps, self.lock, self.seen = every, lock, []

    def __call__(self, state, run) -> dict:
        self.lock.unlink()  # which the save before the next call takes again
        self.seen.append((int(state.step), run.data.train.size))
        picture = np.full((8, 8, 3), 7, np.uint8)
        return {"twice_the_step": 2 * int(state.step), "a_picture": picture}


def test_an_evaluator_of_ones_own_is_called_at_its_interval(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setitem(LOGGERS, "kept", KeptLogger)
    monkeypatch.setattr(KeptLogger, "opened", [])
    config = tiny.config(
        data__holdback=100, evaluate__every_epochs=0, log__to=("tensorboard", "kept")
    )
    mine = EveryFewSteps(5, tmp_path / LOCK_FILE)
    train(config, str(tmp_path), evaluators=[mine])
    assert [step for step, _ in mine.seen] == [5, 10, 12]
    assert mine.seen[0][1] == 200
    lines = read_metrics(tmp_path)
    written = {
        line["step"]: line["twice_the_step"]
        for line in lines
        if "twice_the_step" in line
    }
    assert written == {5: 10, 10: 20, 12: 24}
    assert [line["step"] for line in lines if "knn" in line] == [12]
    assert "step 10: twice_the_step 20" in capsys.readouterr().out
    shown = scalars(tmp_path / "tensorboard")
    assert {"a_picture", "twice_the_step"} <= shown.keys()
    (kept,) = KeptLogger.opened
    assert [{"step": step} | numbers for step, numbers in kept.numbers] == lines
    assert (10, "a_picture", (8, 8, 3)) in kept.images and kept.closed
    assert kept.run.settings["data"]["holdback"] == 100


def test_a_run_that_nothing_looks_at_saves_its_last_step(tmp_path, rng):
    images = rng.integers(0, 256, (48, 32, 32, 3), dtype=np.uint8)
    config = tiny.config(objective__queue__k=0, log__to=())
    state = train(config, str(tmp_path), data=images)
    assert not (tmp_path / "tensorboard").exists()
    assert saved_steps(tmp_path) == [int(state.step)] == [3]


def test_no_process_runs_the_step_before_all_have_compiled_it(monkeypatch):
    """A collective waits 30 s for one that still compiles, and aborts."""

    def late(compute, facts):
        compute(), facts(None)
        raise TimeoutError("process 1 of 2 did not get as far")

    monkeypatch.setattr(loop_module, "in_agreement", late)
    of_call = [1]
    loop: Any = SimpleNamespace(
        first_step=0,
        total_steps=10**6,
        config=SimpleNamespace(steps_per_call=1),
        # Asked once: of a million steps all are alike.
        _steps_of_call=lambda step: of_call.pop(),
        feed=SimpleNamespace(shaped=lambda batch, *, steps: batch),
    )
    with pytest.raises(TimeoutError, match="process 1 of 2"):
        loop_module.Loop._compile(loop, jax.jit(lambda a, b: a), 0, 0)


def test_an_evaluator_without_an_interval_is_refused(tmp_path):
    config = tiny.config(data__holdback=100)
    with pytest.raises(ValueError, match="either every_steps or every_epochs"):
        train(config, str(tmp_path), evaluators=[lambda state, run: {}])


def test_a_run_that_is_beyond_its_end_is_refused(finished, tmp_path):
    _, workdir, _ = finished
    shutil.copytree(workdir, tmp_path / "run")
    fewer = tiny.config(data__holdback=100, evaluate__every_epochs=1, batch_size=32)
    config = (tmp_path / "run" / "config.json").read_text()
    with pytest.raises(ValueError, match="at step 12 of the 6 that epochs=1"):
        train(fewer, str(tmp_path / "run"), allow=("batch_size",))
    assert (tmp_path / "run" / "config.json").read_text() == config


def test_the_newest_checkpoint_is_evaluated_as_in_training(finished):
    config, workdir, state = finished
    settings = evaluation.get_config("debug")
    settings.knn.k = (config.evaluate.k,)
    (record,) = evaluate(workdir, ["knn"], settings)
    summary = json.loads((Path(workdir) / "summary.json").read_text())
    name = f"k{config.evaluate.k}_T{config.evaluate.temperature:g}"
    for of_run, of_record in (("knn_trained", name), ("majority", "majority")):
        for end in ("", "_balanced"):
            found = record["metrics"][of_record + end]
            assert found == pytest.approx(summary[of_run + end])
    assert record["step"] == int(state.step)


def test_another_config_does_not_continue_a_run(finished):
    config, workdir, _ = finished
    other = tiny.config(data__holdback=100, objective__queue__k=2)
    with pytest.raises(
        ValueError, match="config.objective.queue.k is 2, the run has 4"
    ):
        train(other, workdir)
    # What does not enter the training step may change.
    train(config.copy_and_resolve_references(), workdir)


def test_a_request_to_stop_saves_and_says_how_to_continue(
    tmp_path, monkeypatch, capsys
):
    config = tiny.config(data__holdback=100)
    interrupt_at_batch(4, monkeypatch)
    with pytest.raises(Interrupted) as stopped:
        train(config, str(tmp_path))
    assert stopped.value.code == 128 + signal.SIGTERM
    assert [each.name for each in (tmp_path / "checkpoints").iterdir()] == ["4"]
    row = WatchedRun(str(tmp_path)).read(time.time())
    assert (row.state, row.cells["reason"]) == ("stopped", "SIGTERM")
    # In this order, and nothing that takes a minute before it is announced.
    said = capsys.readouterr().out
    for text in (
        "reading the images\n",
        "measuring kNN before training\n",
        f"{tmp_path}: steps 0 to 12 on",
        "compiling the training step; this may take a minute\n",
        "compiled the training step in",
        "the same command continues from there\n",
    ):
        _, found, said = said.partition(text)
        assert found, text


def test_a_loss_that_is_no_number_stops_the_run(tmp_path):
    config = tiny.config(
        data__holdback=100,
        optim__name="sgd",
        optim__learning_rate=1e30,
        optim__warmup_epochs=0.1,
        checkpoint__every_steps=1,
        checkpoint__keep=5,
    )
    with pytest.raises(
        NonFiniteError, match=r"step \d+ is not finite: loss.*learning_rate"
    ):
        train(config, str(tmp_path))
    row = WatchedRun(str(tmp_path)).read(time.time())
    assert row.state == "failed" and "is not finite" in row.cells["reason"]
    saved = sorted(int(e.name) for e in (tmp_path / "checkpoints").iterdir())
    assert saved == [1]  # its learning rate was still 0
    _, _, state = tiny.build(config, make_mesh())
    with contextlib.closing(Checkpoints(tmp_path, keep=1)) as checkpoints:
        split = open_data(config.data).train
        batches = Feed(config, split, make_mesh()).batches
        state, _ = checkpoints.restore(state, batches)
    assert state.step == saved[-1]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A finished run on a flat folder, cropped on the host: 6 steps in 3 epochs."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for number in range(40):
        pixels = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    path = os.path.relpath(folder)  # as a user types it
    config = tiny.config(
        epochs=3,
        data__name="folder",
        data__path=path,
        data__resident=False,
        evaluate__every_epochs=0,
    )
    workdir = tmp_path_factory.mktemp("run")
    return config, workdir, train(config, str(workdir))


def test_a_flat_folder_trains_without_labels(photos, tmp_path, monkeypatch):
    _, workdir, state = photos
    assert state.step == 6
    summary = json.loads((workdir / "summary.json").read_text())
    assert summary.keys() == {"train_seconds", "images_per_second", "data_wait"}
    lines = [line for line in read_metrics(workdir) if "loss" in line]
    assert all(0 <= line["data_wait"] <= 1 for line in [summary, *lines])
    # From any folder the images are found: they are not those of a missing path.
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="knn needs labels"):
        evaluate(workdir, ["knn"], evaluation.get_config("debug"))


def test_a_stopped_run_continues_with_the_next_batch_from_the_host(
    photos, tmp_path, monkeypatch
):
    config, _, state = photos
    with monkeypatch.context() as patch:
        interrupt_at_batch(4, patch)
        with pytest.raises(Interrupted):
            train(config, str(tmp_path))
    continued = train(config, str(tmp_path))
    assert not (tmp_path / "stopped.json").exists()
    jax.tree.map(np.testing.assert_array_equal, continued, state)
