"""The neighbor gallery: what training images find in an objective's memory."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array

from snclr_jax.data import Split
from snclr_jax.data.shared import own_batches
from snclr_jax.data.split import evenly
from snclr_jax.devices.mesh import own_rows, place_batch, place_everywhere, replicated
from snclr_jax.encoder.encode import prepare
from snclr_jax.evaluate.memory.networks import Networks, Search
from snclr_jax.step.objective import Found
from snclr_jax.step.state import TrainState


class Gallery(NamedTuple):
    """Images of the training set and their K neighbors, most similar first.

    Attributes:
      query_id: int32 (n,) index of each image in the training set.
      neighbor_id: int32 (n, k) index of each neighbor; -1 where there is none.
      row: int32 (n, k) of the memory.
      similarity: float32 (n, k) cosine.
      weight: float32 (n, k) that the objective gives each.
      age: int32 (n, k) steps since the row was pushed.
      valid: bool (n, k), false where fewer than K rows were eligible.
      query_label: int (n,), below 0 where unknown; None without labels.
      neighbor_label: int (n, k), the same.
      query_name: str (n,), see `Split.names`.
      neighbor_name: str (n, k); "" where there is none.
    """

    query_id: np.ndarray
    neighbor_id: np.ndarray
    row: np.ndarray
    similarity: np.ndarray
    weight: np.ndarray
    age: np.ndarray
    valid: np.ndarray
    query_label: np.ndarray | None
    neighbor_label: np.ndarray | None
    query_name: np.ndarray
    neighbor_name: np.ndarray

    def nearest(self, count: int) -> Gallery:
        """Returns the same images with their `count` most similar neighbors alone."""
        return Gallery._make(
            field[:, :count] if field is not None and field.ndim == 2 else field
            for field in self
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
    classes, class_index = np.unique(labels[shuffled], return_inverse=True)
    if len(classes) > count:
        kept = evenly(len(classes), count)
        shuffled, class_index = (
            array[np.isin(class_index, kept)] for array in (shuffled, class_index)
        )
    # The first image of every class, then the second, until there are enough.
    by_class = np.argsort(class_index, kind="stable")
    starts = np.searchsorted(class_index[by_class], class_index[by_class])
    turn = np.arange(len(class_index)) - starts
    chosen = shuffled[by_class][np.argsort(turn, kind="stable")[:count]]
    return chosen[np.argsort(labels[chosen], kind="stable")].astype(np.int32)


def find_gallery(
    search: Search,
    state: TrainState | Networks,
    split: Split,
    image_id: np.ndarray,
) -> Gallery:
    """Finds the neighbors of training images, with what a reader knows them by.

    Arguments and errors are those of `search_memory`.

    Returns:
      Everything in the order of `image_id`.
    """
    neighbors: Any = search_memory(search, state, split, image_id)  # of numpy arrays
    image_id = np.asarray(image_id, np.int32)
    query_label = neighbor_label = None
    labels, known = split.labels, neighbors.image_id >= 0
    if labels is not None:
        query_label = labels[image_id]
        neighbor_label = np.where(known, labels[neighbors.image_id], -1)
    neighbor_name = np.full(known.shape, "", object)
    neighbor_name[known] = split.names(neighbors.image_id[known])
    return Gallery(
        query_id=image_id,
        neighbor_id=neighbors.image_id,
        row=neighbors.row,
        similarity=neighbors.similarity,
        weight=neighbors.weight,
        age=np.where(neighbors.valid, int(state.step) - neighbors.pushed_at, 0),
        valid=neighbors.valid,
        query_label=query_label,
        neighbor_label=neighbor_label,
        query_name=np.array(split.names(image_id), object),
        neighbor_name=neighbor_name,
    )


def search_memory(
    search: Search,
    state: TrainState | Networks,
    split: Split,
    image_id: np.ndarray,
) -> Found:
    """Finds the neighbors of training images as the next step would (section 3.1).

    Both networks see the whole center view of an image, in training mode: BatchNorm
    uses the statistics of a batch of `config.batch_size`. Queries stand at random
    positions in such batches, which other training images fill up, so that no batch is
    of one class and every bank is searched. Nothing of the state changes.

    Args:
      search: of the run.
      state: of the run, or `open_networks` of a checkpoint.
      split: the training images of that run.
      image_id: int (n,) images to look at, indices in the split. Every process passes
        the same.

    Returns:
      Arrays of numpy (n, k), in the order of `image_id`.

    Raises:
      ValueError: where the objective finds no neighbors, or the devices do not divide
        the micro-batches.
    """
    config, mesh = search.forward.config, search.forward.mesh
    batch_size = config.batch_size
    if not search.objective.searches:
        raise ValueError("the run's objective finds no neighbors for its images")
    own = own_rows(batch_size, mesh, micro_batches=config.accumulate)
    image_id = np.asarray(image_id, np.int32)
    images, position = _fill_batches(image_id, batch_size, split.size, config.seed)
    networks = Networks(*(getattr(state, name) for name in Networks._fields))
    networks = networks._replace(step=np.int32(networks.step))
    ids = images.reshape(-1, batch_size)
    rows, batches = ids[:, own], []
    for batch, pixels in zip(ids, own_batches(split, rows, rows.shape[1]), strict=True):
        placed = place_batch(pixels, mesh), place_everywhere(batch, mesh)
        batches.append(jax.device_get(_search(networks, *placed, search=search)))
    return jax.tree.map(lambda *parts: np.concatenate(parts)[position], *batches)


def _fill_batches(
    image_id: np.ndarray, batch_size: int, count: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns whole batches of images in one row, and the positions of the queries."""
    random = np.random.RandomState(seed)
    total = -(-len(image_id) // batch_size) * batch_size
    position = random.permutation(total)[: len(image_id)]
    images = random.randint(count, size=total).astype(np.int32)
    images[position] = image_id
    return images, position


def read_pictures(split: Split, gallery: Gallery) -> tuple[np.ndarray, np.ndarray]:
    """Reads the images of a gallery back by their index in the training set.

    Returns:
      uint8 (n, s, s, c) of the queries and (n, k, s, s, c) of the neighbors; black
      where there is none.
    """
    known = gallery.neighbor_id >= 0
    wanted = np.concatenate([gallery.query_id, gallery.neighbor_id[known]])
    ids, inverse = np.unique(wanted, return_inverse=True)
    pictures = split.read(ids)[inverse]
    queries, others = np.split(pictures, [len(gallery.query_id)])
    neighbors = np.zeros((*known.shape, *pictures.shape[1:]), np.uint8)
    neighbors[known] = others
    return queries, neighbors


@partial(jax.jit, static_argnames="search")
def _search(
    networks: Networks, images: Array, image_id: Array, *, search: Search
) -> Found | None:
    view = prepare(images, search.forward.config)
    neighbors = search.neighbors(networks, view, image_id)
    return jax.lax.with_sharding_constraint(neighbors, replicated(search.forward.mesh))
