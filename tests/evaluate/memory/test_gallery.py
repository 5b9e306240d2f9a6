"""The gallery against loops over images and rows, and the pictures that it names."""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest
import tiny
from saved import IMAGES, filled_queue

from snclr_jax.data import Split
from snclr_jax.evaluate.memory.gallery import (
    Gallery,
    choose_queries,
    find_gallery,
    read_pictures,
)
from snclr_jax.evaluate.memory.networks import Search


def unit_rows(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def split_of(images, labels=None):
    return Split(lambda rows: images[rows], size=len(images), labels=labels)


@functools.cache
def a_run(mesh):
    """Returns (config, model, state) with a target and an attention of their own."""
    config = tiny.config(
        objective__attention__kind="linear", objective__attention__temperature=0.2
    )
    model, _, state = tiny.build(config, mesh)
    rng = np.random.default_rng(1)
    networks = jax.device_get((state.params, state.target_params))
    moved = jax.tree.map(
        lambda leaf: leaf + 0.1 * rng.normal(size=leaf.shape).astype(np.float32),
        networks,
    )
    moved = jax.device_put(moved, state.step.sharding)
    queue = filled_queue(rng, config, mesh, step=9)
    step = jax.device_put(np.int32(9), state.step.sharding)
    state = state.replace(
        params=moved[0], target_params=moved[1], objective=queue, step=step
    )
    return config, model, state


def expected_gallery(config, model, state, images, image_id):
    """Lists every image's eligible rows by cosine, then their softmax, in loops."""
    mean, std = (np.array(each) for each in (config.data.mean, config.data.std))
    whole = np.float32((images[image_id] / 255 - mean) / std)
    target, _ = jax.jit(model.target)(
        state.target_params, state.target_batch_stats, whole
    )
    outputs, _ = jax.jit(model.online)(state.params, state.batch_stats, whole)
    t = unit_rows(np.asarray(target))
    y = unit_rows(np.asarray(outputs.projection))
    w1, w2 = (np.asarray(state.params["objective"][name]) for name in ("w1", "w2"))
    anchor = y @ w1.T @ w2
    queue = jax.device_get(state.objective)
    for i, image in enumerate(image_id):
        offers = sorted(
            (-t[i] @ queue.keys[row], row)
            for row in range(config.objective.queue.size)
            if queue.pushed_at[row] >= 0 and queue.image_id[row] != image
        )[: config.objective.queue.k]
        rows = [row for _, row in offers]
        weights = np.exp([anchor[i] @ queue.keys[row] / 0.2 for row in rows])
        yield rows, [-s for s, _ in offers], weights / weights.sum()


@pytest.mark.parametrize("devices", [8, pytest.param(1, marks=pytest.mark.slow)])
def test_a_gallery_is_what_the_next_step_would_choose(rng, mesh_of, devices):
    mesh = mesh_of(devices)
    config, model, state = a_run(mesh)
    images = rng.integers(0, 256, (IMAGES, 32, 32, 3), dtype=np.uint8)
    labels = rng.integers(-1, 3, IMAGES).astype(np.int32)
    image_id = rng.permutation(IMAGES)[: config.batch_size]
    split = split_of(images, labels)
    found = find_gallery(Search.of(config, mesh), state, split, image_id)
    queue = jax.device_get(state.objective)
    for i, (rows, similarity, weights) in enumerate(
        expected_gallery(config, model, state, images, image_id)
    ):
        assert found.row[i].tolist() == rows
        np.testing.assert_allclose(found.similarity[i], similarity, atol=1e-4)
        np.testing.assert_allclose(found.weight[i], weights, atol=1e-3)
        neighbors = queue.image_id[rows]
        assert found.neighbor_id[i].tolist() == neighbors.tolist()
        assert found.age[i].tolist() == (9 - queue.pushed_at[rows]).tolist()
        assert found.neighbor_label[i].tolist() == labels[neighbors].tolist()
        assert found.neighbor_name[i].tolist() == [f"image/{row}" for row in neighbors]
    assert found.query_label.tolist() == labels[image_id].tolist()
    assert found.query_name.tolist() == [f"image/{row}" for row in image_id]
    assert found.valid.all() and np.ptp(found.weight) > 0.1


def test_few_images_are_found_in_a_batch_of_others(rng, mesh_of):
    mesh = mesh_of(8)
    config, _, state = a_run(mesh)
    images = rng.integers(0, 256, (IMAGES, 32, 32, 3), dtype=np.uint8)
    search, ids = Search.of(config, mesh), np.array([7, 3])
    found = find_gallery(search, state, split_of(images), ids)
    again = find_gallery(search, state, split_of(images), ids)
    jax.tree.map(np.testing.assert_array_equal, found, again)
    assert found.row.shape == (2, 4) and found.query_label is None
    # Alone in a batch of copies of themselves they would all be 0 after BatchNorm.
    assert np.all(found.similarity[:, 0] > 0.1)
    assert (np.diff(found.similarity) <= 0).all()
    assert not (found.neighbor_id == found.query_id[:, None]).any()


def test_what_cannot_be_searched_is_named(mesh_of):
    config = tiny.config(objective__queue__k=0)
    with pytest.raises(ValueError, match="objective finds no neighbors"):
        find_gallery(Search.of(config, mesh_of(1)), None, None, [0])
    config.objective.queue.k = 2
    with pytest.raises(ValueError, match="16, in 1 micro-batches.*of 3 devices"):
        find_gallery(Search.of(config, mesh_of(3)), None, None, [0])


def test_queries_are_of_as_many_classes_as_there_are():
    labels = np.repeat([5, 2, 8, -1], [30, 20, 10, 40])
    split = split_of(np.zeros((100, 1)), labels)
    chosen = choose_queries(split, 8, seed=0)
    assert np.bincount(labels[chosen], minlength=9)[[2, 5, 8]].tolist() == [3, 3, 2]
    assert len(set(chosen)) == 8 and (np.diff(labels[chosen]) >= 0).all()
    assert chosen.tolist() == choose_queries(split, 8, seed=0).tolist()
    assert chosen.tolist() != choose_queries(split, 8, seed=1).tolist()
    # Two of the smallest class are all there are of it.
    assert len(choose_queries(split, 500, seed=0)) == 60
    many = split_of(np.zeros((1000, 1)), np.arange(1000) % 100)
    assert (choose_queries(many, 8, seed=0) % 100).tolist() == [
        *(0, 14, 28, 42, 57, 71, 85, 99)
    ]
    for labels in (None, np.full(100, -1)):
        unknown = split_of(np.zeros((100, 1)), labels)
        assert choose_queries(unknown, 4, seed=0).tolist() == [0, 33, 66, 99]


def test_pictures_are_those_of_the_ids(rng):
    images = rng.integers(1, 256, (9, 2, 2, 3), dtype=np.uint8)
    ids = np.array([[3, 8, -1], [3, 0, 1]])
    blank = np.zeros((2, 3))
    gallery = Gallery(
        *(np.array([5, 5]), ids, blank, blank, blank, blank, ids >= 0, None, None),
        query_name=np.array(["image/5"] * 2),
        neighbor_name=ids.astype(str),
    )
    queries, neighbors = read_pictures(split_of(images), gallery)
    assert np.array_equal(queries, images[[5, 5]])
    assert np.array_equal(neighbors[1], images[[3, 0, 1]])
    assert np.array_equal(neighbors[0, :2], images[[3, 8]])
    assert not neighbors[0, 2].any()
    assert gallery.nearest(2).neighbor_id.tolist() == [[3, 8], [3, 0]]
    assert gallery.nearest(2).neighbor_name.tolist() == [["3", "8"], ["3", "0"]]
    assert gallery.nearest(2).query_id.tolist() == [5, 5]
