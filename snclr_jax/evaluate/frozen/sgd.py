"""Many linear classifiers, trained side by side by SGD."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from snclr_jax.devices.mesh import AXIS, replicated
from snclr_jax.evaluate.frozen.classifier import (
    Scaling,
    TrainSet,
    Weights,
    objective,
    place_rows,
    zero_weights,
)
from snclr_jax.run.metrics import progress_bar

_MOMENTUM = 0.9
_CHUNK_BYTES = 2**28  # of features that go to the devices together


def train_heads(
    train: TrainSet,
    layers: Iterable[str],
    grid: Sequence[tuple[float, float]],
    rows: np.ndarray,
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    mesh: Mesh,
) -> dict[str, Weights]:
    """Trains g classifiers on every layer; each batch is read once, for all of them.

        m <- 0.9 m + gradient of the `objective`, with the decay as its l2
        w <- w - rate m,    rate falling to 0 on half a cosine over all steps

    All start from zeros, see the same batches and do not influence each other. An epoch
    is a new order of the rows, without those that do not fill a batch.

    The features stay in host memory. The rows of as many steps as fit into 256 MiB go
    to the devices together and are scanned there, while the next ones are gathered: one
    dispatch per step would take longer than a step.

    Args:
      train: the features.
      layers: those of them to train on.
      grid: g pairs of a rate, not scaled with the batch size, and a weight decay.
      rows: int "m", those to train on.
      epochs: >= 1.
      batch_size: >= 1; all m rows where it is larger.
      seed: of the order of the rows.
      mesh: the devices, which share each batch's rows and keep all classifiers.

    Returns:
      layer -> kernel "g c f" and bias "g c".
    """
    features = {layer: train.features[layer] for layer in layers}
    learning_rate, weight_decay = np.array(grid, np.float32).T
    batch_size = min(batch_size, len(rows))
    steps = epochs * (len(rows) // batch_size)
    width = -(-batch_size // mesh.size) * mesh.size
    row_bytes = 4 * sum(array.shape[1] for array in features.values())
    chunk = min(steps, max(1, _CHUNK_BYTES // (row_bytes * width)))
    chunk = -(-steps // -(-steps // chunk))  # about equal ones: the last is padded
    order = _batches(rows, batch_size, seed)
    over_rows = NamedSharding(mesh, P(None, AXIS))
    heads, momenta = (
        {
            layer: zero_weights((len(grid), train.num_classes, array.shape[1]), mesh)
            for layer, array in features.items()
        }
        for _ in range(2)
    )
    state = heads, momenta
    with progress_bar(total=steps, desc="linear heads", unit="step") as bar:
        for first in range(0, steps, chunk):
            taken = np.stack(list(islice(order, min(chunk, steps - first))))
            missing = chunk - len(taken), width - batch_size
            padded = np.pad(taken, [(0, count) for count in missing], mode="edge")
            placed = {
                layer: place_rows(array, padded, over_rows)
                for layer, array in features.items()
            }
            # No more than one chunk waits on the devices.
            jax.block_until_ready(state)
            state = _train_steps(
                state,
                placed,
                place_rows(train.labels, padded, over_rows),
                {layer: train.scaling[layer] for layer in features},
                learning_rate,
                weight_decay,
                np.arange(first, first + chunk) / steps,
                batch_size,
                mesh=mesh,
            )
            bar.update(len(taken))
    return state[0]


def _batches(rows: np.ndarray, batch_size: int, seed: int) -> Iterator[np.ndarray]:
    """Yields batches of rows, epoch after epoch."""
    random = np.random.RandomState(seed)
    while True:
        order = random.permutation(rows)
        for first in range(0, len(rows) - batch_size + 1, batch_size):
            yield order[first : first + batch_size]


@partial(jax.jit, static_argnames="mesh", donate_argnames="state")
def _train_steps(
    state: tuple[dict[str, Weights], dict[str, Weights]],
    features: dict[str, Array],
    labels: Array,
    scaling: dict[str, Scaling],
    learning_rate: Array,
    weight_decay: Array,
    progress: Array,
    batch_size: int,
    *,
    mesh: Mesh,
) -> tuple[dict[str, Weights], dict[str, Weights]]:
    """Makes the steps of one chunk: features "s b f", labels "s b", progress "s".

    `progress` is the share of all steps made before each. At 1, in the padding after
    the last step, the rate is 0. Rows from `batch_size` on are padding as well.
    """
    counted = jnp.arange(labels.shape[1]) < batch_size

    def update(weights, momentum, features, labels, rate, decay):
        gradient = jax.grad(objective)(weights, features, labels, counted, decay)
        momentum = jax.tree.map(lambda m, g: _MOMENTUM * m + g, momentum, gradient)
        return jax.tree.map(lambda w, m: w - rate * m, weights, momentum), momentum

    bank = jax.vmap(update, in_axes=(0, 0, None, None, 0, 0))

    def step(state, batch):
        features, labels, progress = batch
        rate = learning_rate * 0.5 * (1 + jnp.cos(jnp.pi * jnp.minimum(progress, 1)))
        heads, momenta = {}, {}
        for layer, array in features.items():
            heads[layer], momenta[layer] = bank(
                state[0][layer],
                state[1][layer],
                scaling[layer](array),
                labels,
                rate,
                weight_decay,
            )
        return jax.lax.with_sharding_constraint(
            (heads, momenta), replicated(mesh)
        ), None

    state, _ = jax.lax.scan(step, state, (features, labels, progress))
    return state
