"""DCL with soft neighbors from a memory bank: an objective of this project.

A ring of rows of single views finds neighbors of which half are wrong, and trusts those
of every image alike. Here each image has one row, the moving mean of its targets, and
an image whose neighbors stand out counts for more than one whose neighbors do not.
docs/what_we_tried.md has the figures.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp
from annotated_types import Ge
from jax import Array
from ml_collections import ConfigDict

from snclr_jax.devices.mesh import AXIS
from snclr_jax.objectives.soft_dcl import PulledDCL
from snclr_jax.objectives.soft_neighbors import Weighed
from snclr_jax.queue.memory_bank import BankSettings, moving_mean, remember
from snclr_jax.queue.ring import NeighborQueue
from snclr_jax.queue.settings import QueueSettings
from snclr_jax.queue.sharded import Candidates, elect, search_own_rows
from snclr_jax.queue.sums import products_with_rows
from snclr_jax.step.objective import Now, Seen, mean_row, unit


@dataclasses.dataclass(frozen=True)
class MemoryDCL(PulledDCL):
    """Decoupled contrastive learning, with a pull towards neighbors of a memory bank.

        t_i  = sum_u y_ui / |sum_u y_ui|                          u: global views
        a_i  = unit(mu m_i + (1 - mu) t_i)                        the next m_i
        u_ik = max(a_i . c_ik - a_i . c_iR, 0)
        w_ik = u_ik / mean_j sum_l u_jl                           of all views

    The loss is that of `PulledDCL`. m_i is the row of image i, c_ik are the K rows of
    other images nearest to a_i, and c_iR is the one at rank R; where there is none, an
    image's weights are 0. No gradient goes through weights.
    """

    # tau, which divides every similarity in the loss.
    temperature: Annotated[float, Ge(1e-6)] = 0.1
    # Multiplies the positiveness of all neighbors, whose sum is 1 in the mean of a
    # batch, after a linear warm-up.
    neighbor_weight: Annotated[float, Ge(0)] = 6.0
    queue: BankSettings = BankSettings()  # pyrefly: ignore[bad-override]

    explanation: ClassVar[str] = (
        "How positive neighbors are: w says how much nearer than the row at rank R a "
        "neighbor is; its sum over the K neighbors of an image is 1 in the mean of a "
        "batch. The weight λ multiplies all of them."
    )
    changes: ClassVar[dict[str, str]] = {
        **PulledDCL.changes,
        "queue.rank": "neighbors are weighted otherwise",
        "queue.momentum": "rows of the memory move at another speed",
    }

    def asks(self, state: NeighborQueue, seen: Seen, now: Now) -> Array:
        """Returns a of each image; with K = 0, t."""
        rows = mean_row(seen.target)
        if not self.searches:
            return rows
        momentum, ids = self.queue.momentum, seen.image_id
        return unit(moving_mean(state, rows, ids, momentum=momentum, mesh=now.mesh))

    def weigh(
        self,
        queue: NeighborQueue,
        query: Array,
        anchor: Array,
        target: Array,
        image_id: Array,
    ) -> Weighed:
        """Weighs neighbors by how much nearer than the row at rank R they are."""
        del anchor
        k, rank, block = self.queue.k, self.queue.rank, self.queue.block
        asked = QueueSettings(k=rank if k else 0, block=block)
        ranked = search_own_rows(queue, target, image_id, asked)
        local = Candidates(ranked.similarity[:, :k], ranked.row[:, :k], None)
        elected = elect(local.similarity, k)
        chosen = jnp.arange(local.row.shape[1]) < elected.count[:, None]
        products = jnp.stack(
            products_with_rows((*query,), queue.keys, local.row, elected.count, block)
        )
        weights = jnp.zeros_like(local.similarity)
        if k:
            last = elect(ranked.similarity, rank).similarity[:, -1]
            last = jax.lax.all_gather(last, AXIS, tiled=True)[:, None]
            nearer = jnp.where(
                chosen & jnp.isfinite(last), local.similarity - last, 0.0
            )
            total = jax.lax.psum(jnp.sum(nearer), AXIS)
            weights = nearer * len(image_id) / jnp.maximum(total, 1e-12)
        weights = jnp.broadcast_to(weights, products.shape)
        return Weighed(local, elected, chosen, products, weights)

    def update(self, state: NeighborQueue, seen: Seen, now: Now) -> NeighborQueue:
        """Writes a over m of the images of this batch."""
        if not self.searches:
            return state
        rows = self.asks(state, seen, now)
        return remember(state, rows, seen.image_id, now.step, mesh=now.mesh)

    @classmethod
    def choose(
        cls, section: ConfigDict, *, images: int, devices: int
    ) -> dict[str, Any]:
        """Returns a row for each image as the size of the bank, with K = 0 none."""
        queue = cls.from_section(section).queue
        unit = queue.unit(devices)
        return {"queue.size": -(-images // unit) * unit if queue.k else 0}

    def savings(self) -> dict[str, Any]:
        """All but a shorter bank, in which images lose their rows to others."""
        savings = super().savings()
        del savings["queue.size"]
        return savings

    def check(self, config: ConfigDict, devices: int) -> None:
        """Refuses a rank that is a neighbor's, or that no other image's row has."""
        super().check(config, devices)
        k, rank, size = self.queue.k, self.queue.rank, self.queue.size or 0
        if k and not k < rank < size:
            raise ValueError(
                f"objective.queue.rank {rank} must be more than objective.queue.k={k} "
                f"and less than objective.queue.size={size}; use a rank in "
                "between, or a longer bank"
            )

    def notes(self, config: ConfigDict, images: int) -> list[str]:
        """Says where images share rows, and where none has a row at the rank."""
        size, rank = self.queue.size or 0, self.queue.rank
        if not self.searches:
            return []
        if images <= rank:
            return [
                f"objective.queue.rank {rank}: none of {images} training images has so "
                "many others, and without a row at that rank neighbors have no weight; "
                "lower it"
            ]
        if size >= images:
            return []
        return [
            f"objective.queue.size {size} is less than {images} training images, which "
            f"share the rows of the memory: {images} rows have one for each"
        ]

    def batch_limits(self) -> tuple[int, int]:
        """Any batch: rows of images that are not in it are as old in all of them."""
        return 1, 2**31
