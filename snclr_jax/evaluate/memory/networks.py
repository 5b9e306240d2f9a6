"""The target network of a run and the queue that it filled, out of a checkpoint."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from etils import epath
from jax.sharding import Mesh, NamedSharding

from snclr_jax.devices.mesh import placed_shapes, replicated
from snclr_jax.encoder.stored import Encoder
from snclr_jax.models import Variables, target_subset
from snclr_jax.queue.ring import NeighborQueue, init_queue
from snclr_jax.queue.sharded import QUEUE_SPEC
from snclr_jax.run.checkpoint_reader import read_arrays


class Target(NamedTuple):
    """What images search the queue with; fields are named as in `TrainState`.

    Attributes:
      target_params: of the target's encoder and projector, on every device.
      target_batch_stats: their running BatchNorm statistics.
      queue: rows spread over the devices.
    """

    target_params: Variables
    target_batch_stats: Variables
    queue: NeighborQueue


def open_target(encoder: Encoder, mesh: Mesh) -> Target:
    """Returns the target network and queue beside an encoder, from its checkpoint.

    Args:
      encoder: one whose `source` is a checkpoint's folder.
      mesh: devices; their number divides the queue.

    Raises:
      ValueError: where they do not, or the checkpoint holds something else.
    """
    config, model = encoder.config, encoder.model
    if config.queue.size % mesh.size:
        raise ValueError(
            f"queue.size {config.queue.size} of the run is not a multiple of the "
            f"{mesh.size} devices; look at its quality on a number that divides it"
        )

    def init() -> Target:
        size = config.augment.size
        params, batch_stats = model.init(jax.random.key(0), (size, size, 3))
        queue = init_queue(
            config.queue.size, model.embedding_dim, dtype=jnp.dtype(config.queue.dtype)
        )
        return Target(target_subset(params), target_subset(batch_stats), queue)

    if config.queue.size == 0:
        raise ValueError(
            f"{encoder.source} is of a run without a queue (queue.size=0), and there "
            "is nothing to score of one"
        )
    shapes = jax.eval_shape(init)
    networks = placed_shapes(shapes[:2], replicated(mesh))
    rows = {
        name: placed_shapes(getattr(shapes.queue, name), NamedSharding(mesh, spec))
        for name, spec in vars(QUEUE_SPEC).items()
    }
    expected = dict(zip(Target._fields, (*networks, rows), strict=True))
    found = read_arrays(epath.Path(encoder.source), expected)
    return Target(
        found["target_params"],
        found.get("target_batch_stats", {}),
        NeighborQueue(**found["queue"]),
    )
