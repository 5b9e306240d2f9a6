"""The settings of a ring of rows, which an objective that keeps one has as a field."""

from __future__ import annotations

import dataclasses
import math
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le

BLOCK = 2**22


@dataclasses.dataclass(frozen=True)
class RingSettings:
    """A ring of earlier rows, all of which meet every image."""

    # Rows q over all devices; a multiple of the number of devices. A queue longer than
    # the training set holds every image, several times: the nearest rows of an image
    # are then many copies of the same few others, from networks that are an epoch old.
    # About half of a small set is a good start.
    size: Annotated[int, Ge(0), Le(2**30)] = 4096
    # How keys are stored: "float32", or "bfloat16" for half the memory (products are
    # still summed in float32).
    dtype: Literal["float32", "bfloat16", "float64"] = "float32"
    # Most numbers that a step through blocks of queries and rows holds on a device.
    block: Annotated[int, Ge(1)] = BLOCK

    def unit(self, devices: int) -> int:
        """Returns what divides the number of rows."""
        return devices


@dataclasses.dataclass(frozen=True)
class QueueSettings(RingSettings):
    """A ring of earlier target projections, and how it is searched.

    One shorter than ten batches offers few rows to choose K from, all of them from the
    last steps.
    """

    # K, neighbors per image; with 0 SNCLR is InfoNCE, and SoftDCL is DCL.
    k: Annotated[int, Ge(0), Le(2**14)] = 5
    # "exact", or "approx": on TPUs faster, with the recall that is asked for below;
    # the metric search_recall is what each device reaches among its own rows.
    search: Literal["exact", "approx"] = "exact"
    recall: Annotated[float, Gt(0), Le(1)] = 0.95
    # 1: one global queue. n: n separate rings, as the authors' one per device.
    banks: Annotated[int, Ge(1)] = 1
    # An earlier view of the same image is never its neighbor.
    exclude_same_image: bool = True
    # "first" or "second": targets of that view are pushed; "both": of all global views;
    # "mean": their mean, scaled to length 1.
    push: Literal["first", "second", "both", "mean"] = "second"

    def unit(self, devices: int) -> int:
        """Returns what divides the number of rows: devices and banks."""
        return math.lcm(devices, self.banks)
