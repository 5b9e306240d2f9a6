"""What the objectives share that search their queue for the neighbors of an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from ml_collections import ConfigDict

from snclr_jax.objectives.remembering import Remembering
from snclr_jax.queue.ring import NeighborQueue, Neighbors, per_bank
from snclr_jax.queue.settings import QueueSettings
from snclr_jax.queue.sharded import push_targets
from snclr_jax.step.objective import Now, Panel, Seen, Shown, mean_row


class Searched(NamedTuple):
    """What a step found for each of its targets.

    Attributes:
      neighbors: of (n b) images, those of n targets one after the other.
      recall: () of an approximate search, or None.
    """

    neighbors: Neighbors
    recall: Array | None

    @classmethod
    def of(cls, directions: Sequence[Any]) -> Searched:
        """Joins what directions hold as `neighbors` and `recall`."""
        neighbors = jax.tree.map(
            lambda *leaves: jnp.concatenate(leaves),
            *(direction.neighbors for direction in directions),
        )
        recalls = [direction.recall for direction in directions]
        exact = recalls[0] is None
        return cls(neighbors, None if exact else jnp.mean(jnp.stack(recalls)))

    def mean(self, values: Array) -> Array:
        """Returns the mean of (n b, k) values over all neighbors that were found."""
        valid = self.neighbors.valid
        return jnp.sum(jnp.where(valid, values, 0.0)) / jnp.maximum(jnp.sum(valid), 1)


class Searching(Remembering):
    """An objective whose images find their nearest rows in a queue.

    A subclass searches with `seen.target`, and passes directions with `neighbors` and
    `recall` from `loss` to `metrics`.
    """

    queue: QueueSettings

    shown: ClassVar[tuple[Shown, ...]] = (
        Shown("neighbor similarity", "neighbor_similarity", ".2f"),
        Shown("neighbor age", "neighbor_age", ".0f", watched=True),
        Shown("neighbors of own class", "neighbor_purity", ".0%", watched=True),
        Shown("search recall", "search_recall", ".3f"),
    )
    panels: ClassVar[tuple[Panel, ...]] = (
        ("neighbors of own class (share)", {"neighbor_purity": ""}, True),
        ("nearest neighbor of own class (share)", {"queue_purity_rank1": ""}, True),
        ("similarity of neighbors (cosine)", {"neighbor_similarity": ""}, False),
        ("age of neighbors (steps)", {"neighbor_age": ""}, True),
        ("hubs (skewness of choices)", {"queue_hub_skew": ""}, True),
    )

    def update(self, state: NeighborQueue, seen: Seen, now: Now) -> NeighborQueue:
        """Pushes what `queue.push` names of the targets, after the search."""
        pushed = {
            "first": seen.target[:1],
            "second": seen.target[1:2],
            "both": seen.target,
            "mean": mean_row(seen.target)[None],
        }
        for target in pushed[self.queue.push]:
            state = push_targets(
                state,
                target,
                seen.image_id,
                now.step,
                banks=self.queue.banks,
                mesh=now.mesh,
            )
        return state

    def metrics(
        self, aux: Any, seen: Seen, labels: Array | None, now: Now
    ) -> dict[str, Array]:
        """Returns means over all directions and all neighbors that were found."""
        if not self.searches:
            return {}
        searched = Searched.of(aux)
        neighbors, valid = searched.neighbors, searched.neighbors.valid
        metrics = {
            "neighbor_similarity": searched.mean(neighbors.similarity),
            "neighbor_age": searched.mean(now.step - neighbors.pushed_at),
            "neighbors_found": jnp.sum(valid) / valid.size,
        }
        if searched.recall is not None:
            metrics["search_recall"] = searched.recall
        if labels is not None:
            image_id = jnp.tile(seen.image_id, len(aux))
            own, theirs = labels[image_id][:, None], labels[neighbors.image_id]
            # A label below 0 is unknown, as in STL-10's unlabelled images.
            known = valid & (own >= 0) & (theirs >= 0)
            same = jnp.sum(known & (own == theirs))
            metrics["neighbor_purity"] = same / jnp.maximum(jnp.sum(known), 1)
        return metrics

    @property
    def searches(self) -> bool:
        """Where K is not 0."""
        return self.queue.k > 0

    def pushed_at(self, state: NeighborQueue) -> Array:
        """Returns when the rows of the queue were pushed."""
        return state.pushed_at

    def check(self, config: ConfigDict, devices: int) -> None:
        """Refuses a queue that devices, banks or K do not fit."""
        super().check(config, devices)
        queue = self.queue
        per_bank(config.batch_size, queue.banks, "batch_size")
        if queue.k > queue.size // queue.banks:
            banks = f" in {queue.banks} objective.queue.banks" * (queue.banks > 1)
            raise ValueError(
                f"objective.queue.size {queue.size}{banks} never holds "
                f"objective.queue.k={queue.k} neighbors for an image; use a larger "
                "queue or a smaller k"
            )

    def notes(self, config: ConfigDict, images: int) -> list[str]:
        """Says where a queue is long or short for the images and the batch."""
        size, batch, notes = self.queue.size, config.batch_size, []
        if self.queue.k and size > images:
            notes.append(
                f"objective.queue.size {size} is {size / images:.1f} times the "
                f"training set of {images} images: it holds every image, and neighbors "
                f"repeat one another; {images // 2} rows would be half the set"
            )
        if self.queue.k and size < 10 * batch:
            notes.append(
                f"objective.queue.size {size} is {size / batch:.1f} batches: all "
                "neighbors come from the last steps; ten batches or more offer a choice"
            )
        return notes

    def batch_limits(self) -> tuple[int, int]:
        """A tenth of the queue, so that neighbors do not all come from the last steps.

        The images of a batch are divided among the banks.
        """
        return self.queue.banks, self.queue.size // 10 or super().batch_limits()[1]
