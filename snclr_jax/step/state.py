"""Everything that a training step reads and writes, as one value."""

from __future__ import annotations

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from snclr_jax.devices.mesh import replicated
from snclr_jax.models import Model, target_subset
from snclr_jax.queue.ring import NeighborQueue, init_queue
from snclr_jax.queue.sharded import QUEUE_SPEC
from snclr_jax.step.augment import view_settings
from snclr_jax.step.probe import Probe, init_probe


class TrainState(flax.struct.PyTreeNode):
    """The state of a run. Nothing random is stored: keys follow from (seed, step).

    Attributes:
      step: () int32, the number of updates made.
      params: parameters of the online network: encoder, projector, predictor and, for
        linear attention, W1 and W2.
      batch_stats: running BatchNorm statistics of the online network.
      target_params: exponential moving average of the encoder's and projector's params.
      target_batch_stats: the target network's own running BatchNorm statistics.
      opt_state: the optimizer's state.
      queue: earlier target projections, rows spread over the devices.
      probe: a linear classifier of the encoder's features, for metrics; None for none.
    """

    step: Array
    params: Any
    batch_stats: Any
    target_params: Any
    target_batch_stats: Any
    opt_state: Any
    queue: NeighborQueue
    probe: Probe | None = None


def init_train_state(
    model: Model,
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
      optimizer: from `make_optimizer`.
      config: the run's checked config.
      mesh: devices, axis "data".
      probe_classes: classes of the online probe, see `count_classes`; 0 for no probe.

    Raises:
      ValueError: where a size of view does not suit the network.
    """
    for size in {size for size, _ in view_settings(config.augment)}:
        shape = (size, size, 3)
        jax.eval_shape(lambda shape=shape: model.init(jax.random.key(0), shape))

    def init() -> TrainState:
        size = config.augment.size
        params, batch_stats = model.init(jax.random.key(config.seed), (size, size, 3))
        probe = None
        if probe_classes:
            dtype = jnp.promote_types(model.dtype, jnp.float32)
            probe = init_probe(model.feature_dim, probe_classes, dtype)
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            batch_stats=batch_stats,
            target_params=target_subset(params),
            target_batch_stats=target_subset(batch_stats),
            opt_state=optimizer.init(params),
            queue=init_queue(
                config.queue.size, model.embedding_dim, dtype=config.queue.dtype
            ),
            probe=probe,
        )

    shardings = state_shardings(jax.eval_shape(init), mesh)
    return jax.jit(init, out_shardings=shardings)()


def state_shardings(state: Any, mesh: Mesh) -> Any:
    """Returns the shardings of a `TrainState`: queue rows split, the rest whole."""
    shardings = jax.tree.map(lambda _: replicated(mesh), state)
    queue = jax.tree.map(
        lambda spec: NamedSharding(mesh, spec),
        QUEUE_SPEC,
        is_leaf=lambda leaf: isinstance(leaf, P),
    )
    return shardings.replace(queue=queue)
