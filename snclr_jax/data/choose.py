"""Sizes, batch and queue that fit a set of images, for a config that leaves them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from snclr_jax.data import Split, open_data
from snclr_jax.data.choose_channels import choose_channels, without_color
from snclr_jax.data.decode import (
    Encoded,
    UnreadableImage,
    open_encoded,
    stored_values,
    unreadable,
)
from snclr_jax.data.depth import used_levels
from snclr_jax.data.order import WINDOWED, block_size, in_user_space
from snclr_jax.settings.check import LEAST_BATCH
from snclr_jax.settings.levels import AUTO
from snclr_jax.settings.objective import build_objective
from snclr_jax.settings.ranges import check_fields, class_of_section, get_field
from snclr_jax.settings.resident import is_resident
from snclr_jax.step.objective import power_of_two

FIELDS = (
    "batch_size",
    "data.image_size",
    "augment.size",
    "augment.local_size",
    "model.stem",
)
VIEW_SIZES = (224, 192, 160, 128, 96, 64, 48, 32)
LARGEST_BATCH = 256
LEAST_IMAGES = 4 * LEAST_BATCH  # four steps an epoch, and a queue of two batches
SAMPLE = 256  # images whose size is read


def choose_from_data(
    config: ConfigDict,
    *,
    devices: int,
    given: Any = None,
    workdir: str | None = None,
    measure: bool = True,
) -> tuple[ConfigDict, str]:
    """Returns the config with every field chosen that it leaves to the images.

    Those of `FIELDS` and of the objective that are None, by `choose`'s rules for the
    number of training images and the median of their shorter sides; data.range "auto",
    by their `used_levels`; and what images that are not in color need, see
    `without_color` and `choose_channels`.

    Args:
      config: a recipe; not changed.
      devices: of the mesh.
      given: images, see `open_data`.
      workdir, measure: see `choose_channels`.

    Returns:
      The config, and a sentence that says what was found and chosen; "" where no field
      was left to be.

    Raises:
      ValueError: where a field is to be chosen, and the data cannot be read or are too
        few.
    """
    # What is chosen follows from other fields, so these have to be in order first.
    fields = (*FIELDS, *_of_objective(config))
    check_fields(config, unset=fields)
    config, changed = without_color(config)
    config, chosen = _choose_missing(config, fields, devices=devices, given=given)
    config, measured = choose_channels(
        config, given=given, workdir=workdir, measure=measure
    )
    return config, "; ".join(filter(None, (changed, chosen, measured)))


def _choose_missing(
    config: ConfigDict, fields: Sequence[str], *, devices: int, given: Any
) -> tuple[ConfigDict, str]:
    missing = [field for field in fields if get_field(config, field) is None]
    auto = config.data.range == AUTO
    if not missing and not auto:
        return config, ""
    data = config.data.copy_and_resolve_references()
    data.image_size = data.image_size or VIEW_SIZES[-1]
    data.range = None
    opened = open_data(data, given)
    train = opened.train
    measured = f"{train.size} images"
    if missing:
        side = _median_side(train)
        try:
            config = choose(config, images=train.size, side=side, devices=devices)
        except ValueError as error:  # the notes may say where the images are
            raise ValueError("; ".join([str(error), *opened.notes])) from error
        measured += f", shorter side {side} pixels in the median"
    if auto:
        config = config.copy_and_resolve_references()
        used = used_levels(train)
        config.data.range = "full" if used is None else f"{used[0]:g},{used[1]:g}"
        missing.append("data.range")
    values = ", ".join(f"{field}={get_field(config, field)!r}" for field in missing)
    return config, f"chosen for {measured}: {values}"


def choose_order(config: ConfigDict, *, images: int) -> tuple[ConfigDict, str]:
    """Returns the config with data.order "windowed" where it is None and has to be.

    That is for a TFDS set on a FUSE mount, where single reads are slow, unless the
    images stay on the device, and are read once. In other sources each image is opened
    on its own, and blocks would gain nothing.

    Args:
      config: with every field of `FIELDS` chosen; not changed.
      images: of the training set.

    Returns:
      The config, and a sentence that says so; "" where the order is left.
    """
    data = config.data
    if data.order or data.name != "tfds" or is_resident(config, images):
        return config, ""
    if not in_user_space(data.path):
        return config, ""
    config = config.copy_and_resolve_references()
    config.data.order = WINDOWED
    return config, (
        f"data.path is on a FUSE mount, so data.order={WINDOWED!r} reads blocks of "
        f"{block_size(images)} images; data.order='random' for a mount that is fast at "
        "single ones"
    )


def choose(config: ConfigDict, *, images: int, side: int, devices: int) -> ConfigDict:
    """Returns the config with every field of `FIELDS` that is None chosen.

    augment.size     the largest of `VIEW_SIZES` that the images have
    data.image_size  8/7 of that (256 for 224), and no more than the images have
    augment.local_size  3/7 of it, as a multiple of 16 (96 for 224)
    model.stem       "cifar" for views up to 64 pixels, "imagenet" above
    batch_size       a twentieth of the images, at most `LARGEST_BATCH` and what the
                     objective's `batch_limits` say, and at least `LEAST_BATCH`: a power
                     of two, or a multiple of the devices and micro-batches that it is
                     divided into

    What the objective leaves to be chosen, its `choose` does.

    Args:
      config: a recipe; not changed.
      images: to train on.
      side: median of the images' shorter sides, in pixels.
      devices: of the mesh.

    Raises:
      ValueError: where batch or queue are to be chosen for fewer than `LEAST_IMAGES`
        images, or fewer than two batches of the least size.
    """
    counts = [
        field
        for field in ("batch_size", *_of_objective(config))
        if get_field(config, field) is None
    ]
    size = config.augment.size or next((s for s in VIEW_SIZES if s <= side), 32)
    config = choose_of_objective(config, images=images, devices=devices)
    config.augment.size = size
    if config.data.image_size is None:
        config.data.image_size = max(size, min(side, round(size * 8 / 7)))
    if config.augment.local_size is None:
        config.augment.local_size = 16 * round(size * 3 / 7 / 16)
    if config.model.stem is None:
        config.model.stem = "cifar" if size <= 64 else "imagenet"
    if config.batch_size is None:
        unit, most = build_objective(config).batch_limits()
        unit = math.lcm(devices * config.accumulate, unit)
        most = max(min(images // 20, most, LARGEST_BATCH), LEAST_BATCH)
        config.batch_size = power_of_two(most, unit)
    least = LEAST_IMAGES
    if "batch_size" in counts:
        least = max(least, 2 * config.batch_size)
    where = f" on {devices} devices" if devices > 1 else ""
    if counts and images < least:
        raise ValueError(
            f"{images} training images are too few to choose {' and '.join(counts)} "
            f"for: {least} are the least that make sense{where}; add images, or set "
            "each of them"
        )
    return config


def choose_of_objective(config: ConfigDict, *, images: int, devices: int) -> ConfigDict:
    """Returns the config with what the objective leaves to be chosen, see `choose`."""
    config = config.copy_and_resolve_references()
    kind = class_of_section(config)
    chosen = kind.choose(config.objective, images=images, devices=devices)
    for field in _of_objective(config):
        if get_field(config, field) is None:
            value = chosen[field.removeprefix("objective.")]
            config.update_from_flattened_dict({field: value})
    return config


def _of_objective(config: ConfigDict) -> tuple[str, ...]:
    """Returns the fields of the objective that a recipe may leave None."""
    kind = class_of_section(config)
    return tuple(f"objective.{name}" for name in kind.chosen)


def _median_side(split: Split) -> int:
    """The median shorter side of some of the images; unreadable ones do not count."""
    some = np.arange(0, split.size, -(-split.size // SAMPLE))
    sides, bad = [], []
    for image in split.originals(some):
        try:
            sides.append(_side(image))
        except (UnreadableImage, OSError) as error:
            bad.append(error)
    if not sides:
        first = bad[0]
        why = first.describe() if isinstance(first, UnreadableImage) else first
        raise ValueError(
            f"data.path: none of {len(some)} images of {split.size} that were looked "
            f"at can be read: {why}; set augment.size and data.image_size, or replace "
            "them"
        )
    return round(statistics.median(sides))


def _side(image: Encoded | np.ndarray) -> int:
    """The shorter side, read from the head of an encoded image."""
    if isinstance(image, np.ndarray):
        return min(image.shape[:2])
    with unreadable(image.name):
        if not image.form.in_color:
            return min(stored_values(image).shape[:2])
        with open_encoded(image) as picture:
            return min(picture.size)
