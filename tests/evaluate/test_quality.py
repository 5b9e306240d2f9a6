"""Quality of features, against loops in numpy and known limits."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import scipy.special
import scipy.stats
import tiny
from saved import IMAGES, filled_queue

from snclr_jax.data import Split
from snclr_jax.encoder.stored import Encoder
from snclr_jax.evaluate import quality as quality_module
from snclr_jax.evaluate.memory.networks import Networks
from snclr_jax.evaluate.quality import (
    GOOD,
    alignment,
    effective_rank,
    neighbor_purity,
    quality,
    uniformity,
)
from snclr_jax.evaluate.quality_views import encode_random_views


def unit_rows(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def on_circle(count):
    angle = 2 * np.pi * np.arange(count) / count
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


@pytest.mark.parametrize("alpha", [1.0, 2.0])
def test_alignment_is_the_mean_power_of_the_distance(rng, alpha):
    first, second = rng.normal(size=(2, 30, 7))
    apart = [
        np.linalg.norm(x / np.linalg.norm(x) - y / np.linalg.norm(y)) ** alpha
        for x, y in zip(first, second, strict=True)
    ]
    found = alignment(first, second, alpha=alpha)
    assert found == pytest.approx(np.mean(apart), rel=1e-5)


def test_views_that_agree_are_aligned_to_rounding(rng):
    first = rng.normal(size=(50, 64))
    assert alignment(first, 3 * first) < 1e-12
    near = unit_rows(first) + 1e-4 * unit_rows(rng.normal(size=(50, 64)))
    expected = np.mean(np.sum((unit_rows(near) - unit_rows(first)) ** 2, axis=1))
    assert alignment(first, near) == pytest.approx(expected, rel=1e-2)
    assert alignment(first, -first) == pytest.approx(4, rel=1e-6)


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("t", [2.0, 0.5])
def test_uniformity_is_the_log_mean_kernel_of_all_pairs(
    rng, mesh_of, monkeypatch, devices, t
):
    monkeypatch.setattr(quality_module, "PAIRS", 100)  # blocks of 2 or 3 rows
    features = rng.normal(size=(37, 5)) + 1
    rows = unit_rows(features)
    kernel = [
        np.exp(-t * np.sum((rows[i] - rows[j]) ** 2))
        for i in range(37)
        for j in range(37)
        if i != j
    ]
    found = uniformity(features, mesh=mesh_of(devices), t=t)
    assert found == pytest.approx(np.log(np.mean(kernel)), rel=1e-5)


def test_uniformity_of_a_point_a_circle_and_a_sphere(rng, mesh_of):
    mesh, count = mesh_of(2), 200
    assert uniformity(np.ones((9, 4)), mesh=mesh) == pytest.approx(0, abs=1e-6)
    # The mean of exp(-t (2 - 2 cos)) over the circle is exp(-2t) I_0(2t).
    mean = np.exp(-4) * scipy.special.i0(4)
    expected = np.log((count * mean - 1) / (count - 1))
    found = uniformity(on_circle(count), mesh=mesh)
    assert found == pytest.approx(expected, rel=1e-5)
    # Far from each other in many dimensions: -2 t, and t more from the spread of cos.
    sphere = uniformity(rng.normal(size=(count, 512)), mesh=mesh)
    assert sphere == pytest.approx(-4 + 8 / 512, abs=0.01)


def rank_me(features, epsilon=1e-7):
    sigma = np.linalg.svd(features.astype(np.float64), compute_uv=False)
    share = sigma / np.abs(sigma).sum() + epsilon
    return np.exp(-np.sum(share * np.log(share)))


@pytest.mark.parametrize("shape", [(300, 20), (20, 300), (5000, 8)])
def test_effective_rank_is_rank_me_of_the_singular_values(rng, shape):
    features = (rng.normal(size=shape) + 0.3).astype(np.float32)
    assert effective_rank(features) == pytest.approx(rank_me(features), rel=1e-6)
    sigma = np.linalg.svd(features, compute_uv=False)
    # Without epsilon it is the exponential of scipy's entropy.
    entropy = np.exp(scipy.stats.entropy(sigma))
    assert effective_rank(features) == pytest.approx(entropy, rel=1e-4)


def test_small_singular_values_are_not_rounding(rng):
    """A spectrum over six decades, as features have that are about to collapse."""
    left, _ = np.linalg.qr(rng.normal(size=(400, 64)))
    right, _ = np.linalg.qr(rng.normal(size=(64, 64)))
    features = (left * np.logspace(0, -6, 64) @ right).astype(np.float32)
    assert effective_rank(features) == pytest.approx(rank_me(features), rel=1e-5)


def test_rank_of_collapsed_and_of_orthonormal_features(rng):
    collapsed = np.outer(rng.uniform(1, 2, 100), rng.normal(size=16))
    assert effective_rank(collapsed) == pytest.approx(1, abs=1e-4)
    orthonormal, _ = np.linalg.qr(rng.normal(size=(100, 16)))
    assert effective_rank(7 * orthonormal) == pytest.approx(16, rel=1e-4)
    assert effective_rank(np.zeros((4, 3))) == 0


def test_purity_counts_neighbors_among_known_images(rng, mesh_of):
    features = rng.normal(size=(41, 6)).astype(np.float32)
    labels = rng.integers(-1, 3, 41)
    rows = unit_rows(features)
    known = [i for i in range(41) if labels[i] >= 0]
    same = []
    for i in known:
        others = sorted((-rows[i] @ rows[j], j) for j in known if j != i)
        same += [labels[j] == labels[i] for _, j in others[:4]]
    for devices in (1, 8):
        found = neighbor_purity(features, labels, 4, mesh=mesh_of(devices))
        assert found == pytest.approx(np.mean(same))
    assert 0 < np.mean(same) < 1
    assert len(known) < 41


def test_everything_comes_back_by_name(rng, mesh_of):
    mesh, features = mesh_of(2), np.ones((16, 8)) + 1e-8
    collapsed = quality(features, features, features, k=3, mesh=mesh)
    assert collapsed == {
        "alignment": 0,
        "uniformity": pytest.approx(0, abs=1e-6),
        "effective_rank": pytest.approx(1, abs=1e-4),
        "feature_std": pytest.approx(0, abs=1e-6),
    }
    spread = rng.normal(size=(500, 32))
    labels = np.arange(500) % 2
    found = quality(spread, spread, spread, k=3, mesh=mesh, labels=labels)
    rows = unit_rows(spread)
    deviation = np.mean([np.std(rows[:, feature]) for feature in range(32)])
    assert found["feature_std"] == pytest.approx(32**0.5 * deviation, rel=1e-5)
    assert found["alignment"] == 0
    nearest = np.argsort(-(rows @ rows.T - 3 * np.eye(500)), axis=1)[:, :3]
    same = labels[nearest] == labels[:, None]
    assert found["neighbor_purity"] == pytest.approx(same.mean())
    # Of each a reader is told which values are good.
    assert found.keys() == GOOD.keys()


def test_what_does_not_fit_is_named(mesh_of):
    mesh, rows = mesh_of(1), np.ones((3, 2))
    with pytest.raises(ValueError, match=r"first-view.*\(3, 2\).*second-view.*\(2, 2"):
        alignment(rows, rows[:2])
    with pytest.raises(ValueError, match="alpha is 0"):
        alignment(rows, rows, alpha=0)
    with pytest.raises(ValueError, match="there is 1; use 2"):
        uniformity(rows[:1], mesh=mesh)
    with pytest.raises(ValueError, match="t is -1"):
        uniformity(rows, mesh=mesh, t=-1)
    with pytest.raises(ValueError, match="1 rows that are not finite.*row 2"):
        effective_rank(np.array([[1.0], [2.0], [np.nan]]))
    with pytest.raises(ValueError, match=r"labels have shape \(2,\) for 3 features"):
        neighbor_purity(rows, np.zeros(2, int), 1, mesh=mesh)
    with pytest.raises(ValueError, match="1 of 3 labels are known; use labels=None"):
        neighbor_purity(rows, np.array([-1, 4, -1]), 1, mesh=mesh)


def split_of(images):
    return Split(lambda indices: images[indices], size=len(images))


def without_augmentation():
    """Every view is the whole image."""
    whole = dict(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0))
    nothing = dict(flip=0.0, jitter=0.0, grayscale=0.0, blur=0.0, solarize=0.0)
    config = tiny.config()
    for view in (config.augment.view1, config.augment.view2):
        view.update(whole | nothing)
    return config


def networks_of(config, mesh):
    """Returns an untrained encoder and its run's networks, the queue full."""
    model, _, state = tiny.build(config, mesh)
    encoder = Encoder(
        model, state.params, state.batch_stats, config, "untrained", 0, "a test"
    )
    queue = filled_queue(np.random.default_rng(1), config, mesh, step=9)
    state = state.replace(objective=queue, step=np.int32(9))
    return encoder, Networks(*(getattr(state, name) for name in Networks._fields))


