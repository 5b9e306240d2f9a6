"""The training step of SNCLR: one pure function, compiled once over a device mesh.

Read `train_step` inside `make_train_step` first: it is the method in the paper's order.
The symbols are those of the paper and of docs and tests: y projection, z prediction,
t target projection, c queue row, w positiveness.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh

from snclr_jax.augment import augment_batch, normalize
from snclr_jax.fused_loss import Loss, search_and_loss
from snclr_jax.models import Model, target_subset
from snclr_jax.neighbor_queue import NeighborQueue, Neighbors
from snclr_jax.optim import learning_rate
from snclr_jax.partition import over_batch, replicated, state_shardings
from snclr_jax.schedules import ema_momentum, linear_warmup
from snclr_jax.sharded_queue import push_targets
from snclr_jax.train_state import TrainState

Metrics = dict[str, Array]


class Batch(flax.struct.PyTreeNode):
    """The images of one global batch, decoded on the host or resident on the device.

    Attributes:
      image_id: (b,) int32, the place of each image in the training set.
      images: (b, h, w, 3) uint8 decoded on the host, or None.
      resident: (n, h, w, 3) uint8, the whole training set on every device, or None;
        `image_id` indexes it. An argument and not a constant, which XLA would fold.
      labels: (n,) int32 of the whole training set, or None. Read by metrics only.
    """

    image_id: Array
    images: Array | None = None
    resident: Array | None = None
    labels: Array | None = None


class Direction(NamedTuple):
    """What one direction leaves behind for the metrics."""

    loss: Loss
    neighbors: Neighbors


class Forward(NamedTuple):
    """What the online network leaves behind, besides its gradient."""

    directions: tuple[Direction, Direction]
    projection: Array
    batch_stats: Any


def make_train_step(
    model: Model,
    optimizer: optax.GradientTransformation,
    config,
    mesh: Mesh,
    *,
    steps_per_epoch: int,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """Returns the compiled step: `state, metrics = train_step(state, batch)`.

    The state is donated and keeps its shardings. Augmentation depends on (seed, step,
    place in the global batch) alone, so the step computes the same on any mesh.

    Args:
      model: the networks.
      optimizer: from `make_optimizer`.
      config: the run's checked config.
      mesh: devices, axis "data".
      steps_per_epoch: turns the config's epochs into steps.
    """
    total_steps = config.epochs * steps_per_epoch
    warmup_steps = round(config.loss.neighbor_warmup_epochs * steps_per_epoch)
    rate = learning_rate(config, steps_per_epoch)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        views = two_views(batch, state.step, config=config, mesh=mesh)
        both_targets, target_batch_stats = targets(model, state, views)
        neighbor_weight = linear_warmup(
            state.step, peak=config.loss.neighbor_weight, warmup_steps=warmup_steps
        )
        (loss, forward), gradients = jax.value_and_grad(both_directions, has_aux=True)(
            state.params,
            state,
            batch,
            views,
            both_targets,
            neighbor_weight,
            model=model,
            config=config,
            mesh=mesh,
        )
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        momentum = ema_momentum(
            state.step, base=config.ema.momentum, total_steps=total_steps
        )
        target_params = optax.incremental_update(
            target_subset(params), state.target_params, 1.0 - momentum
        )
        queue = push_views(state, both_targets, batch, config=config, mesh=mesh)
        metrics = {
            "loss": loss,
            **describe(forward.directions, batch, state.step),
            "feature_std": feature_std(forward.projection),
            "gradient_norm": optax.tree.norm(gradients),
            "parameter_norm": optax.tree.norm(params),
            "learning_rate": rate(state.step),
            "ema_momentum": momentum,
            "neighbor_weight": neighbor_weight,
        }
        state = TrainState(
            step=state.step + 1,
            params=params,
            batch_stats=forward.batch_stats,
            target_params=target_params,
            target_batch_stats=target_batch_stats,
            opt_state=opt_state,
            queue=queue,
        )
        state = jax.lax.with_sharding_constraint(state, state_shardings(state, mesh))
        return state, jax.lax.with_sharding_constraint(metrics, replicated(mesh))

    return jax.jit(train_step, donate_argnums=0)


def two_views(batch: Batch, step: Array, *, config, mesh: Mesh) -> tuple[Array, Array]:
    """Returns two random views, (b, s, s, 3) float32 with normalized channels."""
    images = batch.images
    if images is None:
        images = batch.resident[batch.image_id]
    images = jax.lax.with_sharding_constraint(images, over_batch(mesh))
    step_key = jax.random.fold_in(jax.random.key(config.seed), step)
    rows = jnp.arange(images.shape[0])

    def view(number: int, settings) -> Array:
        view_key = jax.random.fold_in(step_key, number)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(view_key, rows)
        view = augment_batch(keys, images, size=config.augment.size, settings=settings)
        return normalize(view, config.data.mean, config.data.std)

    return view(1, config.augment.view1), view(2, config.augment.view2)


def targets(
    model: Model, state: TrainState, views: tuple[Array, Array]
) -> tuple[tuple[Array, Array], Any]:
    """Returns the unit target projections t of both views, and the BN statistics.

    Each view is its own forward pass: BatchNorm never sees both at once.
    """
    stats = state.target_batch_stats
    target1, stats = model.target(state.target_params, stats, views[0])
    target2, stats = model.target(state.target_params, stats, views[1])
    return (unit(target1), unit(target2)), stats


def both_directions(
    params: Any,
    state: TrainState,
    batch: Batch,
    views: tuple[Array, Array],
    both_targets: tuple[Array, Array],
    neighbor_weight: Array,
    *,
    model: Model,
    config,
    mesh: Mesh,
) -> tuple[Array, Forward]:
    """Returns scale (L_12 + L_21) / 2: each view predicts the other view's target."""
    (y1, z1), stats = project_and_predict(model, params, state.batch_stats, views[0])
    (y2, z2), stats = project_and_predict(model, params, stats, views[1])
    target1, target2 = both_targets

    def direction(y: Array, z: Array, t: Array) -> Direction:
        loss, neighbors = search_and_loss(
            state.queue,
            prediction=z,
            anchor=attention_query(model, params, y, config.attention),
            target=t,
            image_id=batch.image_id,
            config=config,
            mesh=mesh,
            neighbor_weight=neighbor_weight,
        )
        return Direction(loss, neighbors)

    first, second = direction(y1, z1, target2), direction(y2, z2, target1)
    loss = config.loss.scale * (first.loss.value + second.loss.value) / 2
    return loss, Forward((first, second), y1, stats)


