"""Images that are given in Python, in every form that is taken."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import tiny
from PIL import Image
from real_runs import interrupt_at_batch
from snclr_jax.configs import evaluate as evaluation
from snclr_jax.configs import folder as folder_recipe

from snclr_jax import train as train_module
from snclr_jax.data import Data, open_data
from snclr_jax.data.choose import choose_from_data
from snclr_jax.data.folder import open_folder
from snclr_jax.data.python_source import open_python
from snclr_jax.devices.mesh import make_mesh
from snclr_jax.devices.stop_requests import Interrupted
from snclr_jax.evaluate import run as evaluate_module
from snclr_jax.evaluate.run import evaluate
from snclr_jax.report import run as report_module
from snclr_jax.report.run import report
from snclr_jax.run.workdir import read_config
from snclr_jax.train import train

pytestmark = pytest.mark.usefixtures("equal_runs_share_a_step")


class Items:
    """A data set as PyTorch and Hugging Face have them."""

    def __init__(self, *items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, number):
        return self.items[number]


class Tensor:
    def __init__(self, array):
        self.array = array

    def numpy(self):
        return self.array


@pytest.fixture(scope="module", autouse=True)
def one_device():
    """Programs for eight take several times as long to compile."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (train_module, evaluate_module, report_module):
            patch.setattr(module, "make_mesh", lambda: make_mesh(jax.devices()[:1]))
        yield


def opened(given, side=8):
    return open_python(given, side)[0]


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)


def test_one_set_of_images_in_every_form_is_the_same(images):
    floats = (images / 255).astype(np.float32)
    first = np.moveaxis(images, -1, 1)
    forms = {
        "uint8": images,
        "float": floats,
        "float64 rounded": (images / 255 - 0.001).clip(0, 1),
        "list": list(images),
        "PIL": list(map(Image.fromarray, images)),
        "tensors": Items(*map(Tensor, first)),
        "float tensors": Items(*map(Tensor, first / np.float32(255))),
        "tensors with channels last": Items(*map(Tensor, images)),
        "dict": Items(*({"image": image} for image in images)),
        "img": Items(*({"img": image} for image in images)),
        "mapping": {"train": images},
    }
    for name, form in forms.items():
        split = opened(form)
        assert np.array_equal(split.images(), images), name
        assert split.identity == opened(images).identity, name
        assert not split.labelled
        assert split.names([3]) == ["train/3"]


def test_grey_images_have_three_channels(images):
    grey = images[..., :1]
    want = np.repeat(grey, 3, axis=-1)
    for form in (grey, grey[..., 0], list(grey[..., 0] / 255)):
        assert np.array_equal(opened(form).images(), want)
        (original,) = opened(form).originals(np.array([2]))
        assert np.array_equal(original, want[2]) and original.flags.c_contiguous


def test_transparent_images_are_laid_on_white(images):
    alpha = np.full((*images.shape[:3], 1), 255, np.uint8)
    alpha[0] = 0
    given = np.concatenate([images, alpha], axis=-1)
    for form in (
        given,
        given / 255,
        [Image.fromarray(image) for image in given],
        Items(*map(Tensor, np.moveaxis(given, -1, 1))),
        Items(*map(Tensor, given)),
    ):
        found = opened(form).images()
        assert np.all(found[0] == 255) and np.array_equal(found[1:], images[1:])


def test_labels_come_beside_the_images_or_with_them(images):
    labels = [3, -1, 0, 3, 1]
    pairs = list(zip(images, labels, strict=True))
    for form in (
        (images, labels),
        (images, np.array(labels)),
        Items(*pairs),
        [list(pair) for pair in pairs],
        Items(*({"img": image, "label": label} for image, label in pairs)),
    ):
        split = opened(form)
        assert split.labelled and split.labels.dtype == np.int32
        assert split.labels.tolist() == labels
        assert np.array_equal(split.images(), images)