def test_unchanged_views_have_the_features_of_whole_images(rng, mesh_of):
    config, mesh = without_augmentation(), mesh_of(2)
    encoder, networks = networks_of(config, mesh)
    images = rng.integers(0, 256, (21, 32, 32, 3), dtype=np.uint8)
    ids = rng.permutation(IMAGES)[:21].astype(np.int32)
    mean, std = (np.array(each) for each in (config.data.mean, config.data.std))
    whole = np.float32((images / 255 - mean) / std)
    place = dict(config=config, mesh=mesh)

    # A batch, and one that has to be filled up.
    views = encode_random_views(encoder, None, split_of(images), ids, **place)
    expected = encoder.model.encode(encoder.params, encoder.batch_stats, whole)
    np.testing.assert_allclose(views.first, expected, atol=1e-4)
    np.testing.assert_allclose(views.second, expected, atol=1e-4)
    assert np.std(expected, axis=0).max() > 1e-2
    assert views.neighbors is None
    # One whole batch has the same statistics in any order.
    images, ids = images[:16], ids[:16]
    views = encode_random_views(encoder, networks, split_of(images), ids, **place)
    projection, _ = encoder.model.target(
        networks.target_params, networks.target_batch_stats, whole[:16]
    )
    t = unit_rows(np.asarray(projection))
    queue = jax.device_get(networks.objective)
    for i in range(16):
        offers = sorted(
            (-t[i] @ queue.keys[row], row)
            for row in range(config.objective.queue.size)
            if queue.pushed_at[row] >= 0 and queue.image_id[row] != ids[i]
        )[: config.objective.queue.k]
        assert views.neighbors.row[i].tolist() == [row for _, row in offers]


def test_random_views_differ_and_agree_on_one_and_eight_devices(rng, mesh_of):
    images = rng.integers(0, 256, (21, 32, 32, 3), dtype=np.uint8)
    config, ids = tiny.config(), np.arange(21, dtype=np.int32)

    def encoded(mesh):
        networks = networks_of(config, mesh)
        return encode_random_views(
            *networks, split_of(images), ids, config=config, mesh=mesh
        )

    one, eight = encoded(mesh_of(1)), encoded(mesh_of(8))
    for ours, theirs in zip(one[:2], eight[:2], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
    assert 0.001 < alignment(one.first, one.second) < 2
    similarities = (each.neighbors.similarity for each in (one, eight))
    np.testing.assert_allclose(*similarities, atol=1e-4)
    with pytest.raises(ValueError, match="16, in 1 micro-batches.*of 3 devices"):
        encode_random_views(
            None, None, split_of(images), ids, config=config, mesh=mesh_of(3)
        )
