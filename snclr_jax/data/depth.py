"""Images of more than 8 bits: which of their levels they use."""

from __future__ import annotations

import numpy as np
from ml_collections import ConfigDict

from snclr_jax.data.decode import Encoded, open_encoded, stored_values
from snclr_jax.data.split import Split
from snclr_jax.data.upright import is_deep
from snclr_jax.settings.levels import FULL, Levels, parse_levels

LOOKED_AT = 16  # images; decoding one of many megapixels takes a tenth of a second
_PIXELS = 2**20  # of each of them
# A defect pixel, or a letter burnt in, is not what the range is for.
_LEFT_OUT = 0.001  # share of the pixels at either end


def used_levels(split: Split) -> Levels | None:
    """Returns the range of levels that the images of more than 8 bits use.

    Of `LOOKED_AT` images from all over the split, without a thousandth of the pixels at
    either end; None where no such image is among them.
    """
    ranges = list(filter(None, map(_levels, split.originals(split.thinned(LOOKED_AT)))))
    if not ranges:
        return None
    low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
    return low, high if high > low else low + 1


def note_on_range(config: ConfigDict, split: Split) -> str:
    """Says where the levels of the images hardly differ once 8 bits are left of them.

    Args:
      config: `config.data`.
      split: the training images.
    """
    if parse_levels(config.range) != FULL:
        return ""
    used = used_levels(split)
    if used is None or used[1] - used[0] >= FULL[1] / 4:
        return ""
    low, high = used
    steps = max(1, round((high - low) / 256))
    return (
        f"data.range: images of more than 8 bits use the levels {low:g} to {high:g} of "
        f"{FULL[1] - 1:g} and become {steps} of 256 grays; set data.range=auto, or "
        "'low,high'"
    )


def _levels(image: Encoded | np.ndarray) -> Levels | None:
    if isinstance(image, np.ndarray):
        return None
    try:
        if image.form.in_color:
            with open_encoded(image) as picture:
                values = np.asarray(picture) if is_deep(picture) else None
        else:
            values = stored_values(image)
    except Exception:  # Pillow raises many kinds; who decodes the image says so
        return None
    if values is None or values.dtype in (np.uint8, np.bool_):
        return None
    levels = values.ravel().astype(np.float32)
    levels = levels[np.isfinite(levels)][:: -(-levels.size // _PIXELS)]
    if not levels.size:
        return None
    low, high = np.quantile(levels, (_LEFT_OUT, 1 - _LEFT_OUT), method="nearest")
    return float(low), float(high)
