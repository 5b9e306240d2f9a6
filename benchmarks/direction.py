"""One direction of the step as every benchmark runs it: settings, inputs, program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from snclr_jax.objectives.snclr import SNCLR
from snclr_jax.objectives.snclr_fused import search_and_loss
from snclr_jax.queue.ring import NeighborQueue
from snclr_jax.queue.settings import QueueSettings
from snclr_jax.queue.sharded import QUEUE_SPEC, ROWS


class Shape(NamedTuple):
    """b images, q rows of the queue, k neighbors, d dimensions."""

    b: int
    q: int
    k: int
    d: int


class Inputs(NamedTuple):
    """The arguments of `search_and_loss`."""

    queue: NeighborQueue
    prediction: Any
    anchor: Any
    target: Any
    image_id: Any


def settings_of(shape: Shape, **queue) -> SNCLR:
    """Returns SNCLR with the authors' form, these sizes and settings of the queue."""
    sizes = QueueSettings(size=shape.q, k=shape.k, **queue)
    return SNCLR(form="soft_cross_entropy", queue=sizes)


def inputs_of(keys: Any, prediction: Any, anchor: Any, target: Any) -> Inputs:
    """Returns a full queue and a batch of images that it has never seen."""
    size = keys.shape[0]
    row = jnp.arange(size, dtype=jnp.int32)
    zero = jnp.zeros((), jnp.int32)
    queue = NeighborQueue(
        keys, image_id=row, pushed_at=jnp.zeros_like(row), cursor=zero
    )
    image_id = size + jnp.arange(target.shape[0], dtype=jnp.int32)
    return Inputs(queue, prediction, anchor, target, image_id)


def unit_rows(shape: Shape) -> tuple[np.ndarray, ...]:
    """Returns keys (q, d) and z, y, t (b, d): random, the same every time."""
    rng = np.random.default_rng(0)

    def unit(rows: int) -> np.ndarray:
        values = rng.standard_normal((rows, shape.d), np.float32)
        return values / np.linalg.norm(values, axis=1, keepdims=True)

    return unit(shape.q), unit(shape.b), unit(shape.b), unit(shape.b)


def abstract_inputs(shape: Shape, settings: SNCLR, mesh: Mesh) -> Inputs:
    """Returns the inputs' shapes and shardings: nothing is allocated."""
    keys = jax.ShapeDtypeStruct((shape.q, shape.d), settings.queue.dtype)
    rows = jax.ShapeDtypeStruct((shape.b, shape.d), jnp.float32)
    specs = Inputs(QUEUE_SPEC, *[ROWS] * 4)
    return jax.tree.map(
        lambda leaf, spec: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, spec)
        ),
        jax.eval_shape(inputs_of, keys, rows, rows, rows),
        specs,
    )


def direction(settings: SNCLR, mesh: Mesh) -> Callable[..., Any]:
    """Returns the fused direction: its loss and neighbors, and its gradients.

    The gradients are those of prediction and anchor.
    """

    def forward(prediction, anchor, queue, target, image_id):
        found = search_and_loss(
            queue, prediction, anchor, target, image_id, settings=settings, mesh=mesh
        )
        return found.value, found.neighbors

    def run(inputs: Inputs):
        queue, prediction, anchor, target, image_id = inputs
        return jax.value_and_grad(forward, argnums=(0, 1), has_aux=True)(
            prediction, anchor, queue, target, image_id
        )

    return run


def compile_direction(shape: Shape, settings: SNCLR, mesh: Mesh):
    """Returns the compiled `direction` over `mesh`, a function of one `Inputs`."""
    program = jax.jit(direction(settings, mesh))
    return program.lower(abstract_inputs(shape, settings, mesh)).compile()
