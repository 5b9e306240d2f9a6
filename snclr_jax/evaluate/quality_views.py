"""Two random training views of every image, as the networks of a run see them."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from snclr_jax.data import Split
from snclr_jax.data.shared import own_batches
from snclr_jax.devices.mesh import own_rows, place_batch, replicated
from snclr_jax.encoder.stored import Encoder
from snclr_jax.evaluate.memory.networks import Networks, Search
from snclr_jax.run.metrics import progress_bar
from snclr_jax.step.objective import Found
from snclr_jax.step.views import Batch, random_views


class RandomViews(NamedTuple):
    """What networks make of two random views of n images.

    Attributes:
      first: float32 (n, f) features of the first view.
      second: float32 (n, f) features of the second view.
      neighbors: what the first view finds in the memory of the run's objective, or
        None.
    """

    first: np.ndarray
    second: np.ndarray
    neighbors: Found | None


def encode_random_views(
    encoder: Encoder,
    networks: Networks | None,
    split: Split,
    image_id: np.ndarray,
    *,
    config,
    mesh: Mesh,
) -> RandomViews:
    """Draws two random views of each image, as in training, and encodes them.

    Features use running BatchNorm statistics, like those of whole images. Images search
    the memory as in training, by the statistics of a batch: they go through in a random
    order, so that no batch is of one class, `config.batch_size` at a time, and the
    first of them fill up the last batch. The order and the views follow from
    `config.seed` alone.

    Sets too large for the device are cropped for training out of the original image;
    here every view is a crop of the decoded square.

    Args:
      encoder: whose features are asked for.
      networks: of the same run; None leaves the search out.
      split: the images.
      image_id: int32 (n,) index of each in the training set of the run.
      config: of the run; reads `batch_size`, `accumulate`, `seed`, `augment` and the
        channel statistics.
      mesh: the devices.

    Returns:
      Everything in the order of the images.

    Raises:
      ValueError: where the devices do not divide the micro-batches of a batch.
    """
    batch_size = config.batch_size
    own = own_rows(batch_size, mesh, micro_batches=config.accumulate)
    model = encoder.model

    def encode(params, batch_stats, networks, images, image_id: Array, number: Array):
        batch = Batch(image_id=jnp.arange(batch_size), resident=images)
        views = random_views(batch, number, config=config, mesh=mesh)
        first, second = (
            model.encode(params, batch_stats, view).astype(jnp.float32)
            for view in views[:2]
        )
        if networks is None:
            return first, second, None
        search = Search.of(config, mesh)
        return first, second, search.neighbors(networks, views[0], image_id)

    encode = jax.jit(encode, out_shardings=replicated(mesh))
    count = split.size
    order = np.random.RandomState(config.seed).permutation(count)
    order_of_all = np.resize(order, -(-count // batch_size) * batch_size)
    rows = order_of_all.reshape(-1, batch_size)[:, own]
    arrays = encoder.params, encoder.batch_stats, networks
    batches = []
    for number, images in enumerate(
        progress_bar(
            own_batches(split, rows, rows.shape[1]),
            total=len(rows),
            desc="random views",
        )
    ):
        pixels, image_ids = (
            place_batch(array, mesh) for array in (images, image_id[rows[number]])
        )
        batches.append(
            jax.device_get(encode(*arrays, pixels, image_ids, np.int32(number)))
        )
    position = np.argsort(order)
    views = jax.tree.map(lambda *parts: np.concatenate(parts)[position], *batches)
    return RandomViews(*views)
