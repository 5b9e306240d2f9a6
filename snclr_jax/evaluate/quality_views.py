"""Two random training views of every image, as the networks of a run see them."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from snclr_jax.data import Split
from snclr_jax.data.pipeline import eval_batches
from snclr_jax.devices.mesh import place_batch, replicated
from snclr_jax.encoder.stored import Encoder
from snclr_jax.evaluate.memory.networks import Target
from snclr_jax.run.metrics import progress_bar
from snclr_jax.step.train_step import targets
from snclr_jax.step.views import Batch, random_views


class RandomViews(NamedTuple):
    """What networks make of two random views of n images.

    Attributes:
      first: float32 (n, f) features of the first view.
      second: float32 (n, f) features of the second view.
      target: float32 (n, d) unit target projection t of the first view, or None.
    """

    first: np.ndarray
    second: np.ndarray
    target: np.ndarray | Any  # not None where a target network was given


def encode_random_views(
    encoder: Encoder, target: Target | None, split: Split, *, config, mesh: Mesh
) -> RandomViews:
    """Draws two random views of each image, as in training, and encodes them.

    Features use running BatchNorm statistics, like those of whole images. The target
    network uses the statistics of a batch, as it does in training: images go through in
    a random order, so that no batch is of one class, `config.batch_size` at a time, and
    the first of them fill up the last batch. The order and the views follow from
    `config.seed` alone.

    Sets too large for the device are cropped for training out of the original image;
    here every view is a crop of the decoded square.

    Args:
      encoder: whose features are asked for.
      target: the target network of the same run; None leaves its projections out.
      split: the images.
      config: of the run; reads `batch_size`, `accumulate`, `seed`, `augment` and the
        channel statistics.
      mesh: the devices.

    Returns:
      Everything in the order of the images.

    Raises:
      ValueError: where the devices do not divide the parts of a batch.
    """
    batch_size, parts = config.batch_size, config.accumulate
    if batch_size % (parts * mesh.size):
        raise ValueError(
            f"the run's batch_size {batch_size}, in {parts} parts, is not a multiple "
            f"of {mesh.size} devices; evaluate on a number of devices that divides it"
        )
    model = encoder.model

    def encode(params, batch_stats, target, images: Array, number: Array):
        batch = Batch(image_id=jnp.arange(batch_size), resident=images)
        views = random_views(batch, number, config=config, mesh=mesh)
        first, second = (
            model.encode(params, batch_stats, view).astype(jnp.float32)
            for view in views[:2]
        )
        if target is None:
            return first, second, None
        (target,), _ = targets(model, target, views[:1], config=config, mesh=mesh)
        return first, second, target

    encode = jax.jit(encode, out_shardings=replicated(mesh))
    count = split.size
    order = np.random.RandomState(config.seed).permutation(count)
    filled_up = split.subset(np.resize(order, -(-count // batch_size) * batch_size))
    share = batch_size // jax.process_count()
    first = jax.process_index() * share
    networks = encoder.params, encoder.batch_stats, target
    found = []
    for number, images in enumerate(
        progress_bar(
            eval_batches(filled_up, batch_size),
            total=filled_up.size // batch_size,
            desc="random views",
        )
    ):
        placed = place_batch(images[first : first + share], mesh)
        found.append(jax.device_get(encode(*networks, placed, np.int32(number))))
    place = np.argsort(order)
    views = jax.tree.map(lambda *parts: np.concatenate(parts)[place], *found)
    return RandomViews(*views)
