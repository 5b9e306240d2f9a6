"""An objective without predictor, target network, state or neighbors, through a run."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from annotated_types import Ge, Lt
from saved import CLOCK, batches
from snclr_jax.configs import evaluate as evaluation

from snclr_jax.encoder.stored import open_encoder
from snclr_jax.evaluate.run import evaluate
from snclr_jax.report.run import report
from snclr_jax.run.checkpoint import Checkpoints
from snclr_jax.run.metrics import read_metrics
from snclr_jax.settings.check import check_config
from snclr_jax.step.objective import Objective
from snclr_jax.train import train


@dataclasses.dataclass(frozen=True)
class Spread:
    """A section of its own."""

    # How much rows are pushed apart.
    weight: Annotated[float, Ge(0)] = 1.0
    # Left out of the loss where it is None.
    limit: Annotated[float, Ge(0), Lt(1)] | None = None


@dataclasses.dataclass(frozen=True)
class Align(Objective):
    """Views of an image agree, and images do not."""

    power: Literal[1, 2] = 2
    spread: Spread = Spread()

    def loss(self, params, state, seen, now):
        apart = jnp.mean(jnp.sum((seen.projection[0] - seen.target[1]) ** 2, axis=-1))
        together = jnp.einsum("vid,vjd->vij", seen.projection, seen.projection)
        return apart + self.spread.weight * jnp.mean(together**self.power), apart

    def metrics(self, aux, seen, labels, now):
        return {
            "apart": aux,
            "length": jnp.mean(jnp.linalg.norm(seen.projection, axis=-1)),
        }


class AsTheyAre(Align):
    """The same on rows as the network makes them."""

    unit_rows = False


class Stopped(Align):
    """The same with its own stop."""

    def loss(self, params, state, seen, now):
        target = jax.lax.stop_gradient(seen.projection[:2])
        return super().loss(params, state, seen._replace(target=target), now)


class Passed(Align):
    """The same with a gradient through the target."""

    def loss(self, params, state, seen, now):
        seen = seen._replace(target=seen.projection[:2])
        return super().loss(params, state, seen, now)


def config_of(**fields):
    config = tiny.config(
        data__holdback=100,
        evaluate__every_epochs=0,
        # Moves the weights at the first step, and by the gradient.
        optim__name="sgd",
        optim__warmup_epochs=0.0,
        **tiny.NOTHING_DRAWN,
    )
    config.objective = Align.section("test_objective:Align")
    return tiny.override(config, **fields)


def test_a_predictor_and_a_target_network_that_are_not_used_do_not_exist(mesh_of):
    config, mesh = config_of(), mesh_of(8)
    _, step, state = tiny.build(config, mesh)
    assert set(state.params) == {"encoder", "projector"}
    assert state.target_params == state.target_batch_stats == {}
    trained = jax.tree_util.tree_leaves_with_path(state.opt_state)
    assert not any("predictor" in jax.tree_util.keystr(path) for path, _ in trained)
    after, metrics = step(state, tiny.batch(config, mesh))
    assert "ema_momentum" not in metrics and "apart" in metrics
    np.testing.assert_allclose(metrics["length"], 1, rtol=1e-6)
    assert int(after.step) == 1 and after.target_params == {}


def test_plain_global_arrays_of_any_length_are_exact_on_any_mesh(mesh_of):
    config = config_of(model__dtype="float64")
    config.objective.name = "test_objective:AsTheyAre"
    config.objective.spread.weight = 0.0
    results = []
    with jax.enable_x64(True):
        for devices in (1, 8):
            mesh = mesh_of(devices)
            _, step, state = tiny.build(config, mesh)
            state, metrics = step(state, tiny.batch(config, mesh))
            assert metrics["length"] > 1.1
            results.append(jax.device_get((state.params, metrics)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), *results)


def test_without_a_target_network_the_projection_is_the_target_without_gradient(
    mesh_of,
):
    def params_after(cls):
        config = config_of()
        config.objective.name = f"test_objective:{cls.__name__}"
        _, step, state = tiny.build(config, mesh_of(1))
        return jax.device_get(step(state, tiny.batch(config, mesh_of(1)))[0].params)

    ours, stopped, passed = map(params_after, (Align, Stopped, Passed))
    jax.tree.map(np.testing.assert_array_equal, ours, stopped)
    kernels = (each["projector"]["dense_0"]["kernel"] for each in (ours, passed))
    assert np.abs(np.subtract(*kernels)).max() > 1e-4


def test_settings_are_checked_by_their_annotations(mesh_of):
    for field, value, message in (
        ("power", 3, r"objective.power 3 is unknown; use one of \(1, 2\)"),
        ("spread__weight", -1.0, "objective.spread.weight -1.0 must be at least 0"),
        ("spread__limit", 1.0, "objective.spread.limit 1.0 must be below 1"),
    ):
        config = config_of()
        with config.unlocked(), pytest.raises(ValueError, match=message):
            tiny.override(config, **{f"objective__{field}": value})
            check_config(config, devices=8)
    check_config(config_of(objective__spread__limit=0.5), devices=8)
    with pytest.raises(ValueError, match="has no target network; use 'online'"):
        check_config(config_of(evaluate__network="target"), devices=8)


def test_a_state_without_arrays_is_saved_and_restored(mesh_of, tmp_path):
    config, mesh = config_of(), mesh_of(2)
    _, _, state = tiny.build(config, mesh)
    with contextlib.closing(Checkpoints(tmp_path, keep=1)) as checkpoints:
        checkpoints.save(state, batches(), CLOCK, config)
    with contextlib.closing(Checkpoints(tmp_path, keep=1)) as checkpoints:
        restored, _ = checkpoints.restore(state, batches())
    jax.tree.map(np.testing.assert_array_equal, restored, state)
    with pytest.raises(ValueError, match="has no target network"):
        open_encoder(tmp_path, network="target", mesh=mesh)


@pytest.mark.usefixtures("few_digits", "blank_figures")
def test_a_whole_run_trains_evaluates_and_is_reported(tmp_path):
    state = train(config_of(), str(tmp_path))
    assert int(state.step) == 12
    (last,) = [line for line in read_metrics(tmp_path) if "knn" in line]
    assert last["step"] == 12
    settings = evaluation.get_config("debug")
    (record,) = evaluate(str(tmp_path), ["quality"], settings)
    assert "queue_fill" not in record["metrics"]
    page = report(tmp_path).read_text()
    assert "finds no neighbors" in page
