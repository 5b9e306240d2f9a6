"""The online probe learns from features and labels, and moves nothing but itself."""

from __future__ import annotations

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from real_runs import interrupt_at_batch
from saved import batches

from snclr_jax.devices.mesh import make_mesh, place_batch
from snclr_jax.devices.stop_requests import Interrupted
from snclr_jax.encoder.stored import open_encoder
from snclr_jax.run.checkpoint import Checkpoints
from snclr_jax.run.metrics import read_metrics
from snclr_jax.step.probe import count_classes, init_probe, update_probe
from snclr_jax.step.views import Batch
from snclr_jax.train import train

CLASSES = 3  # of tiny.batch


def batch_of(labels):
    labels = jnp.asarray(labels, jnp.int32)
    return Batch(image_id=jnp.arange(len(labels)), labels=labels)


def softmax(row):
    powers = [np.exp(each - max(row)) for each in row]
    return [each / sum(powers) for each in powers]


def expected_steps(batches, classes, rate=1.0, momentum=0.9):
    """Softmax regression by SGD with momentum in float64, one image at a time."""
    width = batches[0][0].shape[1]
    weights, velocity = np.zeros((2, width + 1, classes))
    metrics = []
    for feature, label in batches:
        rows = (feature - feature.mean(0)) / feature.std(0) / np.sqrt(width)
        rows = np.append(rows, np.ones((len(rows), 1)), axis=1)
        known = [each for each in zip(rows, label, strict=True) if each[1] >= 0]
        gradient, loss, hits = np.zeros_like(weights), 0.0, 0
        for row, each in known:
            share = softmax(row @ weights)
            loss -= np.log(share[each]) / len(known)
            hits += np.argmax(share) == each
            error = share - np.eye(classes)[each]
            gradient += np.outer(row, error) / len(known)
        metrics.append((loss, 100 * hits / len(known)))
        velocity = momentum * velocity + gradient
        weights = weights - rate * velocity
    return weights, metrics


def test_it_is_softmax_regression_by_sgd_on_known_labels(rng):
    scale = rng.uniform(0.01, 100, 5)
    batches = []
    for _ in range(4):
        label = rng.integers(-1, CLASSES, 40)
        feature = (rng.normal(size=(40, 5)) + label[:, None] + 3) * scale
        batches.append((feature, label))
    probe, found, step = init_probe(5, CLASSES, jnp.float32), [], jax.jit(update_probe)
    for feature, label in batches:
        feature = jnp.asarray(feature, jnp.float32)
        probe, metrics = step(probe, feature, batch_of(label))
        found.append([metrics["probe_loss"], metrics["probe_accuracy"]])
    weights, expected = expected_steps(batches, CLASSES)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    np.testing.assert_allclose(probe.weights["kernel"], weights[:-1], atol=1e-4)
    np.testing.assert_allclose(probe.weights["bias"], weights[-1], atol=1e-4)
    # Before the first step all classes are equal, and the first of equals counts.
    assert found[0][0] == pytest.approx(np.log(CLASSES), rel=1e-6)
    assert found[-1][0] < found[0][0]


def test_features_that_never_move_and_batches_without_labels_change_nothing(rng):
    step, start = jax.jit(update_probe), init_probe(2, 2, jnp.float32)
    probe, _ = step(start, jnp.asarray(rng.normal(size=(8, 2))), batch_of([0, 1] * 4))
    after, metrics = step(probe, jnp.ones((8, 2)), batch_of([-1] * 8))
    assert metrics == {"probe_loss": 0, "probe_accuracy": 0}
    # What remains is the momentum of the step before.
    moved = probe.weights["kernel"] - 0.9 * probe.opt_state[0].trace["kernel"]
    np.testing.assert_allclose(after.weights["kernel"], moved, rtol=1e-5)
    dead, _ = step(start, jnp.ones((8, 2)), batch_of([0, 1] * 4))
    assert jnp.all(dead.weights["kernel"] == 0)


