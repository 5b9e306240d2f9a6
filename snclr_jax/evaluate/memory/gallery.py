"""The neighbor gallery: what training images find in the queue, as arrays."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath
from jax import Array
from jax.sharding import Mesh
from ml_collections import FrozenConfigDict

from snclr_jax.data import Split
from snclr_jax.devices.mesh import (
    place_batch,
    place_everywhere,
    placed_shapes,
    replicated,
)
from snclr_jax.encoder.stored import Encoder, prepare
from snclr_jax.evaluate.memory.networks import open_target
from snclr_jax.models import Model, Variables
from snclr_jax.objectives.snclr_fused import search_and_loss
from snclr_jax.queue.ring import UNKNOWN_IMAGE, NeighborQueue, Neighbors
from snclr_jax.run.checkpoint_reader import read_arrays
from snclr_jax.step.state import TrainState
from snclr_jax.step.train_step import attention_query, project_and_predict, targets


class Networks(NamedTuple):
    """Both networks of a run and its queue; fields are named as in `TrainState`."""

    step: int
    params: Variables
    batch_stats: Variables
    target_params: Variables
    target_batch_stats: Variables
    queue: NeighborQueue


class Gallery(NamedTuple):
    """Images of the training set and their K neighbors, most similar first.

    Attributes:
      query_id: int32 (n,) place of each image in the training set.
      neighbor_id: int32 (n, k) place of each neighbor; -1 where there is none.
      row: int32 (n, k) of the queue.
      similarity: float32 (n, k) cosine t . c of target projections.
      positiveness: float32 (n, k) w, before the neighbor weight.
      age: int32 (n, k) steps since the row was pushed.
      valid: bool (n, k), false where fewer than K rows were eligible.
      query_label: int (n,), below 0 where unknown; None without labels.
      neighbor_label: int (n, k), the same.
    """

    query_id: np.ndarray
    neighbor_id: np.ndarray
    row: np.ndarray
    similarity: np.ndarray
    positiveness: np.ndarray
    age: np.ndarray
    valid: np.ndarray
    query_label: np.ndarray | None
    neighbor_label: np.ndarray | None

    def nearest(self, count: int) -> Gallery:
        """Returns the same images with their `count` most similar neighbors alone."""
        return Gallery._make(
            each[:, :count] if each is not None and each.ndim == 2 else each
            for each in self
        )


def open_networks(encoder: Encoder, mesh: Mesh) -> Networks:
    """Returns both networks and the queue beside an encoder, from its checkpoint.

    Args:
      encoder: one whose `source` is a checkpoint's folder.
      mesh: devices; their number divides the queue.

    Raises:
      ValueError: as `open_target`.
    """
    size = encoder.config.augment.size
    shapes = jax.eval_shape(
        lambda: encoder.model.init(jax.random.key(0), (size, size, 3))
    )
    parts = dict(zip(("params", "batch_stats"), shapes, strict=True))
    expected = placed_shapes(parts, replicated(mesh))
    online = read_arrays(epath.Path(encoder.source), expected)
    return Networks(
        encoder.step,
        online["params"],
        online.get("batch_stats", {}),
        *open_target(encoder, mesh),
    )


def choose_queries(split: Split, count: int, *, seed: int) -> np.ndarray:
    """Returns `count` training images of as many classes as there are, int32 (n,).

    Of more classes, those at equal distances in their order; of fewer, as many images
    of each. Without labels, images at equal distances. In the order of the classes.

    Args:
      split: the training images.
      count: number of images; all of them where there are fewer.
      seed: of the choice within a class.
    """
    labels = split.labels
    known = np.arange(split.size) if labels is None else np.flatnonzero(labels >= 0)
    if labels is None or not len(known):
        return split.thinned(count)
    shuffled = np.random.RandomState(seed).permutation(known)
    classes, place = np.unique(labels[shuffled], return_inverse=True)
    if len(classes) > count:
        kept = np.linspace(0, len(classes) - 1, count).round()
        shuffled, place = (each[np.isin(place, kept)] for each in (shuffled, place))
    # The first image of every class, then the second, until there are enough.
    by_class = np.argsort(place, kind="stable")
    starts = np.searchsorted(place[by_class], place[by_class])
    turn = np.arange(len(place)) - starts
    chosen = shuffled[by_class][np.argsort(turn, kind="stable")[:count]]
    return chosen[np.argsort(labels[chosen], kind="stable")].astype(np.int32)


def find_gallery(
    model: Model,
    state: TrainState | Networks,
    split: Split,
    image_id: np.ndarray,
    *,
    config: Any,
    mesh: Mesh,
) -> Gallery:
    """Finds the neighbors of training images as the next step would (section 3.1).

    Both networks see the whole center view of an image, in training mode: BatchNorm
    uses the statistics of a batch of `config.batch_size`. Queries stand at random
    places in such batches, which other training images fill up, so that no batch is of
    one class and every bank is searched. Nothing of the state changes.

    Args:
      model: the networks.
      state: of a run, or `open_networks` of a checkpoint.
      split: the training images of that run.
      image_id: int (n,) images to look at, places in the split.
      config: of the run.
      mesh: the devices. Every process calls this with the same arguments.

    Returns:
      Everything in the order of `image_id`.

    Raises:
      ValueError: where K is 0, or the devices do not divide the parts of a batch.
    """
    batch_size = config.batch_size
    if not config.queue.k:
        raise ValueError("queue.k of the run is 0, so no image has neighbors")
    if batch_size % (config.accumulate * mesh.size):
        raise ValueError(
            f"the run's batch_size {batch_size}, in {config.accumulate} parts, is not "
            f"a multiple of {mesh.size} devices; use a number of devices that divides "
            "it"
        )
    image_id = np.asarray(image_id, np.int32)
    images, place = _fill_batches(image_id, batch_size, split.size, config.seed)
    share = batch_size // jax.process_count()
    first = jax.process_index() * share
    frozen, found = FrozenConfigDict(config), []
    networks = Networks(*(getattr(state, name) for name in Networks._fields))
    networks = networks._replace(step=np.int32(networks.step))
    for batch in images.reshape(-1, batch_size):
        pixels = place_batch(split.read(batch[first : first + share]), mesh)
        ids = place_everywhere(batch, mesh)
        found.append(
            jax.device_get(
                _search(networks, pixels, ids, model=model, config=frozen, mesh=mesh)
            )
        )
    neighbors, weights = jax.tree.map(
        lambda *parts: np.concatenate(parts)[place], *found
    )
    return _gallery(image_id, neighbors, weights, int(state.step), split.labels)


def _fill_batches(
    image_id: np.ndarray, batch_size: int, count: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns whole batches of images in one row, and the places of the queries."""
    random = np.random.RandomState(seed)
    total = -(-len(image_id) // batch_size) * batch_size
    place = random.permutation(total)[: len(image_id)]
    images = random.randint(count, size=total).astype(np.int32)
    images[place] = image_id
    return images, place


def read_pictures(split: Split, gallery: Gallery) -> tuple[np.ndarray, np.ndarray]:
    """Reads the images of a gallery back by their place in the training set.

    Returns:
      uint8 (n, s, s, 3) of the queries and (n, k, s, s, 3) of the neighbors; black
      where there is none.
    """
    known = gallery.neighbor_id >= 0
    wanted = np.concatenate([gallery.query_id, gallery.neighbor_id[known]])
    ids, place = np.unique(wanted, return_inverse=True)
    pictures = split.read(ids)[place]
    queries, others = np.split(pictures, [len(gallery.query_id)])
    neighbors = np.zeros((*known.shape, *pictures.shape[1:]), np.uint8)
    neighbors[known] = others
    return queries, neighbors


@partial(jax.jit, static_argnames=("model", "config", "mesh"))
def _search(
    networks: Networks,
    images: Array,
    image_id: Array,
    *,
    model: Model,
    config: FrozenConfigDict,
    mesh: Mesh,
) -> tuple[Neighbors, Array]:
    """Returns the neighbors of one batch, without keys, and their positiveness."""
    view = prepare(images, config)
    place: dict[str, Any] = dict(config=config, mesh=mesh)
    (target,), _ = targets(model, networks, (view,), **place)
    ((_, y, z),), _ = project_and_predict(
        model,
        networks.params,
        networks.batch_stats,
        (view,),
        0,
        networks.step,
        **place,
    )
    loss, neighbors = search_and_loss(
        networks.queue,
        prediction=z,
        anchor=attention_query(model, networks.params, y, config.attention),
        target=target,
        image_id=image_id,
        **place,
    )
    found = neighbors, loss.weights
    return jax.lax.with_sharding_constraint(found, replicated(mesh))


def _gallery(
    image_id: np.ndarray,
    neighbors: Any,  # `Neighbors`, of numpy arrays
    weights: np.ndarray,
    step: int,
    labels: np.ndarray | None,
) -> Gallery:
    query_label = neighbor_label = None
    if labels is not None:
        query_label = labels[image_id]
        known = neighbors.image_id != UNKNOWN_IMAGE
        neighbor_label = np.where(known, labels[neighbors.image_id], -1)
    return Gallery(
        query_id=image_id,
        neighbor_id=neighbors.image_id,
        row=neighbors.row,
        similarity=neighbors.similarity,
        positiveness=weights,
        age=np.where(neighbors.valid, step - neighbors.pushed_at, 0),
        valid=neighbors.valid,
        query_label=query_label,
        neighbor_label=neighbor_label,
    )
