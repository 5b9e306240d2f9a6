"""Which files are images, and which of them are trained on and scored."""

from __future__ import annotations

import re

import pytest

from snclr_jax.data.layout import passed_over, read_layout, walk, why_not


def layout(*names, folders=None, **options):
    """Returns the layout; a name that ends in "/" stands for some images in it."""
    files = [f"{n}{i}" for n in names if n.endswith("/") for i in ("0.png", "1.png")]
    files = sorted(files + [name for name in names if not name.endswith("/")])
    tops = {name.split("/")[0] for name in files if "/" in name}
    return read_layout(files, folders or tops, naming="fields", **options)


@pytest.mark.parametrize(
    ("names", "train", "test", "classes"),
    [
        (["a.png", "b/0.png"], "", None, None),
        (["train/"], "train", None, None),
        (["train/a/", "train/b/"], "train", None, "ab"),
        (["train/a/", "test/a/"], "train", "test", "a"),
        # Other names, in any case, that can only be splits.
        (["Training/a/", "Testing/a/"], "Training", "Testing", "a"),
        (["TRAIN/a/", "TEST/a/"], "TRAIN", "TEST", "a"),
        (["Train/a/", "extra/", "Valid/a/"], "Train", "Valid", "a"),
        (["Train/a/", "preview.png"], "Train", None, "a"),
        (["train/a/", "valid/a/"], "train", "valid", "a"),
        (["train/a/", "val/a/", "validation/a/"], "train", "val", "a"),
        (["train/a/", "val/a/", "test/a/"], "train", "test", "a"),
        (["train/a/", "Train/a/"], "train", None, "a"),
        # A class of trains among others, and splits of unknown names.
        (["Bus/", "Train/"], "", None, ["Bus", "Train"]),
        (["other/a/", "test/a/"], "", None, None),
        # Folders that can be nothing but classes.
        (["cat/", "dog/"], "", None, ["cat", "dog"]),
        (["cat/"], "", None, None),
        (["cat/", "dog/", "dog/old/"], "", None, None),
        (["cat/", "dog/", "0.png"], "", None, None),
        # Test images score nothing where there are no classes.
        (["train/", "test/a/"], "train", None, None),
    ],
)
def test_names_of_folders_say_what_they_hold(names, train, test, classes):
    found = layout(*names)
    assert (found.train, found.test) == (train, test)
    assert found.classes == (classes and tuple(classes))


@pytest.mark.parametrize(
    ("names", "note"),
    [
        (
            ["train/a/", "test/a/", "bus/", "x.png"],
            "3 images beside train and test ",
        ),
        (["train/", "test/"], r"2 images beside train .*\(2 in test\); fields name"),
        (["other/a/", "Valid/a/"], "called train, so the images in Valid are trained"),
        (["Train/", "bus/"], "the images in Train are trained on like all others"),
        (["cat/", "dog/"], r"its 2 folders \(cat, dog\) are read as classes"),
        (
            ["train/a/", "train/x.png"],
            r"1 images \(x.png\) lie beside the class",
        ),
    ],
)
def test_what_may_not_be_meant_is_said(names, note):
    assert any(re.search(note, said) for said in layout(*names).notes)


def test_usual_folders_need_no_word():
    for names in (["a.png", "b/0.png"], ["train/a/", "test/a/"], ["Training/a/"]):
        assert layout(*names).notes == []


def test_folders_without_images_hide_no_others():
    """What is trained on must not depend on whether the suffix is known."""
    assert layout("test/a/", folders={"train", "test"}).train == "train"
    found = layout("train/a/", folders={"train", "test"})
    assert found.test is None and found.notes == [
        "test holds no images, so nothing is scored"
    ]


def test_splits_can_be_named():
    names = ["bus/", "train/", "held/"]
    found = layout(*names, splits=("", "test"))
    assert found.classes == ("bus", "held", "train") and len(found.notes) == 1
    found = layout("train/a/", "val/a/", "held/a/", splits=("train", "held"))
    assert (found.test, found.notes[0][:8]) == ("held", "2 images")
    for test, found in (("", None), ("validation", "test")):
        assert layout("train/a/", "test/a/", splits=("train", test)).test == found
    for field, splits in (("train", ("no", "test")), ("test", ("train", "no"))):
        with pytest.raises(
            ValueError, match=rf"data\.{field}_split 'no' is not a fold"
        ):
            layout("train/a/", splits=splits)
    with pytest.raises(ValueError, match=r"test_split 'held' lies in the folder of"):
        layout("a/x/", "held/x/", splits=("train", "held"))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        *((f"a/0{suffix}", "") for suffix in (".jpg", ".JFIF", ".Bmp", ".tif", ".gif")),
        ("a/notes.TXT", ".txt"),
        ("a/README", "file without suffix"),
        ("a/._0.jpg", "hidden file"),
        ("a/.ipynb_checkpoints/0-checkpoint.jpg", "folder .ipynb_checkpoints"),
        ("a/@eaDir/0.jpg/SYNOPHOTO_THUMB_M.jpg", "folder @eaDir"),
        ("__MACOSX/a/0.jpg", "folder __MACOSX"),
        ("a/Thumbnails/0.jpg", "folder Thumbnails"),
    ],
)
def test_what_is_no_image_of_the_set_is_passed_over(tmp_path, name, reason):
    assert why_not(name) == reason
    # On disk as in a tar: but there, what lies in such a folder is not looked at.
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_bytes(b"")
    ((_, found),) = walk(tmp_path)
    assert found == reason


def test_what_is_passed_over_is_counted():
    reasons = [".txt", "", "folder @eaDir", "", ".txt", "hidden file"]
    assert passed_over(reasons) == "2 x .txt, 1 x folder @eaDir, 1 x hidden file"
    assert passed_over(["", ""]) == ""
    assert passed_over(f".{i}" for i in range(99)).endswith("1 x .7, and others")
