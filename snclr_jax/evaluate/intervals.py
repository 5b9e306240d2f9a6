"""Confidence intervals of a mean, by Student's t distribution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import stdtrit


def mean_and_interval(
    values: Sequence[float] | np.ndarray,
) -> tuple[float, float | Any]:
    """Returns the mean, and half its 95% confidence interval; None for one value.

    Args:
      values: one or more independent draws of about normal distribution.

    Example:
      >>> mean, half = mean_and_interval([80.0, 82.0, 84.0])
      >>> mean, round(half, 2)
      (82.0, 4.97)
    """
    mean, count = float(np.mean(values)), len(values)
    if count == 1:
        return mean, None
    error = np.std(values, ddof=1) / np.sqrt(count)
    return mean, float(stdtrit(count - 1, 0.975) * error)
