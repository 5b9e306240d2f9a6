"""What the objectives share that remember rows of earlier steps in a ring."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp
from annotated_types import Gt
from jax import Array
from ml_collections import ConfigDict

from snclr_jax.queue.ring import UNFILLED, NeighborQueue, init_queue
from snclr_jax.queue.settings import RingSettings
from snclr_jax.queue.sharded import EMPTY_SPEC, QUEUE_SPEC, push_targets
from snclr_jax.step.objective import (
    ANOTHER_LOSS,
    Now,
    Objective,
    Seen,
    other_views,
    power_of_two,
)

LARGEST_CHOSEN_QUEUE = 65_536


class Remembering(Objective):
    """An objective whose state is a queue, or some, spread over the devices.

    A subclass has a field `queue`, and may write it otherwise in `update`.
    """

    # A RingSettings, or one with more fields.
    queue: Any

    changes: ClassVar[dict[str, str]] = {
        "queue.size": "the queue starts empty",
        "queue.dtype": "the queue starts empty",
    }
    chosen: ClassVar[tuple[str, ...]] = ("queue.size",)

    def init(self, key: Array, dim: int) -> tuple[dict[str, Array], Any]:
        """Returns no parameters, and an empty queue."""
        del key
        dtype = jnp.dtype(self.queue.dtype)
        return {}, init_queue(self.queue.size, dim, dtype=dtype)

    def specs(self, state: Any) -> Any:
        """Rows of each queue are split over the devices."""
        is_queue = lambda node: isinstance(node, NeighborQueue)  # noqa: E731
        spec = lambda queue: QUEUE_SPEC if queue.image_id.size else EMPTY_SPEC  # noqa: E731
        return jax.tree.map(spec, state, is_leaf=is_queue)

    def update(self, state: Any, seen: Seen, now: Now) -> Any:
        """Pushes the targets of the second view."""
        target, ids = seen.target[1], seen.image_id
        return push_targets(state, target, ids, now.step, banks=1, mesh=now.mesh)

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

    def savings(self) -> dict[str, Any]:
        """A queue of half the bytes, in two ways, and smaller blocks of a search."""
        return {
            "queue.dtype": "bfloat16",
            "queue.size": self.queue.size // 2,
            "queue.block": max(self.queue.block // 4, 1),
        }


@dataclasses.dataclass(frozen=True)
class EveryRow(Remembering):
    """An objective for which every filled row of the queue counts once, unsearched.

    The second view is the target, and all other views, local ones too, predict it.
    """

    # Loss = scale x mean over images and over the views that predict.
    scale: Annotated[float, Gt(0)] = 1.0
    queue: RingSettings = RingSettings()  # pyrefly: ignore[bad-override]

    target: ClassVar[bool] = True
    changes: ClassVar[dict[str, str]] = {
        **Remembering.changes,
        **dict.fromkeys(
            ("temperature", "scale"),
            ANOTHER_LOSS,
        ),
    }

    def check(self, config: ConfigDict, devices: int) -> None:
        """Refuses a queue without rows, too."""
        super().check(config, devices)
        if self.queue.size == 0:
            raise ValueError(
                "objective.queue.size 0 leaves nothing to compare an image with; use "
                f"at least a batch, {config.batch_size}"
            )


def filled_rows(state: NeighborQueue) -> tuple[Array, Array]:
    """Returns the rows of a queue (q, d), and which of them count (q,)."""
    return state.keys, state.pushed_at != UNFILLED


def one_direction(seen: Seen) -> tuple[Array, Array]:
    """Returns all views but the second (v - 1, b, d), and its targets (b, d)."""
    return other_views(seen.prediction, 1), seen.target[1]
