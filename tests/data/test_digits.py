"""The embedded digits."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits

from snclr_jax.data.digits import LUMINANCE, POOL, _places, draw_digits, open_digits
from snclr_jax.data.split import hold_back


@pytest.fixture(scope="module")
def digits():
    return open_digits("digits", 32, 3)


def raw_pixel_knn(train, test, count: int, k: int = 20) -> float:
    """Accuracy of the weighted kNN (cosine, temperature 0.07) on raw pixels."""

    def unit(split):
        pixels = split.images().reshape(split.size, -1).astype(np.float32)
        return pixels / np.linalg.norm(pixels, axis=1, keepdims=True)

    similarity = unit(test)[:count] @ unit(train).T
    right = 0
    for row, label in zip(similarity, test.labels, strict=False):
        votes = np.zeros(10)
        for neighbor in np.argsort(-row)[:k]:
            votes[train.labels[neighbor]] += np.exp(row[neighbor] / 0.07)
        right += votes.argmax() == label
    return right / count


def test_counts_and_types(digits):
    train, test, names = digits
    assert (train.size, test.size) == (1500 * 3, 297 * 4)
    assert names == tuple("0123456789")
    for split in (train, test):
        assert split.images().shape == (split.size, 32, 32, 3)
        assert split.images().dtype == np.uint8
        assert split.labels.dtype == split.group.dtype == np.int32
        assert len(split.labels) == len(split.group) == split.size


def test_no_original_is_in_both_splits(digits):
    train, test, _ = digits
    originals = [set(split.group.tolist()) for split in (train, test)]
    assert [len(o) for o in originals] == [1500, 297]
    assert originals[0] | originals[1] == set(range(1797))


def test_labels_are_those_of_the_originals(digits):
    truth = load_digits().target
    for split in digits[:2]:
        assert np.array_equal(split.labels, truth[split.group])


def test_splits_are_stratified(digits):
    per_class = np.bincount(load_digits().target)
    held = np.bincount(digits[1].labels) / 4
    assert np.abs(held - per_class * 297 / 1797).max() < 1


def test_pictures_are_deterministic_and_extend(digits):
    train, test, _ = digits
    fewer, same_test, _ = open_digits("digits", 32, 1)
    assert np.array_equal(fewer.images(), train.images()[:1500])
    assert np.array_equal(same_test.images(), test.images())


def test_names_tell_the_split_and_the_row(digits):
    assert digits[0].names([0, 4499]) == ["digits/train/0", "digits/train/4499"]
    assert digits[1].names([3]) == ["digits/test/3"]


def test_every_picture_of_an_original_differs(digits):
    train = digits[0]
    pictures = train.images()[train.group == train.group[0]].reshape(3, -1)
    assert len(np.unique(pictures, axis=0)) == 3


def test_raw_pixels_do_not_tell_the_class(digits):
    train, test, _ = digits
    assert 0.10 < raw_pixel_knn(train, test, 600) < 0.22


@pytest.mark.parametrize("side_by_side", [1, 2])
def test_digits_are_wholly_inside_and_legible(side_by_side):
    # A full box is the hardest case: every picture's border must be bare ground, up to
    # the gradient, and its darkest or brightest part must stand out from the border.
    masks = np.zeros((300, 8, 8 * side_by_side), np.float32)
    masks[:, 1:7, 1:-1] = 1
    pictures = draw_digits(masks, 32, np.random.RandomState(0)).astype(np.float32)
    luminance = pictures @ LUMINANCE
    border = np.ones((32, 32), bool)
    border[1:-1, 1:-1] = False
    for picture, light in zip(pictures, luminance, strict=True):
        corners = light[[0, 0, -1, -1], [0, -1, 0, -1]]
        # A linear gradient over a square takes its extremes at two of the corners.
        assert light[border].min() >= corners.min() - 1.5
        assert light[border].max() <= corners.max() + 1.5
        edge = light[border].mean()
        assert np.abs(light - edge).max() > 38  # of 255
        assert picture.min() >= 0 and picture.max() <= 255


def test_ink_is_darker_and_lighter_than_the_ground_in_turn():
    masks = np.ones((400, 8, 8), np.float32)
    light = draw_digits(masks, 32, np.random.RandomState(1)) @ LUMINANCE
    lighter = (light[:, 14:18, 14:18].mean((1, 2)) > light[:, 0, 0]).mean()
    assert 0.3 < lighter < 0.7


def test_rotation_keeps_up_up():
    # Ink in the upper rows alone stays above ink in the lower rows alone.
    masks = np.zeros((2, 200, 8, 8), np.float32)
    masks[0, :, 1:3, 2:6] = 1
    masks[1, :, 5:7, 2:6] = 1
    heights = []
    for half in masks:
        pictures = draw_digits(half, 32, np.random.RandomState(2)).astype(np.float32)
        distance = np.abs(pictures - pictures[:, :1, :1]).sum(-1)
        weight = np.where(distance > 0.7 * distance.max((1, 2), keepdims=True), 1, 0)
        rows = np.arange(32)[None, :, None]
        heights.append((weight * rows).sum((1, 2)) / weight.sum((1, 2)))
    assert (heights[0] < heights[1]).mean() > 0.95


@pytest.mark.parametrize(
    ("size", "pictures", "field"), [(8, 1, "image_size"), (32, 0, "pictures_per_digit")]
)
def test_impossible_sizes_are_refused(size, pictures, field):
    with pytest.raises(ValueError, match=rf"data\.{field}"):
        open_digits("digits", size, pictures)


@pytest.fixture(scope="module")
def pairs():
    return open_digits("digit_pairs", 32, 2)


def test_pairs_are_numbers_of_two_digits(pairs):
    train, test, names = pairs
    assert (train.size, test.size) == (1500 * 2, 297 * 4)
    assert names == tuple(f"{number:02}" for number in range(100))
    assert np.bincount(train.labels, minlength=100).min() > 10
    # The first digit of a picture is its own original's.
    singles = open_digits("digits", 32, 2)
    for split, single in zip(pairs[:2], singles[:2], strict=True):
        assert np.array_equal(split.labels // 10, single.labels)
        assert np.mean(split.labels % 10 == single.labels) < 0.15
    # Another picture of an original has another partner.
    assert np.mean(train.labels[:1500] == train.labels[1500:]) < 0.2
    assert train.names([0]) == ["digit_pairs/train/0"]


def test_pools_are_held_back_together(pairs):
    train = pairs[0]
    first, second = _places(297, 2, [2, 0]).T
    assert np.array_equal(first, np.arange(297))
    assert np.array_equal(second // POOL, first // POOL)
    assert len(set(second)) > 150 and second.max() < 297
    assert np.bincount(train.group).tolist() == [100] * 30
    few, held = hold_back(train, 500)
    assert held.size == 500 and not set(few.group.tolist()) & set(held.group.tolist())


def test_both_digits_stand_side_by_side_and_upright():
    # Ink in the upper left corner of the left one and the lower right of the right one.
    masks = np.zeros((100, 8, 16), np.float32)
    masks[:, :3, 1:4], masks[:, 5:, 12:15] = 1, 1
    pictures = draw_digits(masks, 32, np.random.RandomState(2)).astype(np.float32)
    distance = np.abs(pictures - pictures[:, :1, :1]).sum(-1)
    ink = distance > 0.7 * distance.max((1, 2), keepdims=True)
    rows, columns = np.mgrid[:32, :32]
    for picture in ink:
        middle = columns[picture].mean()
        left, right = picture & (columns < middle), picture & (columns > middle)
        across = columns[right].mean() - columns[left].mean()
        down = rows[right].mean() - rows[left].mean()
        # 11 and 5 of 16 cells apart, in a box of 22 to 30 pixels, turned by 20 degrees.
        assert 22 * 11 / 16 * 0.7 < across < 30 * 11 / 16 * 1.2
        assert np.hypot(across, down) == pytest.approx(
            np.hypot(11, 5) * across / 11, rel=0.3
        )
