"""Sets that TFDS has prepared."""

from __future__ import annotations

import io
import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
import tiny
from PIL import Image

from snclr_jax import train as train_module
from snclr_jax.data import Data
from snclr_jax.data.bad_files import FILE, BadFiles
from snclr_jax.data.crop import View
from snclr_jax.data.pipeline import train_batches
from snclr_jax.data.tfds_source import open_tfds
from snclr_jax.train import train


class TinyShapes(tfds.core.GeneratorBasedBuilder):
    """Sixteen PNGs; image i has the color (i, 2 i, 3 i) and the label i % 2."""

    VERSION = tfds.core.Version("1.10.0")

    def _info(self):
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(None, None, 3)),
                "label": tfds.features.ClassLabel(names=["even", "odd"]),
            }
        )
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
        return {
            "train": self._generate_examples(0, 12),
            "test": self._generate_examples(12, 16),
        }

    def _generate_examples(self, first, last):
        for i in range(first, last):
            image = Image.new("RGB", (12, 10), (i, 2 * i, 3 * i))
            yield i, {"image": image, "label": i % 2}


class NamedShapes(TinyShapes):
    """The same images, with a name of bytes that are not all text, and a number."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(None, None, 3)),
                "id": np.int64,
                "file_name": tfds.features.Text(),
            }
        )
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _generate_examples(self, first, last):
        for i, example in super()._generate_examples(first, last):
            name = b"\xff/%d.png" % i
            yield i, {"image": example["image"], "id": i, "file_name": name}


class BadShapes(TinyShapes):
    """The same images, the sixth and the last training image cut off."""

    VERSION = tfds.core.Version("1.0.0")

    def _generate_examples(self, first, last):
        for i, example in super()._generate_examples(first, last):
            file = io.BytesIO()
            example["image"].save(file, "PNG")
            content = file.getvalue()[: 50 if i in (5, 11) else None]
            yield i, {"image": io.BytesIO(content), "label": i % 2}


def copy_set(source: Path, target: Path, version: str = "1.10.0") -> Path:
    folder = target / "tiny_shapes" / version
    return shutil.copytree(source / "tiny_shapes" / "1.10.0", folder)


def change_json(path: Path, change) -> None:
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tfds")
    TinyShapes(data_dir=folder, file_format="array_record").download_and_prepare()
    older = copy_set(folder, folder, version="1.9.0")
    change_json(older / "dataset_info.json", lambda info: info | {"version": "1.9.0"})
    return folder


def open_tiny(data_dir: Path, name: str = "tiny_shapes", **splits):
    splits = dict(train_split="train", test_split="test", max_bad=0.0) | splits
    return open_tfds(name, str(data_dir), 8, **splits)


def test_images_and_labels_belong_together(data_dir):
    train, test, names = open_tiny(data_dir)
    assert names == ("even", "odd") and (train.size, test.size) == (12, 4)
    seen = []
    for split in (train, test):
        images = split.images()
        assert images.shape == (split.size, 8, 8, 3) and images.dtype == np.uint8
        number = images[:, 0, 0, 0].astype(int)
        assert np.array_equal(images[:, 4, 4], np.outer(number, [1, 2, 3]))
        assert split.labels.dtype == np.int32
        assert np.array_equal(split.labels, number % 2)
        seen += number.tolist()
    assert sorted(seen) == list(range(16))


def test_names_are_the_records_own(tmp_path):
    NamedShapes(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    train = open_tiny(tmp_path, "named_shapes")[0]
    number = train.images()[:, 0, 0, 0]
    order = np.array([3, 0, 11])
    want = [rf"\xff/{i}.png" for i in number[order]]
    assert train.names(order) == want and train.subset(order).names(range(3)) == want
    # Without the text, the number is the name.
    features = tmp_path / "named_shapes" / "1.0.0" / "features.json"
    change_json(features, without_file_name)
    train = open_tiny(tmp_path, "named_shapes")[0]
    assert train.names(order) == [str(i) for i in number[order]]


def without_file_name(features: dict) -> dict:
    del features["featuresDict"]["features"]["file_name"]
    return features


def test_rows_name_the_images_of_a_set_without_names(data_dir):
    train, test, _ = open_tiny(data_dir, train_split="train[50%:]")
    assert train.names([0, 5]) == ["train[50%:]/0", "train[50%:]/5"]
    assert test.subset(np.array([2])).names([0]) == ["test/2"]


def test_slices_and_no_test_split(data_dir):
    train, test, _ = open_tiny(data_dir, train_split="train[:50%]", test_split="")
    assert train.size == 6 and test is None


def test_newest_version_unless_one_is_named(data_dir):
    for name, version in (("tiny_shapes", "1.10.0"), ("tiny_shapes:1.9.0", "1.9.0")):
        with pytest.raises(ValueError, match=f"tiny_shapes/{version}"):
            open_tiny(data_dir, name, train_split="wrong")


def test_a_set_is_found_and_read_in_a_folder_whose_name_reads_as_a_pattern(
    data_dir, tmp_path
):
    folder = tmp_path / "sets[1]"
    shutil.copytree(data_dir / "tiny_shapes", folder / "tiny_shapes")
    train, test, _ = open_tiny(folder)
    assert np.array_equal(train.images(), open_tiny(data_dir)[0].images())
    assert test.size == 4


def test_batches_come_through_the_pipeline(data_dir):
    train = open_tiny(data_dir)[0]
    want = train.images()
    # Of one color, an image is all the same whichever crop.
    views = [View(8, (0.1, 1.0), (3 / 4, 4 / 3))]
    iterator = train_batches(
        train, order="random", batch_size=5, seed=0, num_workers=0, views=views
    )
    for _ in range(4):
        batch = next(iterator)
        assert np.array_equal(batch["view0"], want[batch["index"]])


def test_missing_set_is_refused_at_once_with_the_command(tmp_path):
    start = time.perf_counter()
    with pytest.raises(ValueError, match=r"data\.path.*tfds build mnist --data_dir=.*"):
        open_tfds(
            "mnist",
            str(tmp_path),
            28,
            train_split="train",
            test_split="test",
            max_bad=0.0,
        )
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize("field", ["train_split", "test_split"])
def test_unknown_split_is_named(data_dir, field):
    with pytest.raises(ValueError, match=rf"data\.{field} 'dev'.*\['test', 'train'\]"):
        open_tiny(data_dir, **{field: "dev"})


def test_several_configs_are_listed(tmp_path):
    for config in ("small", "large"):
        folder = tmp_path / "shapes" / config / "1.0.0"
        folder.mkdir(parents=True)
        (folder / "dataset_info.json").write_text("{}")
    with pytest.raises(ValueError, match=r"\['large', 'small'\].*shapes/large"):
        open_tiny(tmp_path, "shapes")


def test_other_file_formats_are_refused(data_dir, tmp_path):
    info = copy_set(data_dir, tmp_path) / "dataset_info.json"
    change_json(info, lambda info: info | {"fileFormat": "tfrecord"})
    with pytest.raises(ValueError, match="tfrecord.*--file_format=array_record"):
        open_tiny(tmp_path)


def test_set_without_images_is_refused(data_dir, tmp_path):
    def rename_image(features):
        inner = features["featuresDict"]["features"]
        inner["picture"] = inner.pop("image")
        return features

    change_json(copy_set(data_dir, tmp_path) / "features.json", rename_image)
    with pytest.raises(ValueError, match=r"\['label', 'picture'\]"):
        open_tiny(tmp_path)


def test_damaged_files_are_named(data_dir, tmp_path):
    (file,) = copy_set(data_dir, tmp_path).glob("*-train.array_record*")
    train = open_tiny(tmp_path, test_split="")[0]
    file.write_bytes(file.read_bytes()[:100])
    for read in (train.images, lambda: train.labels):
        with pytest.raises(ValueError, match="split train cannot be read.*again"):
            read()


def test_bad_images_are_replaced_and_named(tmp_path):
    BadShapes(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    train = open_tiny(tmp_path, "bad_shapes", max_bad=0.2)[0]
    number = open_tiny(tmp_path, "bad_shapes", max_bad=0.2)[0].images()[:, 0, 0, 0]
    assert sorted(set(number)) == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10]
    views = [View(8, (0.1, 1.0), (3 / 4, 4 / 3))]
    iterator = train_batches(
        train, order="random", batch_size=12, seed=0, num_workers=0, views=views
    )
    for _ in range(2):
        batch = next(iterator)
        assert batch["view0"][:, 0, 0, 0].tolist() == number[batch["index"]].tolist()
        assert len(set(batch["index"])) == 10
    iterator.close()
    BadFiles(str(tmp_path), Data(train, None, None)).close()
    lines = list(map(json.loads, (tmp_path / FILE).open()))
    assert len(lines) == 2
    for line in lines:
        assert line["name"] == f"train/{line['index']}"
        assert line["index"] not in batch["index"]
        assert line["reason"].startswith("OSError: image file is truncated")
    assert train.labels[batch["index"]].tolist() == [
        number % 2 for number in batch["view0"][:, 0, 0, 0]
    ]
    message = (
        r"2 of 12 .* allows 1: \S*bad_shapes/1\.0\.0, split train, image \d+ cannot be"
    )
    with pytest.raises(ValueError, match=message):
        open_tiny(tmp_path, "bad_shapes", max_bad=0.1)[0].images()


def test_a_prepared_set_trains_end_to_end(data_dir, tmp_path, mesh_of, monkeypatch):
    monkeypatch.setattr(train_module, "make_mesh", lambda: mesh_of(1))
    config = tiny.config(
        batch_size=8,
        epochs=2,
        data__name="tfds",
        data__tfds_name="tiny_shapes",
        data__path=str(data_dir),
        data__resident=False,
        data__num_workers=1,
    )
    assert train(config, str(tmp_path)).step == 2
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert {"knn_raw_pixels", "knn_untrained", "knn_trained"} <= summary.keys()
