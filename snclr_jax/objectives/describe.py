"""What a step says about itself: the metrics of neighbors, positiveness, collapse."""

from __future__ import annotations

from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
from jax import Array

from snclr_jax.objectives.snclr_fused import Loss
from snclr_jax.queue.ring import Neighbors
from snclr_jax.step.views import Batch

Metrics = dict[str, Array]


class Direction(NamedTuple):
    """What one target and the views that predict it leave behind for the metrics."""

    loss: Loss
    neighbors: Neighbors


def feature_std(y: Array) -> Array:
    """Returns sqrt(d) x the mean standard deviation of unit rows over the batch.

    Near 1 where the embedding fills the sphere, 0 where it has collapsed to a point
    (SimSiam, section 4.1).
    """
    return jnp.mean(jnp.std(y, axis=0)) * jnp.sqrt(y.shape[1])


def describe(directions: tuple[Direction, ...], batch: Batch, step: Array) -> Metrics:
    """Returns means over all directions and all neighbors that were found."""
    if directions[0].neighbors.valid.shape[1] == 0:
        return {}
    # (v, n b, k): the views that predict, and the images of every target.
    weights = jnp.concatenate([each.loss.weights for each in directions], axis=1)
    neighbors = jax.tree.map(
        lambda *leaves: jnp.concatenate(leaves),
        *(each.neighbors for each in directions),
    )
    valid = neighbors.valid
    found = jnp.maximum(jnp.sum(valid), 1)

    def mean_over_found(values: Array) -> Array:
        return jnp.sum(jnp.where(valid, values, 0.0)) / found

    has_neighbors = jnp.any(valid, axis=1)
    images = jnp.maximum(jnp.sum(has_neighbors), 1)
    share = weights / jnp.maximum(jnp.sum(weights, axis=-1, keepdims=True), 1e-12)
    entropy = -jnp.sum(jax.scipy.special.xlogy(share, share)) / weights.shape[0]
    metrics = {
        "positiveness_mean": mean_over_found(jnp.mean(weights, axis=0)),
        "positiveness_max": jnp.max(weights),
        "positiveness_entropy": entropy / images,
        "neighbor_similarity": mean_over_found(neighbors.similarity),
        "neighbor_age": mean_over_found(step - neighbors.pushed_at),
        "neighbors_found": jnp.sum(valid) / valid.size,
    }
    if directions[0].loss.recall is not None:
        recalls = [each.loss.recall for each in directions]
        metrics["search_recall"] = jnp.mean(jnp.stack(cast(list[Array], recalls)))
    if batch.labels is not None:
        image_id = jnp.tile(batch.image_id, len(directions))
        own, theirs = batch.labels[image_id][:, None], batch.labels[neighbors.image_id]
        # A label below 0 is unknown, as in STL-10's unlabelled images.
        known = valid & (own >= 0) & (theirs >= 0)
        same = jnp.sum(known & (own == theirs))
        metrics["neighbor_purity"] = same / jnp.maximum(jnp.sum(known), 1)
    return metrics
