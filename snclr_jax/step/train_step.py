"""The training step: one pure function, compiled once over a device mesh.

Read `train_step` inside `make_train_step` first: views, both networks, the objective,
gradients, optimizer, moving average, the state of the objective, metrics.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import jax
import optax
from jax import Array
from jax.sharding import Mesh

from snclr_jax.devices.mesh import replicated
from snclr_jax.models import Model, Variables, target_subset
from snclr_jax.step.forward import Forward, feature_std
from snclr_jax.step.objective import Now, Objective, Seen, unit
from snclr_jax.step.optim import ema_momentum, learning_rate
from snclr_jax.step.probe import update_probe
from snclr_jax.step.state import OBJECTIVE, TrainState, state_shardings
from snclr_jax.step.views import Batch, random_views

Metrics = dict[str, Array]
Step = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


def make_train_step(
    model: Model,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    config,
    mesh: Mesh,
    *,
    steps_per_epoch: int,
) -> Step:
    """Returns the compiled step: `state, metrics = train_step(state, batch)`.

    The state is donated and keeps its shardings. Augmentation depends on (seed, step,
    index in the global batch) alone, so the step computes the same on any mesh.

    Args:
      model: the networks.
      objective: what is minimized.
      optimizer: from `make_optimizer`.
      config: the run's checked config.
      mesh: devices, axis "data".
      steps_per_epoch: turns the config's epochs into steps.
    """
    rate = learning_rate(config, steps_per_epoch)
    momentum_of = ema_momentum(config, steps_per_epoch)
    forward = Forward(model, config, mesh, objective.unit_rows)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        now = Now(state.step, steps_per_epoch, mesh, config.seed)
        views = random_views(batch, state.step, config=config, mesh=mesh)
        global_views = views[: config.augment.global_views]
        target, target_batch_stats = None, state.target_batch_stats
        if objective.target:
            target, target_batch_stats = forward.target(
                state.target_params, state.target_batch_stats, global_views
            )

        def loss_of(params: Variables) -> tuple[Array, tuple]:
            online, batch_stats = forward.online(
                params, state.batch_stats, views, state.step
            )
            own = jax.lax.stop_gradient(online.projection[: len(global_views)])
            seen = Seen(
                online.projection,
                online.prediction,
                own if target is None else target,
                batch.image_id,
            )
            with jax.named_scope("objective"):
                loss, aux = objective.loss(
                    params.get(OBJECTIVE, {}), state.objective, seen, now
                )
            return loss, (aux, seen, online.feature, batch_stats)

        (loss, (aux, seen, feature, batch_stats)), gradients = jax.value_and_grad(
            loss_of, has_aux=True
        )(state.params)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = cast(Variables, optax.apply_updates(state.params, updates))
        metrics = {
            "loss": loss,
            **objective.metrics(aux, seen, batch.labels, now),
            "feature_std": feature_std(unit(seen.projection[0])),
            "gradient_norm": optax.tree.norm(gradients),
            "parameter_norm": optax.tree.norm(params),
            "learning_rate": rate(state.step),
        }
        target_params = state.target_params
        if objective.target:
            momentum = momentum_of(state.step)
            target_params = optax.incremental_update(
                target_subset(params), state.target_params, 1.0 - momentum
            )
            metrics["ema_momentum"] = momentum
        with jax.named_scope("objective"):
            objective_state = objective.update(state.objective, seen, now)
        probe, probe_metrics = update_probe(state.probe, feature, batch)
        metrics |= probe_metrics
        state = TrainState(
            step=state.step + 1,
            params=params,
            batch_stats=batch_stats,
            target_params=target_params,
            target_batch_stats=target_batch_stats,
            opt_state=opt_state,
            objective=objective_state,
            probe=probe,
        )
        shardings = state_shardings(state, objective, mesh)
        state = jax.lax.with_sharding_constraint(state, shardings)
        return state, jax.lax.with_sharding_constraint(metrics, replicated(mesh))

    return jax.jit(train_step, donate_argnums=0)


def several_steps(train_step: Step) -> Step:
    """Returns a function that takes n steps in one call, with the results of n calls.

    The host starts a call and waits for none of its steps, which matters where a step
    takes milliseconds. The images have to lie on the device.

    Args:
      train_step: from `make_train_step`.

    Returns:
      `state, metrics = steps(state, batch)`, where `batch.image_id` is (n, b): n
      batches in turn. Each metric is (n,). The state is donated.
    """

    def steps(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        def step(state: TrainState, image_id: Array) -> tuple[TrainState, Metrics]:
            return train_step(state, batch.replace(image_id=image_id))

        return jax.lax.scan(step, state, batch.image_id)

    return jax.jit(steps, donate_argnums=0)
