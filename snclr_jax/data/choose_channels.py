"""What a config leaves to images that are not in color: statistics, and no hue."""

from __future__ import annotations

from typing import Any

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from snclr_jax.data import Split, open_data
from snclr_jax.run.checkpoint_reader import saved_steps
from snclr_jax.run.files import CONFIG_FILE
from snclr_jax.run.workdir import read_config
from snclr_jax.step.channels import COLOR, channels_of

SAMPLE = 256  # images that the statistics are measured on
_STATISTICS: tuple[str, ...] = ("mean", "std")
Statistics = tuple[tuple[float, ...], ...]  # the values of each of them
_OF_COLOR = ("saturation", "hue", "grayscale")
_LEAST = 1 / 255  # standard deviation: what is constant is not divided by 0


def without_color(config: ConfigDict) -> tuple[ConfigDict, str]:
    """Returns the config without operations on colors, where images have none.

    Args:
      config: a recipe; not changed.

    Returns:
      The config, and a sentence that says so; "" where there were none.
    """
    channels = channels_of(config.data)
    views = ("view1", "view2", "local")
    changed = [
        operation
        for operation in _OF_COLOR
        if any(config.augment[view][operation] for view in views)
    ]
    if channels == COLOR or not changed:
        return config, ""
    config = config.copy_and_resolve_references()
    for view in views:
        config.augment[view].update(dict.fromkeys(changed, 0.0))
    return config, (
        f"data.channels {channels}: augmentation has no {', '.join(changed)}, and "
        "brightness and contrast change all channels alike"
    )


def choose_channels(
    config: ConfigDict,
    *,
    given: Any = None,
    workdir: str | None = None,
    measure: bool = True,
) -> tuple[ConfigDict, str]:
    """Returns the config with a mean and a standard deviation of each channel.

    Where there are as many numbers as channels, they stay. Else they are those that the
    run in the workdir has, or those of `SAMPLE` training images.

    Args:
      config: with everything else of `data` chosen; not changed.
      given: images, see `open_data`.
      workdir: of the run, or None.
      measure: False puts 0.5 and 0.25 in the place of what would be measured.

    Returns:
      The config, and a sentence with what was measured; "" where nothing was.

    Raises:
      ValueError: where images are to be measured, and cannot be read.
    """
    channels = channels_of(config.data)
    lacking = [name for name in _STATISTICS if len(config.data[name]) != channels]
    if not lacking:
        return config, ""
    config = config.copy_and_resolve_references()
    found, said = _kept(workdir, channels) if workdir else (), ""
    if not found and measure:
        split = open_data(config.data, given).train
        rows = split.thinned(SAMPLE)
        found = channel_statistics(split, rows)
        of = zip(_STATISTICS, found, strict=True)
        values = [f"data.{name}={value!r}" for name, value in of if name in lacking]
        said = f"measured on {len(rows)} training images: {', '.join(values)}"
    found = found or ((0.5,) * channels, (0.25,) * channels)
    of = dict(zip(_STATISTICS, found, strict=True))
    config.data.update({name: of[name] for name in lacking})
    return config, said


def channel_statistics(split: Split, rows: np.ndarray) -> Statistics:
    """Returns mean and standard deviation of each channel, in units of 255 levels.

    To four digits, and of the latter at least 1/255. Sums are of integers: the same on
    every machine.

    Args:
      split: the images.
      rows: which of them, (m,).
    """
    pixels = split.read(rows)
    sums, squares = np.zeros((2, pixels.shape[-1]), np.int64)
    for image in pixels:
        sums += image.sum(axis=(0, 1), dtype=np.int64)
        squares += np.square(image, dtype=np.int64).sum(axis=(0, 1))
    count = pixels[..., 0].size
    mean = sums / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0)) / 255
    return (
        tuple((mean / 255).round(4).tolist()),
        tuple(np.maximum(std, _LEAST).round(4).tolist()),
    )


def _kept(workdir: str, channels: int) -> Statistics:
    """Returns the statistics of the run in a workdir, or () where there are none."""
    if not (saved_steps(workdir) or (epath.Path(workdir) / CONFIG_FILE).exists()):
        return ()
    data = read_config(workdir).get("data", {})
    if channels_of(data) != channels:
        return ()
    return tuple(tuple(data[name]) for name in _STATISTICS)
