"""Sizes, batch and queue that fit a folder of images, for a config that leaves them."""

from __future__ import annotations

import math
import statistics
from pathlib import Path

from ml_collections import ConfigDict
from PIL import Image

from snclr_jax.data.folder import training_files

FIELDS = (
    "batch_size",
    "data.image_size",
    "augment.size",
    "model.stem",
    "queue.size",
)
VIEW_SIZES = (224, 192, 160, 128, 96, 64, 48, 32)
LARGEST_BATCH, LARGEST_QUEUE = 256, 65_536
SAMPLE = 256  # images whose size is read


def choose_from_folder(config: ConfigDict, *, devices: int) -> tuple[ConfigDict, str]:
    """Returns the config with every field of `FIELDS` that is None chosen.

    The rules are `choose`'s, for the number of training images that `data.path` holds
    and the median of their shorter sides.

    Args:
      config: a recipe; not changed.
      devices: of the mesh.

    Returns:
      The config, and a sentence that says what was found and chosen; "" where no field
      was None.

    Raises:
      ValueError: where a field is None and the data are not a folder of images.
    """
    missing = [field for field in FIELDS if _get(config, field) is None]
    if not missing:
        return config, ""
    if config.data.name != "folder":
        raise ValueError(
            f"{missing[0]} is None, and is chosen for data.name='folder' alone; set "
            f"--config.{missing[0]}"
        )
    root, files = training_files(config.data.path)
    images = len(files) - config.data.holdback
    side = _median_side(root, files)
    chosen = choose(config, images=images, side=side, devices=devices)
    values = ", ".join(f"{field}={_get(chosen, field)!r}" for field in missing)
    found = f"{images} images, shorter side {side} pixels in the median"
    return chosen, f"chosen for {found}: {values}"


def choose(config: ConfigDict, *, images: int, side: int, devices: int) -> ConfigDict:
    """Returns the config with every field of `FIELDS` that is None chosen.

    augment.size     the largest of `VIEW_SIZES` that the images have
    data.image_size  8/7 of that (256 for 224), and no more than the images have
    model.stem       "cifar" for views up to 64 pixels, "imagenet" above
    queue.size       half the images: long, without holding every image several times
    batch_size       a tenth of the queue at most, so that neighbors do not all come
                     from the last steps

    Batch and queue are powers of two, at most `LARGEST_BATCH` and `LARGEST_QUEUE`, or
    the nearest multiple of the devices, banks and parts that they are divided into.

    Args:
      config: a recipe; not changed.
      images: to train on.
      side: median of the images' shorter sides, in pixels.
      devices: of the mesh.
    """
    config = config.copy_and_resolve_references()
    size = config.augment.size or next((s for s in VIEW_SIZES if s <= side), 32)
    queue, banks = config.queue, config.queue.banks
    rows = queue.size or _power_of_two(
        min(images // 2, LARGEST_QUEUE), math.lcm(devices, banks)
    )
    config.augment.size = size
    if config.data.image_size is None:
        config.data.image_size = max(size, min(side, round(size * 8 / 7)))
    if config.model.stem is None:
        config.model.stem = "cifar" if size <= 64 else "imagenet"
    queue.size = rows
    if config.batch_size is None:
        unit = math.lcm(devices * config.accumulate, banks)
        most = min(images // 20, rows // 10, LARGEST_BATCH)
        config.batch_size = max(_power_of_two(most, unit), 2)
    return config


def _power_of_two(most: int, unit: int) -> int:
    """The largest power of two up to `most`, as a multiple of `unit`, at least one."""
    power = 1 << max(most, 1).bit_length() - 1
    return max(power // unit * unit, unit)


def _median_side(root: Path, files: list[str]) -> int:
    """The median shorter side of some of the files; unreadable ones do not count."""
    sides = []
    for file in files[:: -(-len(files) // SAMPLE)]:
        try:
            with Image.open(root / file) as image:
                sides.append(min(image.size))
        except (OSError, ValueError, SyntaxError):
            continue
    if not sides:
        raise ValueError(
            f"data.path: none of {root / files[0]}, ... can be read as an image"
        )
    return round(statistics.median(sides))


def _get(config: ConfigDict, field: str):
    for name in field.split("."):
        config = config[name]
    return config
