"""Everything that a training step reads and writes, as one value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from snclr_jax.devices.mesh import placed_shapes, replicated
from snclr_jax.models import Model, target_subset
from snclr_jax.step.augment import view_settings
from snclr_jax.step.channels import channels_of
from snclr_jax.step.objective import Objective
from snclr_jax.step.probe import Probe, init_probe

OBJECTIVE = "objective"  # the key of its parameters among those of the network


class TrainState(flax.struct.PyTreeNode):
    """The state of a run. Nothing random is stored: keys follow from (seed, step).

    Attributes:
      step: () int32, the number of updates made.
      params: what the optimizer trains: "encoder", "projector" and, where the objective
        has them, "predictor" and "objective".
      batch_stats: running BatchNorm statistics of the online network.
      target_params: exponential moving average of the encoder's and projector's params;
        {} where the objective has no target network.
      target_batch_stats: running BatchNorm statistics of the target network.
      opt_state: the optimizer's state.
      objective: the state of the objective, such as a queue.
      probe: a linear classifier of the encoder's features, for metrics; None for none.
    """

    step: Array
    params: Any
    batch_stats: Any
    target_params: Any
    target_batch_stats: Any
    opt_state: Any
    objective: Any
    probe: Probe | None = None


def init_train_state(
    model: Model,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    config,
    mesh: Mesh,
    *,
    probe_classes: int = 0,
) -> TrainState:
    """Returns the state at step 0, born with the shardings of the mesh.

    The target network starts as a copy of the online network.

    Args:
      model: the networks.
      objective: what is minimized.
      optimizer: from `make_optimizer`.
      config: the run's checked config.
      mesh: devices, axis "data".
      probe_classes: classes of the online probe, see `count_classes`; 0 for no probe.

    Raises:
      ValueError: where a size of view does not suit the network.
    """
    init = _initial(model, objective, optimizer, config, probe_classes)
    shardings = state_shardings(jax.eval_shape(init), objective, mesh)
    # It runs once. A CPU takes longer to optimize it than to run it as it is.
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    options = {"xla_backend_optimization_level": 0} if on_cpu else None
    return jax.jit(init, out_shardings=shardings, compiler_options=options)()


def train_state_shapes(
    model: Model,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    config,
    mesh: Mesh,
    *,
    probe_classes: int = 0,
) -> TrainState:
    """Returns the shapes, types and shardings of what `init_train_state` returns.

    Its arguments and errors are the same.
    """
    init = _initial(model, objective, optimizer, config, probe_classes)
    state = jax.eval_shape(init)
    return jax.tree.map(placed_shapes, state, state_shardings(state, objective, mesh))


def _initial(
    model: Model,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    config,
    probe_classes: int,
) -> Callable[[], TrainState]:
    """Returns the function that makes the state at step 0."""
    channels = channels_of(config.data)
    for size in {size for size, _ in view_settings(config.augment)}:
        shape = (size, size, channels)
        jax.eval_shape(lambda shape=shape: model.init(jax.random.key(0), shape))
    dtype = jnp.promote_types(model.dtype, jnp.float32)

    def init() -> TrainState:
        size, key = config.augment.size, jax.random.key(config.seed)
        params, batch_stats = model.init(key, (size, size, channels))
        own, objective_state = objective.init(
            jax.random.fold_in(key, 1), model.embedding_dim
        )
        if own:
            params[OBJECTIVE] = jax.tree.map(lambda leaf: leaf.astype(dtype), own)
        target = objective.target
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            batch_stats=batch_stats,
            target_params=target_subset(params) if target else {},
            target_batch_stats=target_subset(batch_stats) if target else {},
            opt_state=optimizer.init(params),
            objective=objective_state,
            probe=init_probe(model.feature_dim, probe_classes, dtype)
            if probe_classes
            else None,
        )

    return init


def state_shardings(state: TrainState, objective: Objective, mesh: Mesh) -> TrainState:
    """Returns the shardings of a state: the objective's by `specs`, others replicated.

    Args:
      state: arrays, or their shapes.
      objective: what is minimized; `state.objective` is its state.
      mesh: the devices.
    """
    shardings = jax.tree.map(lambda _: replicated(mesh), state)
    own = jax.tree.map(
        lambda spec: NamedSharding(mesh, spec),
        objective.specs(state.objective),
        is_leaf=lambda leaf: isinstance(leaf, P),
    )
    return shardings.replace(objective=own)
