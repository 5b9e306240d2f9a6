"""Images of which each process reads its own; what cannot be read, all hear of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import jax
import numpy as np

from snclr_jax.data.bad_images import BadImages
from snclr_jax.data.split import Split
from snclr_jax.devices.agreement import in_agreement
from snclr_jax.devices.processes import from_all
from snclr_jax.devices.shares import filled_up, own_share

Rows = Sequence[Sequence[int] | np.ndarray] | np.ndarray


def own_batches(split: Split, rows: Rows, size: int) -> Iterator[np.ndarray]:
    """Reads this process's rows of every global batch, and nothing else.

    Every process takes as many batches. One that cannot read its images goes on with
    others in their place, which count for nothing: its error ends all processes before
    their last batch, or before the first where it comes with that. Before the last
    batch all processes know, too, which images stand in place of bad ones.

    Args:
      split: the images.
      rows: which of them this process has in each batch, at most `size`; in the first
        batch one or more.
      size: images of this process in a batch.

    Yields:
      uint8 (size, s, s, c); what a batch lacks is filled up with black.

    Raises:
      ValueError, OSError: on every process, where one cannot read its images or more
        are bad than may be.
    """
    failed, images = None, np.empty(0)
    for number, own in enumerate(rows):
        if failed is None and len(own):
            try:
                images = split.read(own)
            except (ValueError, OSError) as error:
                failed = error
        last = number == len(rows) - 1
        if number == 0 or last or jax.process_count() == 1:
            in_agreement(partial(_end_with, failed), lambda _: {})
        if last:
            tell_replaced(split, rows)
        yield filled_up(images, size)


def keep_own(split: Split) -> np.ndarray:
    """Decodes this process's share of all images for good, uint8 (m, s, s, c).

    Raises:
      ValueError, OSError: as `own_batches`.
    """
    own = own_share(split.size)
    images = in_agreement(lambda: split.keep(own), lambda _: {})
    tell_replaced(split, [own])
    return images


def tell_replaced(split: Split, rows: Rows) -> None:
    """Tells all processes which images stand in place of the bad ones of this one.

    Args:
      split: the images.
      rows: which of them this process has read, in batches.

    Raises:
      ValueError: on every process, where more images are bad than may be.
    """
    if jax.process_count() == 1:
        return
    tell_bad([split.bad])
    for process in from_all(split.replacements(np.concatenate(rows))):
        for row, other in process:
            split.replaced(row, other)


def tell_bad(sets: Sequence[BadImages]) -> None:
    """Tells all processes which bad images this one has met since the last time.

    Raises:
      ValueError: on every process, where more images are bad than may be.
    """
    every = from_all([bad.news() for bad in sets])
    for number, bad in enumerate(sets):
        bad.hear([met for process in every for met in process[number]])


def _end_with(error: Exception | None) -> None:
    if error is not None:
        raise error
