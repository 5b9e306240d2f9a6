"""What the objectives share whose images have soft neighbors as further positives.

The K rows of the queue that are nearest to an image are its neighbors; how positive
each is, is the attention of the online projection (SNCLR, section 3.2).
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, cast

import jax
import jax.numpy as jnp
from annotated_types import Ge, Gt, Lt
from jax import Array

from snclr_jax.devices.mesh import AXIS
from snclr_jax.objectives.searching import Searched, Searching
from snclr_jax.objectives.snclr_plain import positiveness_of_logits
from snclr_jax.queue.ring import NeighborQueue, Neighbors
from snclr_jax.queue.settings import QueueSettings
from snclr_jax.queue.sharded import (
    Candidates,
    Election,
    elect,
    neighbors_of_own_images,
    of_neighbors,
    search_own_rows,
)
from snclr_jax.queue.sums import products_with_rows
from snclr_jax.step.objective import ANOTHER_LOSS, Now, Panel, Seen, Shown


@dataclasses.dataclass(frozen=True)
class Attention:
    """The positiveness of neighbors (section 3.2)."""

    # "cosine" (no parameters) or "linear" (f1 and f2 are learned matrices).
    kind: Literal["cosine", "linear"] = "cosine"
    # Of the softmax over an image's neighbors; the lower, the more they differ.
    temperature: Annotated[float, Ge(1e-6)] = 1.0
    # Softmax weights are divided by gamma.
    gamma: Annotated[float, Gt(0)] = 1.0
    # Softmax weights at or below this become 0; the authors' option is 1 / K.
    threshold: Annotated[float, Ge(0), Lt(1)] | None = None
    # True: positiveness sends no gradient into the projection.
    stop_gradient: bool = False


class Weighed(NamedTuple):
    """The candidates of all images among the rows of one device, and their weights.

    Attributes:
      local: the candidates.
      elected: which of them are neighbors, as this device's images see them.
      chosen: (b, l) bool, which of them are neighbors.
      products: (v, b, l) query_i . c of each view.
      weights: (v, b, l) positiveness of each view.
    """

    local: Candidates
    elected: Election
    chosen: Array
    products: Array
    weights: Array

    def of_own_images(self, queue: NeighborQueue) -> tuple[Array, Neighbors]:
        """Returns weights (v, b / P, k) and neighbors of this device's images."""
        weights = jax.lax.stop_gradient(self.weights)
        return (
            jax.vmap(of_neighbors, (0, None))(weights, self.elected),
            neighbors_of_own_images(queue, self.local.row, self.elected),
        )


