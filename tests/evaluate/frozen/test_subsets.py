"""Subsets of training images: balanced, nested, fixed by (labels, seed); and lists."""

import numpy as np
import pytest

from snclr_jax.evaluate.frozen.subsets import class_balanced, held_back, listed

LABELS = np.random.default_rng(0).permutation(np.repeat([0, 1, 2, 4], [200, 90, 30, 3]))


def counts(rows):
    return np.bincount(LABELS[rows], minlength=5).tolist()


def test_every_class_gives_its_share_and_at_least_one_image():
    assert counts(class_balanced(LABELS, share=0.1, seed=0)) == [20, 9, 3, 0, 1]
    assert counts(class_balanced(LABELS, share=0.01, seed=0)) == [2, 1, 1, 0, 1]
    assert counts(class_balanced(LABELS, per_class=3, seed=0)) == [3, 3, 3, 0, 3]
    everything = class_balanced(LABELS, share=1.0, seed=0)
    np.testing.assert_array_equal(everything, np.arange(len(LABELS)))


@pytest.mark.parametrize("seed", [0, (0, 7)])
def test_smaller_subsets_lie_inside_larger_ones(seed):
    sizes = [dict(share=0.01), dict(per_class=3), dict(share=0.1), dict(share=0.5)]
    subsets = [set(class_balanced(LABELS, **size, seed=seed)) for size in sizes]
    assert subsets[0] < subsets[1] and subsets[0] < subsets[2] < subsets[3]


def test_a_subset_follows_from_labels_and_seed():
    rows = class_balanced(LABELS, share=0.1, seed=0)
    np.testing.assert_array_equal(rows, class_balanced(LABELS, share=0.1, seed=0))
    assert set(rows) != set(class_balanced(LABELS, share=0.1, seed=1))
    # What earlier releases drew has to be drawn again.
    fixed = class_balanced(np.arange(12) % 2, per_class=2, seed=0)
    assert fixed.tolist() == [3, 4, 7, 10]


def test_the_held_back_part_is_class_balanced_and_never_takes_a_whole_class():
    labels = np.repeat([0, 1, 2, 3], [40, 20, 1, 2])
    held = held_back(labels, 0.5, seed=0)
    assert np.bincount(labels[held], minlength=4).tolist() == [20, 10, 0, 1]
    assert (held_back(labels, 0.5, seed=1) != held).any()


def test_pictures_of_one_original_are_held_back_together():
    group = np.random.default_rng(0).permutation(np.repeat(np.arange(20), 4))
    labels = group % 2
    held = held_back(labels, 0.3, seed=0, group=group)
    for original in range(20):
        assert len(set(held[group == original])) == 1
    assert [held[labels == label].sum() for label in (0, 1)] == [12, 12]


def test_groups_of_several_classes_are_held_back_whole():
    group = np.repeat(np.arange(20), 6)
    labels = np.tile([0, 1, 2], 40)
    held = held_back(labels, 0.3, seed=0, group=group)
    assert np.array_equal(np.unique(group[held], return_counts=True)[1], [6] * 6)
    assert (held_back(labels, 0.3, seed=1, group=group) != held).any()
    # A class that is in one group alone.
    labels[group == group[held][0]] = 3
    with pytest.raises(ValueError, match="holdback 0.3 takes every row of some class"):
        held_back(labels, 0.3, seed=0, group=group)


@pytest.mark.parametrize("share", [0.0, 1.0, 0.01])
def test_a_holdback_without_rows_is_refused(share):
    with pytest.raises(ValueError, match=f"holdback {share} leaves none of 4"):
        held_back(np.arange(4), share, seed=0)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (dict(), "share is None and per_class None; give one"),
        (dict(share=0.1, per_class=1), "share is 0.1 and per_class 1; give one"),
        (dict(share=0.0), r"share is 0.0; use a value in \(0, 1\]"),
        (dict(share=10), "share is 10;"),
        (dict(per_class=0), "per_class is 0; use 1 or more"),
        (dict(per_class=4), "class 4 has 3 images, fewer than per_class 4; use at mo"),
    ],
)
def test_sizes_that_cannot_be_are_refused(size, message):
    with pytest.raises(ValueError, match=message):
        class_balanced(LABELS, **size, seed=0)


@pytest.mark.parametrize("labels", [[0, -1], []])
def test_images_without_a_label_are_refused(labels):
    with pytest.raises(ValueError, match=r"labels are \[.*\]; use one or more"):
        class_balanced(np.array(labels, int), share=0.5, seed=0)


NAMES = [f"train/n{i:02}/n{i:02}_{j}.JPEG" for i in range(3) for j in range(4)]


def test_listed_images_are_found_by_their_base_names(tmp_path):
    path = tmp_path / "1percent.txt"
    path.write_text("n02_3.JPEG\n\nn00_1.JPEG\r\nfolder/n01_0.JPEG\n")
    assert listed(path, NAMES).tolist() == [1, 4, 11]
    assert listed(str(path), [n.split("/")[-1] for n in NAMES]).tolist() == [1, 4, 11]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "list.txt is not a file; give a list"),
        ("\n \n", "list.txt lists no image"),
        (
            "n00_1.JPEG\nn09_1.JPEG\nn08_1.JPEG\n",
            "lists 2 of 3 names that none of the 12 images has, the first is 'n08_1",
        ),
    ],
)
def test_lists_that_do_not_fit_are_refused(tmp_path, text, message):
    path = tmp_path / "list.txt"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=message):
        listed(path, NAMES)


def test_a_name_that_two_images_have_is_refused(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("1.png\n")
    names = ["train/cat/1.png", "train/dog/1.png", "train/dog/2.png"]
    with pytest.raises(ValueError, match="lists '1.png', a name that 2 images have"):
        listed(path, names)
    path.write_text("2.png\n")
    assert listed(path, names).tolist() == [2]