def test_items_whose_images_were_read_are_not_read_again_for_labels(images):
    class Counted(Items):
        read = 0

        def __getitem__(self, number):
            self.read += 1
            return super().__getitem__(number)

    items = Counted(*((image, 1) for image in np.tile(images, (20, 1, 1, 1))))
    split = opened(items)
    split.images()
    before = items.read
    assert split.labels.tolist() == [1] * 100 and items.read == before


def test_a_test_set_is_evaluated_on(images):
    data = Data(*open_python({"train": images, "test": (images[:2], [0, 1])}, 8))
    assert data.test and data.test.labels.tolist() == [0, 1]
    assert data.test.names([1]) == ["test/1"]
    assert data.identity.keys() == {"train", "test"}


def test_identity_tells_images_and_labels_apart(images):
    other = images.copy()
    other[4, 7, 7, 2] ^= 1
    sets = [
        *(images, other, images[::-1], images[:4], images.reshape(5, 4, 16, 3)),
        *((images, [0, 0, 0, 0, 0]), (images, [0, 0, 0, 0, 1])),
    ]
    assert len({opened(each).identity for each in sets}) == len(sets)


def save_folder(root, rng):
    """PNG files of several sizes and modes in two classes; returns what they hold."""
    pictures, labels = [], []
    for label, name in enumerate(("ant", "bee")):
        (root / "train" / name).mkdir(parents=True)
        for number in range(20):
            h, w = rng.integers(33, 60, 2)
            picture = Image.fromarray(rng.integers(0, 256, (h, w, 3), dtype=np.uint8))
            picture = picture.convert("L" if number % 3 == 0 else "RGB")
            picture.save(root / "train" / name / f"{number:02}.png")
            pictures.append(picture)
            labels.append(label)
    return pictures, labels


def test_pictures_are_those_of_a_folder(tmp_path, rng):
    pictures, labels = save_folder(tmp_path, rng)
    want = open_folder(str(tmp_path), 32, max_bad=0.0, pages=None)[0]
    got = opened(list(zip(pictures, labels, strict=True)), side=32)
    assert np.array_equal(got.images(), want.images())
    assert np.array_equal(got.labels, want.labels)