def test_the_rate_is_stable_for_the_steepest_features():
    """All features are one: the curvature is as large as it can be."""
    label = jnp.tile(jnp.array([0, 1]), 32)
    feature = jnp.tile(100.0 * label[:, None] + 5, (1, 64))
    probe, step = init_probe(64, 2, jnp.float32), jax.jit(update_probe)
    losses = []
    for _ in range(60):
        probe, metrics = step(probe, feature, batch_of(label))
        losses.append(float(metrics["probe_loss"]))
    assert metrics["probe_accuracy"] == 100
    assert max(losses) == losses[0] and losses[-1] < 0.01


def test_labels_are_counted_or_asked_for():
    assert count_classes(np.array([1, -1, 4], np.int32)) == 5
    for none in (None, np.full(3, -1, np.int32)):
        with pytest.raises(ValueError, match="online_probe.*no training image has one"):
            count_classes(none)
    with pytest.raises(ValueError, match="this batch has none.*online_probe=False"):
        update_probe(
            init_probe(2, 2, jnp.float32), jnp.ones((4, 2)), Batch(jnp.arange(4))
        )
    assert update_probe(None, jnp.ones((4, 2)), Batch(jnp.arange(4))) == (None, {})


def batch_of_known_views(config, mesh, seed):
    """As from the host; every view is an image of its own."""
    batch = tiny.batch(config, mesh, seed=seed, resident=False)
    rng = np.random.default_rng(100 + seed)
    views = [
        rng.integers(0, 256, view.shape, dtype=np.uint8) // (2 + number)
        for number, view in enumerate(batch.views)
    ]
    return batch.replace(views=tuple(place_batch(view, mesh) for view in views))


def steps(config, mesh, probe_classes):
    """Returns the metrics and the state after each of three steps."""
    _, step, state = tiny.build(config, mesh, probe_classes=probe_classes)
    kept = []
    for seed in range(3):
        state, metrics = step(state, batch_of_known_views(config, mesh, seed))
        kept.append(jax.device_get((metrics, state)))
    return kept


def assert_the_same_bits(probed, plain):
    for (metrics, state), (plain_metrics, plain_state) in zip(
        probed, plain, strict=True
    ):
        assert plain_state.probe is None
        assert metrics.keys() - plain_metrics.keys() == {"probe_loss", "probe_accuracy"}
        for name, value in plain_metrics.items():
            np.testing.assert_array_equal(metrics[name], value, err_msg=name)
        jax.tree.map(
            np.testing.assert_array_equal, state.replace(probe=None), plain_state
        )


def assert_it_learned_from_the_first_view(probed, config, mesh):
    """The first step: features of the untrained network, a probe of zeros."""
    model, _, state = tiny.build(config, mesh)
    batch = batch_of_known_views(config, mesh, 0)
    mean, std = (np.array(each) for each in (config.data.mean, config.data.std))
    view = np.float32((np.asarray(batch.views[0]) / 255 - mean) / std)
    outputs, _ = jax.jit(model.online)(state.params, state.batch_stats, view)
    feature = np.asarray(outputs.feature, np.float64)
    label = np.asarray(batch.labels)[np.asarray(batch.image_id)]
    weights, ((loss, accuracy),) = expected_steps([(feature, label)], CLASSES)
    found, after = probed[0]
    np.testing.assert_allclose(found["probe_loss"], loss, rtol=1e-5)
    np.testing.assert_allclose(found["probe_accuracy"], accuracy, rtol=1e-5)
    np.testing.assert_allclose(after.probe.weights["kernel"], weights[:-1], atol=1e-4)
    np.testing.assert_allclose(after.probe.weights["bias"], weights[-1], atol=1e-6)
    assert np.abs(weights[:-1]).max() > 0.03


# AdamW compiles slower.
PLAIN = dict(optim__name="sgd", **tiny.NOTHING_DRAWN)
PARTS_AND_VIEWS = PLAIN | dict(
    accumulate=2, model__bn_scope=4, augment__global_views=3, augment__local_views=1
)


@pytest.fixture(scope="module")
def on_eight(mesh_of):
    return steps(tiny.config(**PLAIN), mesh_of(8), CLASSES)


