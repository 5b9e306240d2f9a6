"""What the objectives share that remember rows of earlier steps in a ring."""

from __future__ import annotations

from typing import Any, ClassVar

import jax.numpy as jnp
from jax import Array
from ml_collections import ConfigDict

from snclr_jax.queue.ring import NeighborQueue, init_queue
from snclr_jax.queue.settings import RingSettings
from snclr_jax.queue.sharded import QUEUE_SPEC
from snclr_jax.step.objective import Objective, power_of_two

LARGEST_CHOSEN_QUEUE = 65_536


class Remembering(Objective):
    """An objective whose state is a queue, spread over the devices.

    A subclass has a field `queue`, and writes it in `update`.
    """

    # A RingSettings, or one with more fields.
    queue: Any

    changes: ClassVar[dict[str, str]] = {
        "queue.size": "the queue starts empty",
        "queue.dtype": "the queue starts empty",
    }
    chosen: ClassVar[tuple[str, ...]] = ("queue.size",)

    def init(self, key: Array, dim: int) -> tuple[dict[str, Array], NeighborQueue]:
        """Returns no parameters, and an empty queue."""
        del key
        dtype = jnp.dtype(self.queue.dtype)
        return {}, init_queue(self.queue.size, dim, dtype=dtype)

    def specs(self, state: NeighborQueue) -> NeighborQueue:
        """Rows of the queue are split over the devices."""
        del state
        return QUEUE_SPEC

    def check(self, config: ConfigDict, devices: int) -> None:
        """Refuses a queue that the devices or the type of the model do not fit."""
        size, unit = self.queue.size, self.queue.unit(devices)
        if size % unit:
            banks = "" if unit == devices else " and objective.queue.banks"
            raise ValueError(
                f"objective.queue.size {size} is not a multiple of {devices} devices"
                f"{banks}; use {-(-size // unit) * unit}"
            )
        if self.queue.dtype == "float64" and config.model.dtype != "float64":
            raise ValueError(
                "objective.queue.dtype 'float64' needs model.dtype='float64'; use "
                "'float32'"
            )

    @classmethod
    def choose(
        cls, section: ConfigDict, *, images: int, devices: int
    ) -> dict[str, Any]:
        """Returns half the images as the size of the queue: a power of two.

        Long, without holding every image several times; a multiple of what the queue is
        divided into, at most `LARGEST_CHOSEN_QUEUE`.
        """
        queue: RingSettings = cls.from_section(section).queue
        most = min(images // 2, LARGEST_CHOSEN_QUEUE)
        return {"queue.size": power_of_two(most, queue.unit(devices))}

    def savings(self) -> tuple[str, ...]:
        """A queue of half the bytes."""
        if self.queue.dtype == "bfloat16":
            return ()
        return (f"--config.objective.queue.dtype=bfloat16 (it is {self.queue.dtype})",)