@pytest.mark.parametrize("resident", [True, False])
def test_a_run_is_that_of_a_folder_also_when_it_was_stopped(
    tmp_path, rng, monkeypatch, resident
):
    pictures, labels = save_folder(tmp_path / "pictures", rng)
    items = Items(*zip(pictures, labels, strict=True))
    fields = dict(epochs=3, data__resident=resident, evaluate__every_epochs=0)
    of_folder = tiny.config(
        data__name="folder", data__path=str(tmp_path / "pictures"), **fields
    )
    want = train(of_folder, str(tmp_path / "folder"))
    workdir = str(tmp_path / "run")
    with monkeypatch.context() as patch:
        interrupt_at_batch(4, patch)
        with pytest.raises(Interrupted):
            train(tiny.config(**fields), workdir, data=items)
    other = [pictures[0].rotate(90), *pictures[1:]]
    with pytest.raises(ValueError, match="data.found.train is '40 images, content"):
        train(tiny.config(**fields), workdir, data=(other, labels))
    state = train(tiny.config(**fields), workdir, data=items)
    jax.tree.map(np.testing.assert_array_equal, state, want)
    assert read_config(workdir)["data"]["name"] == "python"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run on arrays, with them."""
    digits = open_data(tiny.config().data)
    parts = {"train": digits.train, "test": digits.test}
    parts = {name: part.subset(np.arange(100)) for name, part in parts.items()}
    given = {name: (part.images(), part.labels) for name, part in parts.items()}
    workdir = tmp_path_factory.mktemp("run")
    train(tiny.config(), str(workdir), data=given)
    return workdir, given


def settings():
    settings = evaluation.get_config("debug")
    settings.knn.k = (1,)
    return settings


def test_a_run_is_evaluated_on_its_images_and_others_when_they_are_given(run):
    workdir, given = run
    with pytest.raises(ValueError, match="came from Python.*data= of") as refused:
        evaluate(workdir, ["knn"], settings())
    assert "\n" not in str(refused.value)
    (own,) = evaluate(workdir, ["knn"], settings(), data=given)
    assert own["data"] == "own"
    part = {name: (x[:50], labels[:50]) for name, (x, labels) in given.items()}
    (record,) = evaluate(workdir, ["knn"], settings(), data=part)
    assert record["data"].startswith("python, 50 images, content ")
    assert record["settings"]["data"]["name"] == "python"


@pytest.mark.usefixtures("blank_figures")
def test_a_report_shows_images_only_when_they_are_given(run):
    workdir, given = run
    assert "the images came from Python" in report(workdir).read_text()
    page = report(workdir, data=given).read_text()
    assert "cannot be read here" not in page
    with pytest.raises(ValueError, match="50 images.*not the images of"):
        report(workdir, data=given["train"][0][:50])


def test_open_fields_are_chosen_from_the_images(rng):
    images = rng.integers(0, 256, (100, 70, 80, 3), dtype=np.uint8)
    config = folder_recipe.get_config()
    config.data.name = "python"
    config, said = choose_from_data(config, devices=1, given=images)
    assert "100 images, shorter side 70" in said
    assert config.augment.size == 64 and config.data.image_size == 70


def test_workers_are_refused(tmp_path, images):
    config = tiny.config(data__resident=False, data__num_workers=2)
    many = np.tile(images, (8, 4, 4, 1))
    with pytest.raises(ValueError, match="data.num_workers 2.*use 0"):
        train(config, str(tmp_path / "run"), data=many)
    assert not (tmp_path / "run").exists()


def test_python_without_images_is_refused(tmp_path):
    with pytest.raises(ValueError, match="give them as data= of train"):
        train(tiny.config(data__name="python"), str(tmp_path / "run"))


class Random(Items):
    def __getitem__(self, number):
        return np.random.default_rng().integers(0, 256, (8, 8, 3), dtype=np.uint8)


ZEROS = np.zeros((4, 8, 8, 3), np.uint8)


@pytest.mark.parametrize(
    "given, message",
    {
        "channels first": (
            np.zeros((4, 3, 8, 8), np.uint8),
            r"\(train\): image 0 has shape \(3, 8, 8\).*np.moveaxis\(images, -3, -1\)",
        ),
        "five": (
            np.zeros((4, 8, 8, 5), np.uint8),
            r"shape \(8, 8, 5\), and \(h, w\), ",
        ),
        "one image": (ZEROS[0], r"shape \(8, 3\), and \(h, w\), \(h, w, 1\)"),
        "flat": (np.zeros((4, 192), np.uint8), r"shape \(192,\)"),
        "float to 255": (255.0 * (ZEROS + 1), "from 255 to 255.*scale them"),
        "nan": (ZEROS + np.nan, "from nan to nan"),
        "last float": (
            np.concatenate([ZEROS * 0.0, ZEROS[:1] + 2.0]),
            "image 4 has values from 2 to 2",
        ),
        "int": (ZEROS.astype(int), "type int64; give uint8"),
        "empty": (ZEROS[:0], r"data= \(train\) is empty"),
        "generator": (iter(ZEROS), "is a .*iterator; give an array"),
        "number": (7, "is a int; give an array"),
        "labels": ((ZEROS, [0, 1]), "4 images and 2 labels"),
        "no integers": ((ZEROS, list("abcd")), "image 0 has the label 'a'; labels are"),
        "missing label": (
            [(ZEROS[0], 1), ZEROS[0], (ZEROS[0], 1)],
            "image 1 has the label None",
        ),
        "keys": ([{"pixels": ZEROS[0]}], r"keys \['pixels'\]; name the image 'image'"),
        "splits": ({"train": ZEROS, "val": ZEROS}, r"keys \['train', 'val'\]; give"),
        "test alone": ({"test": ZEROS}, r"keys \['test'\]; give 'train'"),
        "random": (Random(*range(4)), "image 0 differs each time.*config.augment"),
    }.values(),
)
def test_what_is_no_set_of_images_is_refused_with_the_fix(given, message):
    with pytest.raises(ValueError, match=message) as refused:
        opened(given)
    assert "\n" not in str(refused.value)