def test_pretraining_has_the_same_bits_with_and_without_it(on_eight, mesh_of):
    assert_the_same_bits(on_eight, steps(tiny.config(**PLAIN), mesh_of(8), 0))


def test_it_learns_from_the_first_view_on_any_number_of_devices(on_eight, mesh_of):
    assert_it_learned_from_the_first_view(on_eight, tiny.config(**PLAIN), mesh_of(1))


def with_probe(state, value):
    weights = jax.tree.map(
        lambda leaf: leaf + value, init_probe(5, CLASSES, jnp.float32).weights
    )
    return state.replace(
        probe=init_probe(5, CLASSES, jnp.float32).replace(weights=weights)
    )


def save(workdir, state):
    with contextlib.closing(Checkpoints(workdir, keep=1)) as checkpoints:
        checkpoints.save(state, batches(), {"images": 0}, tiny.config())


def restored(workdir, state):
    with contextlib.closing(Checkpoints(workdir, keep=1)) as checkpoints:
        return checkpoints.restore(state, batches())[0]


def test_checkpoints_hold_it_and_fit_runs_without_it(tmp_path, mesh_of):
    _, _, plain = tiny.build(tiny.config(), mesh_of(1))
    probed, fresh = with_probe(plain, 2.0), with_probe(plain, 0.0)
    blank = jax.tree.map(lambda leaf: leaf * 0, probed)
    equal = np.testing.assert_array_equal

    save(tmp_path / "probed", probed)
    jax.tree.map(equal, restored(tmp_path / "probed", blank), probed)
    jax.tree.map(equal, restored(tmp_path / "probed", plain), plain)

    save(tmp_path / "plain", plain)
    items = {each.name for each in (tmp_path / "plain/checkpoints/0").iterdir()}
    assert "state" in items and "probe" not in items
    blank = blank.replace(probe=fresh.probe)
    jax.tree.map(equal, restored(tmp_path / "plain", blank), fresh)


@pytest.mark.slow
def test_a_run_learns_digits_resumes_exactly_and_is_evaluated(tmp_path, monkeypatch):
    config = tiny.config(
        data__holdback=200, evaluate__online_probe=True, log__every_steps=20
    )
    state = train(config, str(tmp_path / "whole"))
    lines = [line for line in read_metrics(tmp_path / "whole") if "loss" in line]
    assert lines[0]["probe_accuracy"] < lines[-2]["probe_accuracy"]
    with monkeypatch.context() as patch:
        interrupt_at_batch(30, patch)
        with pytest.raises(Interrupted):
            train(config, str(tmp_path / "stopped"))
    continued = train(config, str(tmp_path / "stopped"))
    jax.tree.map(np.testing.assert_array_equal, continued, state)
    encoder = open_encoder(tmp_path / "whole", mesh=make_mesh())
    assert encoder.step == int(state.step)


@pytest.mark.slow
def test_one_and_eight_devices_agree_for_three_steps(on_eight, mesh_of):
    one = steps(tiny.config(**PLAIN), mesh_of(1), CLASSES)
    # As for every other metric, rounding differences grow from step to step.
    for number, tolerance in enumerate((1e-5, 1e-4, 1e-3)):
        (metrics, state), (metrics8, state8) = one[number], on_eight[number]
        for name in ("probe_loss", "probe_accuracy"):
            np.testing.assert_allclose(metrics8[name], metrics[name], rtol=tolerance)
        jax.tree.map(
            lambda ours, theirs, atol=tolerance: np.testing.assert_allclose(
                ours, theirs, atol=atol
            ),
            state8.probe,
            state.probe,
        )


@pytest.mark.slow
def test_parts_and_many_views_change_nothing_of_that(mesh_of):
    config = tiny.config(**PARTS_AND_VIEWS)
    probed = steps(config, mesh_of(2), CLASSES)
    assert_the_same_bits(probed, steps(config, mesh_of(2), 0))
    assert_it_learned_from_the_first_view(probed, config, mesh_of(2))
