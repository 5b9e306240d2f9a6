"""Images of any channels as pictures that a person can look at."""

from __future__ import annotations

import numpy as np


def in_color(images: np.ndarray) -> np.ndarray:
    """Returns images (..., c) as RGB, (..., 3).

    One channel is gray; of more, the first three are red, green and blue, where there
    are two without blue.
    """
    channels = images.shape[-1]
    if channels == 1:
        return np.repeat(images, 3, axis=-1)
    lacking = [(0, 0)] * (images.ndim - 1) + [(0, max(0, 3 - channels))]
    return np.pad(images[..., :3], lacking)
