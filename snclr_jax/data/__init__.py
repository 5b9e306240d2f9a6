"""Image sets: embedded digits, files of many kinds, TFDS and Python, as splits."""

from __future__ import annotations

from typing import Any, NamedTuple

from ml_collections import ConfigDict

from snclr_jax.data import digits
from snclr_jax.data.form import Form
from snclr_jax.data.split import Split, hold_back
from snclr_jax.settings.embedded import EMBEDDED

__all__ = ["Data", "Split", "hold_back", "open_data"]


class Data(NamedTuple):
    """An image set.

    Attributes:
      train: what is trained on.
      test: what is scored, or None.
      class_names: in the order of the labels, or None.
      notes: what a person may not have meant of it, a sentence each.
    """

    train: Split
    test: Split | None
    class_names: tuple[str, ...] | None
    notes: tuple[str, ...] = ()

    @property
    def splits(self) -> dict[str, Split]:
        """The training split, and the test split where there is one, by name."""
        return {"train": self.train} | ({"test": self.test} if self.test else {})

    @property
    def identity(self) -> dict[str, str]:
        """Which images there are, by split; see `Split.identity`."""
        return {name: split.identity for name, split in self.splits.items()}

    @property
    def evidence(self) -> dict[str, str]:
        """The same, and how large some images are; what is not kept may change."""
        return {
            name: f"{split.identity}, {split.sampled_bytes()} bytes in some of them"
            for name, split in self.splits.items()
        }


def open_data(config: ConfigDict, given: Any = None) -> Data:
    """Opens the image set that `config.data` names, without decoding any image.

    Args:
      config: `config.data`. `name` is "digits" or "digit_pairs" (embedded), "omniglot"
        (`path` is the root), "folder", "parquet", "webdataset" or "numpy" (`path` is
        the root, or a file) or "tfds" (`tfds_name`; `path` is TFDS's data_dir, "" for
        its default), all but the first three with `train_split` and `test_split`;
        `image_size` is the side s in pixels of the square that images are decoded to,
        where they are not cropped for training; `holdback` > 0 replaces the test split
        by that many training images, to choose recipes on; `max_bad` is the share of a
        split's images that may be bad, 0 in configs from before there was one; `range`
        and `channels` make a `Form`; `pictures_per_digit` is read for embedded digits
        alone, `pages` for a folder, and `image_column` and `label_column` for parquet.
      given: images where `name` is "python", see `open_python`.

    Returns:
      The splits; `test` is None where the set has none.

    Raises:
      ValueError: for an unknown name, or a set that cannot be read.
    """
    max_bad, form = config.get("max_bad", 0.0), Form.of(config)
    splits = config.get("train_split"), config.get("test_split")
    where = config.get("path"), config.image_size
    how: dict[str, Any] = dict(splits=splits, max_bad=max_bad, form=form)
    # The others are imported when they are asked for: TFDS alone takes seconds.
    if config.name in EMBEDDED:
        if not form.in_color:
            raise ValueError(
                f"data.channels {form.channels}: the embedded digits are in color; "
                "name your images by data.name and data.path, or use data.channels=3"
            )
        sizes = config.image_size, config.pictures_per_digit
        data = Data(*digits.open_digits(config.name, *sizes))
    elif config.name == "omniglot":
        from snclr_jax.data.omniglot import open_omniglot

        data = Data(*open_omniglot(*where, max_bad=max_bad, form=form))
    elif config.name == "folder":
        from snclr_jax.data.folder import open_folder

        data = Data(*open_folder(*where, **how, pages=config.get("pages")))
    elif config.name == "parquet":
        from snclr_jax.data.parquet_source import open_parquet

        columns = config.get("image_column"), config.get("label_column")
        data = Data(*open_parquet(*where, **how, columns=columns))
    elif config.name == "webdataset":
        from snclr_jax.data.webdataset_source import open_webdataset

        data = Data(*open_webdataset(*where, **how))
    elif config.name == "numpy":
        from snclr_jax.data.numpy_source import open_numpy

        data = Data(*open_numpy(*where, **how))
    elif config.name == "tfds":
        from snclr_jax.data.tfds_source import open_tfds

        data = Data(
            *open_tfds(
                config.tfds_name,
                config.path,
                config.image_size,
                train_split=config.train_split,
                test_split=config.test_split,
                max_bad=max_bad,
                form=form,
            )
        )
    elif config.name == "python":
        from snclr_jax.data.python_source import open_python

        data = Data(*open_python(given, config.image_size, form=form))
    else:
        raise ValueError(
            f'data.name is {config.name!r}; use "digits", "digit_pairs", "omniglot", '
            '"folder", "parquet", "webdataset", "numpy" or "tfds"'
        )
    if config.holdback:
        train, test = hold_back(data.train, config.holdback)
        data = data._replace(train=train, test=test)
    return data