@dataclasses.dataclass(frozen=True)
class SoftNeighbors(Searching):
    """An objective whose images have soft neighbors as further positives.

    What a subclass passes from `loss` to `metrics` has `weights`, (..., b, k), too.
    """

    # tau, which divides every similarity in the loss.
    temperature: Annotated[float, Ge(1e-6)] = 0.2
    # Loss = scale x mean over all directions.
    scale: Annotated[float, Gt(0)] = 1.0
    # Multiplies the positiveness of all neighbors, after a linear warm-up, which with
    # other epochs than the recipe's, and unless it is set, is the same share of them.
    neighbor_weight: Annotated[float, Ge(0)] = 1.0
    neighbor_warmup_epochs: Annotated[float, Ge(0)] = 0.0
    queue: QueueSettings = QueueSettings()  # pyrefly: ignore[bad-override]

    shown: ClassVar[tuple[Shown, ...]] = (
        Shown("positiveness entropy", "positiveness_entropy", ".2f"),
        *Searching.shown,
    )
    panels: ClassVar[tuple[Panel, ...]] = (
        (
            "positiveness w",
            {"positiveness_max": "largest", "positiveness_mean": "mean"},
            True,
        ),
        ("entropy of w (nats)", {"positiveness_entropy": ""}, False),
        (
            "mean w of own and other classes",
            {"queue_right_weight": "own", "queue_wrong_weight": "other"},
            True,
        ),
        ("own class above others by w (AUC)", {"queue_weight_auc": ""}, False),
        *Searching.panels,
        ("weight λ of all neighbors", {"neighbor_weight": ""}, True),
    )
    changes: ClassVar[dict[str, str]] = {
        **Searching.changes,
        "queue.k": "every image has that many neighbors as positives",
        **dict.fromkeys(("temperature", "scale"), ANOTHER_LOSS),
    }

    def metrics(
        self,
        aux: Any,
        seen: Seen,
        labels: Array | None,
        now: Now,
    ) -> dict[str, Array]:
        """Returns means over all directions and all neighbors that were found."""
        if not self.searches:
            return {}
        searched = Searched.of(aux)
        # (v, n b, k): the views that predict, and the images of every target.
        weights = jnp.concatenate([direction.weights for direction in aux], axis=1)
        has_neighbors = jnp.any(searched.neighbors.valid, axis=1)
        images = jnp.maximum(jnp.sum(has_neighbors), 1)
        share = weights / jnp.maximum(jnp.sum(weights, axis=-1, keepdims=True), 1e-12)
        entropy = -jnp.sum(jax.scipy.special.xlogy(share, share)) / weights.shape[0]
        return {
            "neighbor_weight": self.weight_now(now),
            "positiveness_mean": searched.mean(jnp.mean(weights, axis=0)),
            "positiveness_max": jnp.max(weights),
            "positiveness_entropy": entropy / images,
            **super().metrics(aux, seen, labels, now),
        }

    @property
    def waits(self) -> dict[str, str]:
        """The full weight of neighbors."""
        never = "neighbors never get their full weight"
        return {"neighbor_warmup_epochs": never} if self.searches else {}

    def weight_now(self, now: Now) -> Array:
        """Rises from 0 in a straight line: early neighbors are close to random."""
        steps = round(self.neighbor_warmup_epochs * now.steps_per_epoch)
        risen = jnp.minimum(now.step / steps, 1.0) if steps else 1.0
        return jnp.asarray(self.neighbor_weight * risen)

    def weigh(
        self,
        queue: NeighborQueue,
        query: Array,
        anchor: Array,
        target: Array,
        image_id: Array,
    ) -> Weighed:
        """Searches and weighs neighbors among the rows of this device.

        Args:
          queue: with the rows of this device, in a `shard_map`.
          query: (v, b, d) rows of all images that meet their neighbors.
          anchor: (v, b, d) what says how positive these are.
          target: (b, d) what searches them.
          image_id: (b,) int32.
        """
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Attending(SoftNeighbors):
    """Soft neighbors whose positiveness is the attention of the online projection."""

    attention: Attention = Attention()

    explanation: ClassVar[str] = (
        "How positive neighbors are: w is a softmax over the K neighbors of an image, "
        "so its mean is 1 / K / gamma, and its entropy is log K where all neighbors "
        "count alike. The weight λ multiplies all of them."
    )
    fixed: ClassVar[tuple[str, ...]] = ("attention.kind",)
    changes: ClassVar[dict[str, str]] = {
        **SoftNeighbors.changes,
        "attention": "neighbors are weighted otherwise",
    }

    def init(self, key: Array, dim: int) -> tuple[dict[str, Array], NeighborQueue]:
        """Returns W1 and W2 of linear attention, and an empty queue.

        Both matrices start as the identity, where the attention is the inner product.
        """
        params, state = super().init(key, dim)
        if self.attention.kind == "linear":
            params = {"w1": jnp.eye(dim), "w2": jnp.eye(dim)}
        return params, state

    def anchor(self, params: dict[str, Array], y: Array) -> Array:
        """Returns what is compared with queue rows to get the positiveness.

            f1(y) . f2(c) = (W1 y) . (W2 c) = (W2^T W1 y) . c

        so queue rows never move. Neither projection has a bias: that of f2 would cancel
        in the softmax, that of f1 is left out with it (a choice of this project).
        `attention.stop_gradient` cuts the path into y; W1 and W2 still learn.
        """
        if self.attention.stop_gradient:
            y = jax.lax.stop_gradient(y)
        if self.attention.kind == "cosine":
            return y
        highest = jax.lax.Precision.HIGHEST
        y = jnp.dot(y, params["w1"].T, precision=highest)
        return jnp.dot(y, params["w2"], precision=highest)

    def positiveness(
        self, logits: Array, *, valid: Array, axis_name: str | None = None
    ) -> Array:
        """Returns w_ik, how positive each neighbor is (section 3.2).

        Another rule takes its place in a subclass, see notebooks/change_the_loss.ipynb.

        Args:
          logits: (..., b, k) products f1(y_i) . f2(c_ik).
          valid: (b, k) bool; a missing neighbor has weight 0.
          axis_name: of the mesh, where the neighbors of an image are spread over its
            devices: each passes its own, and gets their weights.

        Returns:
          (..., b, k) weights >= 0; they and their gradients are finite even for an
          image without neighbors.
        """
        return positiveness_of_logits(
            logits,
            valid=valid,
            temperature=self.attention.temperature,
            gamma=self.attention.gamma,
            threshold=self.attention.threshold,
            axis_name=axis_name,
        )

    def weigh(
        self,
        queue: NeighborQueue,
        query: Array,
        anchor: Array,
        target: Array,
        image_id: Array,
    ) -> Weighed:
        """Weighs neighbors by their attention."""
        k, block = self.queue.k, self.queue.block
        local = search_own_rows(queue, target, image_id, self.queue)
        elected = elect(local.similarity, k)
        chosen = jnp.arange(local.row.shape[1]) < elected.count[:, None]
        both = products_with_rows(
            (*query, *anchor), queue.keys, local.row, elected.count, block
        )
        # jax.custom_vjp loses what its function returns, to a type checker.
        products, logits = jnp.split(jnp.stack(cast(Any, both)), 2)
        weights = self.positiveness(logits, valid=chosen, axis_name=AXIS)
        return Weighed(local, elected, chosen, products, weights)
