"""The training step of SNCLR: one pure function, compiled once over a device mesh.

Read `train_step` inside `make_train_step` first: it is the method in the paper's order.
The symbols are those of the paper and of docs and tests: y projection, z prediction,
t target projection, c queue row, w positiveness.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, cast

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh

from snclr_jax.devices.mesh import replicated
from snclr_jax.models import Model, Variables, target_subset
from snclr_jax.objectives.describe import Direction, Metrics, describe, feature_std
from snclr_jax.objectives.snclr_fused import search_and_loss
from snclr_jax.queue.ring import NeighborQueue
from snclr_jax.queue.sharded import push_targets
from snclr_jax.step.accumulate import in_parts
from snclr_jax.step.optim import learning_rate
from snclr_jax.step.probe import update_probe
from snclr_jax.step.schedules import ema_momentum, linear_warmup
from snclr_jax.step.state import TrainState, state_shardings
from snclr_jax.step.views import Batch, image_keys, random_views

# What image_keys are numbered from where they choose the dropped paths of a view: above
# the number of any view.
DROP_PATH = 1000


class Forward(NamedTuple):
    """What the online network leaves behind, besides its gradient."""

    directions: tuple[Direction, ...]
    feature: Array
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
        views = random_views(batch, state.step, config=config, mesh=mesh)
        all_targets, target_batch_stats = targets(
            model, state, views, config=config, mesh=mesh
        )
        neighbor_weight = linear_warmup(
            state.step, peak=config.loss.neighbor_weight, warmup_steps=warmup_steps
        )
        (loss, forward), gradients = jax.value_and_grad(all_directions, has_aux=True)(
            state.params,
            state,
            batch,
            views,
            all_targets,
            neighbor_weight,
            model=model,
            config=config,
            mesh=mesh,
        )
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = cast(Variables, optax.apply_updates(state.params, updates))
        momentum = ema_momentum(
            state.step, base=config.ema.momentum, total_steps=total_steps
        )
        target_params = optax.incremental_update(
            target_subset(params), state.target_params, 1.0 - momentum
        )
        queue = push_views(state, all_targets, batch, config=config, mesh=mesh)
        probe, probe_metrics = update_probe(state.probe, forward.feature, batch)
        metrics = {
            "loss": loss,
            **describe(forward.directions, batch, state.step),
            "feature_std": feature_std(forward.projection),
            "gradient_norm": optax.tree.norm(gradients),
            "parameter_norm": optax.tree.norm(params),
            "learning_rate": rate(state.step),
            "ema_momentum": momentum,
            "neighbor_weight": neighbor_weight,
            **probe_metrics,
        }
        state = TrainState(
            step=state.step + 1,
            params=params,
            batch_stats=forward.batch_stats,
            target_params=target_params,
            target_batch_stats=target_batch_stats,
            opt_state=opt_state,
            queue=queue,
            probe=probe,
        )
        state = jax.lax.with_sharding_constraint(state, state_shardings(state, mesh))
        return state, jax.lax.with_sharding_constraint(metrics, replicated(mesh))

    return jax.jit(train_step, donate_argnums=0)


class _HasTarget(Protocol):
    """A `TrainState`, or what holds its target network alone."""

    @property
    def target_params(self) -> Any: ...

    @property
    def target_batch_stats(self) -> Any: ...


def targets(
    model: Model, state: _HasTarget, views: tuple[Array, ...], *, config, mesh: Mesh
) -> tuple[tuple[Array, ...], Any]:
    """Returns the unit target projections t of the global views, and BN statistics.

    BatchNorm never sees two views at once, whether they pass together or not.
    """
    stats, found = state.target_batch_stats, []
    for group in passes(views[: config.augment.global_views], mesh):

        def project(views: Array, stats=stats):
            return model.target(state.target_params, stats, views)

        stacked = jnp.stack(group, axis=1)
        projection, stats = in_parts(project, config.accumulate, mesh, stacked)
        found += jnp.unstack(unit(projection), axis=1)
    return tuple(found), stats


def all_directions(
    params: Any,
    state: TrainState,
    batch: Batch,
    views: tuple[Array, ...],
    all_targets: tuple[Array, ...],
    neighbor_weight: Array,
    *,
    model: Model,
    config,
    mesh: Mesh,
) -> tuple[Array, Forward]:
    """Returns scale x the mean of L_vu, prediction of view v, target of view u != v.

    With two views that is scale (L_12 + L_21) / 2. Of more, each predicts the targets
    of all other global views; local views have no target (SwAV, section 3.3).
    """
    whole = len(all_targets)
    stats, outputs = state.batch_stats, []
    for group in (*passes(views[:whole], mesh), *passes(views[whole:], mesh)):
        first = len(outputs)
        found, moved = project_and_predict(
            model, params, stats, group, first, state.step, config=config, mesh=mesh
        )
        outputs += found
        # An encoder is used on whole images: local views do not move its statistics.
        stats = moved if first < whole else stats

    def direction(number: int, target: Array) -> Direction:
        others = outputs[:number] + outputs[number + 1 :]
        _, y, z = (jnp.stack(each) for each in zip(*others, strict=True))
        loss, neighbors = search_and_loss(
            state.queue,
            prediction=z,
            anchor=attention_query(model, params, y, config.attention),
            target=target,
            image_id=batch.image_id,
            config=config,
            mesh=mesh,
            neighbor_weight=neighbor_weight,
        )
        return Direction(loss, neighbors)

    directions = tuple(direction(*each) for each in enumerate(all_targets))
    loss = sum(each.loss.value for each in directions) / len(directions)
    feature, projection, _ = outputs[0]
    forward = Forward(directions, feature, projection, stats)
    return config.loss.scale * loss, forward


def passes(views: tuple[Array, ...], mesh: Mesh) -> list[tuple[Array, ...]]:
    """Returns which views, all of one size, go through a network together.

    On GPUs all of them: half as many kernels, each of twice as many rows (cifar10 on an
    H200: 9.7 ms a step, and 10.8 one by one). Elsewhere one by one, for then more of a
    view's activations stay in the caches of a CPU (digits: 88 ms, and 103 together) and
    in the fast memory of a TPU (cifar10 on a v5e, as the compiler sees it: 16.5 GB a
    step in main memory, and 21.0 together).
    """
    if mesh.devices.flat[0].platform == "gpu":
        return [views] if views else []
    return [(view,) for view in views]


def project_and_predict(
    model: Model,
    params: Any,
    batch_stats: Any,
    views: tuple[Array, ...],
    first: int,
    step: Array | int,
    *,
    config,
    mesh: Mesh,
) -> tuple[list[tuple[Array, Array, Array]], Any]:
    """Returns (feature, y, z) of each view, y and z of length 1, and BN statistics.

    Args:
      model, params, batch_stats: the online network.
      views: those that pass together, (b, s, s, c) each.
      first: the number of the first of them among all views.
      step: of the run.
      config: the run's config.
      mesh: the devices.
    """
    keys = ()
    if config.model.drop_path:
        of_view = [
            image_keys(config.seed, step, DROP_PATH + first + each, len(view))
            for each, view in enumerate(views)
        ]
        keys = (jnp.stack(of_view, axis=1),)

    def project(views: Array, *keys: Array):
        return model.online(params, batch_stats, views, *keys)

    stacked = jnp.stack(views, axis=1)
    outputs, stats = in_parts(project, config.accumulate, mesh, stacked, *keys)
    outputs = outputs.feature, unit(outputs.projection), unit(outputs.prediction)
    by_view = zip(*(jnp.unstack(each, axis=1) for each in outputs), strict=True)
    return list(by_view), stats


def attention_query(model: Model, params: Any, y: Array, settings) -> Array:
    """Returns f2^T f1(y): what is compared with queue rows to get the positiveness.

    `attention.stop_gradient` cuts the path into y; W1 and W2 still learn.
    """
    if settings.stop_gradient:
        y = jax.lax.stop_gradient(y)
    return model.attend(params, y)


def push_views(
    state: TrainState,
    all_targets: tuple[Array, ...],
    batch: Batch,
    *,
    config,
    mesh: Mesh,
) -> NeighborQueue:
    """Pushes the targets of the second view, or of all, after all were searched."""
    pushed = all_targets[1:2] if config.queue.push == "second" else all_targets
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
