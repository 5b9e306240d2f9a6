"""The metrics of a step, against loops over directions, images and neighbors."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snclr_jax.objectives.snclr import SNCLR
from snclr_jax.objectives.snclr_fused import Direction
from snclr_jax.queue.ring import Neighbors
from snclr_jax.queue.settings import QueueSettings
from snclr_jax.step.forward import feature_std
from snclr_jax.step.objective import Now, Seen

STEP, TARGETS, VIEWS, IMAGES, K = 9, 2, 3, 4, 3
LABELS = [5, 5, -1, 5, 7, 7, -1]
IMAGE_ID = [1, 4, 2, 0]
# Neighbors are sorted: the missing ones are the last. One image has none at all.
VALID = np.array(
    [
        [[1, 1, 1], [1, 1, 0], [0, 0, 0], [1, 0, 0]],
        [[1, 1, 0], [1, 1, 1], [1, 0, 0], [0, 0, 0]],
    ],
    bool,
)


def describe(directions, image_id, step, labels=None):
    search = "exact" if directions[0].recall is None else "approx"
    snclr = SNCLR(queue=QueueSettings(k=K, search=search), neighbor_weight=0.5)
    seen, now = Seen(None, None, None, jnp.asarray(image_id)), Now(step, 1, None)
    labels = None if labels is None else jnp.asarray(labels)
    # A single compilation, and not one an operation.
    metrics = jax.jit(lambda aux: snclr.metrics(aux, seen, labels, now))(directions)
    assert metrics.pop("neighbor_weight") == 0.5
    return metrics


@pytest.fixture
def directions(rng):
    """As the search leaves them; a missing neighbor has similarity -inf and no id."""
    found = []
    for valid in VALID:
        weights = np.where(valid, rng.uniform(0.1, 1, (VIEWS, IMAGES, K)), 0)
        neighbors = Neighbors(
            keys=None,
            similarity=np.where(valid, rng.uniform(-1, 1, (IMAGES, K)), -np.inf),
            row=rng.integers(0, 99, (IMAGES, K)),
            image_id=np.where(valid, rng.integers(0, 7, (IMAGES, K)), -1),
            pushed_at=np.where(valid, rng.integers(0, STEP, (IMAGES, K)), -1),
            valid=valid,
        )
        neighbors = Neighbors(None, *(jnp.asarray(leaf) for leaf in neighbors[1:]))
        recall = jnp.asarray(0.25 + 0.5 * len(found))
        found.append(Direction(jnp.zeros(()), jnp.asarray(weights), neighbors, recall))
    return tuple(found)


def expected(directions):
    weights, similarities, ages, entropies, same = [], [], [], [], []
    for (_, found, neighbors, _), valid in zip(directions, VALID, strict=True):
        for i in range(IMAGES):
            own = LABELS[IMAGE_ID[i]]
            for k in range(K):
                if not valid[i, k]:
                    continue
                weights += [float(found[v, i, k]) for v in range(VIEWS)]
                similarities.append(float(neighbors.similarity[i, k]))
                ages.append(STEP - int(neighbors.pushed_at[i, k]))
                theirs = LABELS[int(neighbors.image_id[i, k])]
                if own >= 0 and theirs >= 0:
                    same.append(own == theirs)
            if not valid[i].any():
                continue
            for v in range(VIEWS):
                row = [float(found[v, i, k]) for k in range(K) if valid[i, k]]
                shares = [weight / sum(row) for weight in row]
                entropies.append(-sum(share * np.log(share) for share in shares))
    return {
        "positiveness_mean": np.mean(weights),
        "positiveness_max": max(weights),
        "positiveness_entropy": np.mean(entropies),
        "neighbor_similarity": np.mean(similarities),
        "neighbor_age": np.mean(ages),
        "neighbors_found": len(ages) / (TARGETS * IMAGES * K),
        "neighbor_purity": np.mean(same),
        "search_recall": 0.5,
    }


def test_every_metric_is_a_mean_over_the_neighbors_that_were_found(directions):
    metrics = describe(directions, IMAGE_ID, STEP, LABELS)
    values = expected(directions)
    assert 0 < values["neighbor_purity"] < 1
    assert metrics.keys() == values.keys()
    for name, value in values.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-5, err_msg=name)


def test_without_labels_there_is_no_purity_and_without_approximation_no_recall(
    directions,
):
    exact = tuple(each._replace(recall=None) for each in directions)
    metrics = describe(exact, IMAGE_ID, STEP)
    assert expected(directions).keys() - metrics.keys() == {
        "neighbor_purity",
        "search_recall",
    }


def test_where_nothing_was_found_every_metric_is_zero(directions):
    none = tuple(
        each._replace(
            weights=0 * each.weights,
            neighbors=each.neighbors._replace(
                valid=jnp.zeros_like(each.neighbors.valid),
                similarity=jnp.full((IMAGES, K), -jnp.inf),
                image_id=jnp.full((IMAGES, K), -1),
            ),
        )
        for each in directions
    )
    metrics = describe(none, IMAGE_ID, STEP, LABELS)
    assert metrics.pop("search_recall") == 0.5
    assert {name: float(value) for name, value in metrics.items()} == dict.fromkeys(
        metrics, 0.0
    )


@pytest.mark.parametrize(
    ("labels", "purity"),
    [
        ([5, 5, 4, 5], 2 / 3),
        ([5, 5, -1, 5], 1),
        ([5, -1, 4, 5], 0),
        ([-1, -1, -1, -1], 0),
    ],
)
def test_purity_counts_known_labels_only(labels, purity):
    """Image 0 chose 1 and 2, image 1 chose 0; id 3 stands at a missing neighbor."""
    ones = jnp.ones((2, 2))
    neighbors = Neighbors(
        keys=None,
        similarity=ones,
        row=ones,
        image_id=jnp.array([[1, 2], [0, 3]]),
        pushed_at=ones,
        valid=jnp.array([[True, True], [True, False]]),
    )
    direction = Direction(jnp.zeros(()), ones[None], neighbors, None)
    metrics = describe((direction, direction), [0, 1], 1, labels)
    assert float(metrics["neighbor_purity"]) == pytest.approx(purity)


def test_feature_std_is_the_mean_deviation_of_features_times_the_root_of_d(rng):
    y = rng.normal(size=(6, 4))
    y /= np.linalg.norm(y, axis=1, keepdims=True)
    deviations = []
    for feature in y.T:
        mean = sum(feature) / 6
        deviations.append((sum((value - mean) ** 2 for value in feature) / 6) ** 0.5)
    expected = 2 * sum(deviations) / 4
    np.testing.assert_allclose(feature_std(jnp.asarray(y)), expected, rtol=1e-6)
    assert feature_std(jnp.ones((8, 4))) == 0
