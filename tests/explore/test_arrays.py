"""Duplicates, clusters and a spread subset, against loops over all images."""

from __future__ import annotations

import base64
import io
import itertools

import numpy as np
import pytest
from oracle import unit
from PIL import Image

from snclr_jax.explore import nearest
from snclr_jax.explore.clusters import find_clusters
from snclr_jax.explore.duplicates import (
    EQUAL,
    find_duplicates,
    saved_again,
    suggest_threshold,
)
from snclr_jax.explore.subset import spread
from snclr_jax.explore.thumbnails import COLUMNS, sheets

SAME = np.full((7, 4), 0.5, np.float32)  # of length 1


def rows_of(rng, count, size=5):
    return unit(rng.normal(size=(count, size))).astype(np.float32)


def neighbors(rows, k):
    """The k nearest others of each row, of equals the lowest first."""
    cosine = (rows @ rows.T).round(5)
    np.fill_diagonal(cosine, -np.inf)
    row = np.argsort(-cosine, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(cosine, row, axis=1), row


def components(count, pairs):
    """The sets of images that pairs connect, the largest first."""
    groups = [{row} for row in range(count)]
    for a, b in pairs:
        (of_a,), (of_b,) = ([g for g in groups if row in g] for row in (a, b))
        if of_a is not of_b:
            groups.remove(of_b)
            of_a |= of_b
    found = [sorted(group) for group in groups if len(group) > 1]
    return sorted(found, key=lambda group: (-len(group), group[0]))


def test_pairs_and_groups_are_those_of_all_comparisons(rng):
    rows = rows_of(rng, 40, 3)
    rows[[3, 30, 7]] = rows[11]  # equal
    cosine = rows @ rows.T
    expected = [
        pair for pair in itertools.combinations(range(40), 2) if cosine[pair] >= 0.97
    ]
    found = find_duplicates(rows, *neighbors(rows, 39), 0.97)
    assert sorted(map(tuple, found.pairs.tolist())) == expected
    assert np.all(np.diff(found.similarity) <= 0)
    for (a, b), value in zip(found.pairs, found.similarity, strict=True):
        assert value == pytest.approx(cosine[a, b], abs=1e-4)
    groups = [group.tolist() for group in found.groups]
    assert groups == components(40, expected) and len(groups) > 2
    for number, group in enumerate(groups):
        assert set(found.group[group]) == {number}


def test_groups_are_whole_where_images_have_more_duplicates_than_neighbors(rng):
    """Two heaps whose images are nearest to those of their own heap, and both alike."""
    center = rows_of(rng, 1, 8)
    near = unit(center + 0.01 * rng.normal(size=(1, 8)))
    heaps = [unit(c + 1e-4 * rng.normal(size=(6, 8))) for c in (center, near)]
    rows = np.concatenate([*heaps, rows_of(rng, 4, 8)]).astype(np.float32)
    found = find_duplicates(rows, *neighbors(rows, 3), 0.99)
    assert [group.tolist() for group in found.groups] == [list(range(12))]
    assert found.group[12:].tolist() == [-1] * 4


def test_equal_features_are_duplicates_at_any_threshold(rng):
    found = find_duplicates(SAME, *neighbors(SAME, 3), 1.0)
    assert found.threshold == EQUAL
    assert [group.tolist() for group in found.groups] == [list(range(7))]
    two = rows_of(rng, 2)
    none = find_duplicates(two, *neighbors(two, 1), 1.0)
    assert none.groups == [] and none.pairs.shape == (0, 2)
    assert none.group.tolist() == [-1, -1]


def test_a_threshold_lies_between_copies_and_other_images():
    of_others = np.linspace(0.5, 0.9, 101)[:, None]
    assert suggest_threshold(of_others, np.linspace(0.95, 1, 21)) == pytest.approx(
        0.9525
    )
    # Copies that are less alike than other images are none that can be told.
    assert suggest_threshold(of_others, np.full(9, 0.3)) == pytest.approx(0.896)
    assert suggest_threshold(np.ones((3, 2)), np.ones(3)) == EQUAL


def test_a_copy_is_nearly_the_picture():
    ramp = np.linspace(0, 255, 24, dtype=np.uint8)
    pictures = np.stack([np.broadcast_to(ramp[:, None, None], (24, 24, 3))] * 2)
    copies = saved_again(pictures)
    assert copies.shape == pictures.shape and copies.dtype == np.uint8
    off = np.abs(copies.astype(int) - pictures)
    assert 0 < off.mean() < 4
    channels = np.stack([*np.moveaxis(pictures, -1, 0), 255 - pictures[..., 0]], -1)
    copies = saved_again(channels)
    assert copies.shape == channels.shape
    off = np.abs(copies.astype(int) - channels).mean(axis=(0, 1, 2))
    assert 0 < off.min() <= off.max() < 4


def test_clusters_are_numbered_by_size(rng, monkeypatch):
    of_k_means = np.repeat([0, 1, 2], (5, 20, 9))
    monkeypatch.setattr("sklearn.cluster.KMeans.fit_predict", lambda *_: of_k_means)
    found = find_clusters(rows_of(rng, 34), 3, seed=0)
    assert found.label.tolist() == np.repeat([2, 0, 1], (5, 20, 9)).tolist()


def test_clusters_are_sorted_by_size_and_typicality(rng):
    sizes = (5, 20, 9)
    parts = [
        unit(np.eye(6)[place] + 0.05 * rng.normal(size=(size, 6)))
        for place, size in enumerate(sizes)
    ]
    rows = np.concatenate(parts).astype(np.float32)
    found = find_clusters(rows, 3, seed=0)
    assert [set(members) for members in found.members] == [
        *(set(range(5, 25)), set(range(25, 34)), set(range(5)))
    ]
    for members in found.members:
        cosine = rows[members] @ unit(rows[members].mean(axis=0)[None])[0]
        np.testing.assert_allclose(found.typicality[members], cosine, rtol=1e-5)
        assert np.all(np.diff(cosine) <= 1e-6)
    assert len(find_clusters(rows, None, seed=0).members) == 3  # of 34 images


@pytest.mark.parametrize("count", [1, 3, None])
def test_clusters_of_equal_features_are_one(count):
    found = find_clusters(SAME, count, seed=0)
    assert found.label.tolist() == [0] * 7 and len(found.members) == 1
    assert len(find_clusters(SAME[:1], count and 1, seed=0).members) == 1


def greedy(rows, count):
    """K-center greedy, from the row nearest to the mean, with all distances anew."""
    chosen = [int(np.argmax(rows @ rows.mean(axis=0)))]
    while len(chosen) < count:
        nearest_chosen = (rows @ rows[chosen].T).max(axis=1)
        nearest_chosen[chosen] = np.inf
        chosen.append(int(np.argmin(nearest_chosen)))
    return chosen, (rows @ rows[chosen].T).max(axis=1).min()


def test_the_subset_is_that_of_all_distances(rng):
    rows = rows_of(rng, 50)
    rows[40:] = rows[:10]
    chosen, reach = spread(rows, 12)
    expected, least = greedy(rows, 12)
    assert chosen.tolist() == expected and len(set(expected)) == 12
    assert reach == pytest.approx(least, abs=1e-6)


def test_a_subset_of_few_or_equal_images_has_each_once(rng):
    assert spread(SAME, 3)[0].tolist() == [0, 1, 2]
    chosen, reach = spread(rows_of(rng, 4), 9)
    assert sorted(chosen) == [0, 1, 2, 3] and reach == 1.0
    assert spread(SAME[:1], 5)[0].tolist() == [0]


def test_many_images_are_searched_by_faiss_and_few_exactly(rng, monkeypatch, mesh_of):
    pytest.importorskip("faiss", reason="FAISS is not among the requirements")
    rows = rows_of(rng, 400)
    rows[50:65] = rows[50]  # more equal ones than neighbors
    exact = nearest.nearest_others(rows, 5, mesh=mesh_of(1))
    monkeypatch.setattr(nearest, "EXACT_UP_TO", 399)
    assert not nearest.is_exact(400)
    similarity, row = nearest.nearest_others(rows, 5, mesh=mesh_of(1))
    assert row.shape == (400, 5) and not np.any(row == np.arange(400)[:, None])
    np.testing.assert_allclose(similarity, exact[0], atol=1e-5)


def test_a_picture_is_where_its_number_says():
    count, side = COLUMNS * COLUMNS + COLUMNS + 2, 4
    shade = (np.arange(count) * 37 % 256).astype(np.uint8)

    def read(rows):
        return np.broadcast_to(shade[rows, None, None, None], (len(rows), 8, 8, 3))

    found = sheets(read, np.arange(count), side)
    assert len(found) == 2
    for number, uri in enumerate(found):
        content = base64.b64decode(uri.removeprefix("data:image/webp;base64,"))
        sheet = np.asarray(Image.open(io.BytesIO(content)).convert("L"), float)
        here = np.arange(number * COLUMNS**2, min(count, (number + 1) * COLUMNS**2))
        line, column = np.divmod(here % COLUMNS**2, COLUMNS)
        middle = sheet[line * side + 2, column * side + 2]
        assert np.corrcoef(middle, shade[here])[0, 1] > 0.98