def project_and_predict(
    model: Model, params: Any, batch_stats: Any, view: Array
) -> tuple[tuple[Array, Array], Any]:
    """Returns the unit projection y and prediction z of one view, and BN statistics."""
    outputs, batch_stats = model.online(params, batch_stats, view)
    return (unit(outputs.projection), unit(outputs.prediction)), batch_stats


def attention_query(model: Model, params: Any, y: Array, settings) -> Array:
    """Returns f2^T f1(y): what is compared with queue rows to get the positiveness.

    `attention.stop_gradient` cuts the path into y; W1 and W2 still learn.
    """
    if settings.stop_gradient:
        y = jax.lax.stop_gradient(y)
    return model.attend(params, y)


def push_views(
    state: TrainState,
    both_targets: tuple[Array, Array],
    batch: Batch,
    *,
    config,
    mesh: Mesh,
) -> NeighborQueue:
    """Pushes the targets of the second view, or of both, after both were searched."""
    pushed = both_targets[1:] if config.queue.push == "second" else both_targets
    queue = state.queue
    for target in pushed:
        queue = push_targets(
            queue,
            target,
            batch.image_id,
            state.step,
            banks=config.queue.banks,
            mesh=mesh,
        )
    return queue


def unit(rows: Array) -> Array:
    """Returns rows of length 1, in at least float32; a row of zeros stays zero."""
    rows = rows.astype(jnp.promote_types(rows.dtype, jnp.float32))
    square = jnp.sum(rows * rows, axis=-1, keepdims=True)
    return rows * jax.lax.rsqrt(jnp.maximum(square, 1e-24))


def feature_std(y: Array) -> Array:
    """Returns sqrt(d) x the mean standard deviation of unit rows over the batch.

    Near 1 where the embedding fills the sphere, 0 where it has collapsed to a point
    (SimSiam, section 4.1).
    """
    return jnp.mean(jnp.std(y, axis=0)) * jnp.sqrt(y.shape[1])


def describe(
    directions: tuple[Direction, Direction], batch: Batch, step: Array
) -> Metrics:
    """Returns means over both directions and all neighbors that were found."""
    if directions[0].neighbors.valid.shape[1] == 0:
        return {}
    weights = jnp.concatenate([each.loss.weights for each in directions])
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
    share = weights / jnp.maximum(jnp.sum(weights, axis=1, keepdims=True), 1e-12)
    entropy = -jnp.sum(jax.scipy.special.xlogy(share, share))
    metrics = {
        "positiveness_mean": mean_over_found(weights),
        "positiveness_max": jnp.max(weights),
        "positiveness_entropy": entropy / images,
        "neighbor_similarity": mean_over_found(neighbors.similarity),
        "neighbor_age": mean_over_found(step - neighbors.pushed_at),
        "neighbors_found": jnp.sum(valid) / valid.size,
    }
    if directions[0].loss.recall is not None:
        recalls = [each.loss.recall for each in directions]
        metrics["search_recall"] = jnp.mean(jnp.stack(recalls))
    if batch.labels is not None:
        image_id = jnp.concatenate([batch.image_id, batch.image_id])
        same = batch.labels[neighbors.image_id] == batch.labels[image_id][:, None]
        metrics["neighbor_purity"] = mean_over_found(same)
    return metrics
