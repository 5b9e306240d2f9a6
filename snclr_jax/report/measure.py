"""What the page shows of a run's images: arrays, from its newest checkpoint."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh

from snclr_jax.data import Data, Split
from snclr_jax.data.split import evenly
from snclr_jax.encoder.loaded import LoadedEncoder
from snclr_jax.encoder.stored import Encoder
from snclr_jax.evaluate.frozen.accuracy import Accuracy, majority
from snclr_jax.evaluate.frozen.knn import vote
from snclr_jax.evaluate.frozen.neighbors import nearest
from snclr_jax.evaluate.memory.gallery import (
    Gallery,
    choose_queries,
    find_gallery,
    read_pictures,
)
from snclr_jax.evaluate.memory.networks import Networks, Search
from snclr_jax.evaluate.online import with_labels
from snclr_jax.evaluate.subject import Subject
from snclr_jax.models.vit import WIDTH as VITS
from snclr_jax.report.online import QUERIES
from snclr_jax.visualize.attention import activation, attention
from snclr_jax.visualize.embedding import MOST_CLASSES, Map
from snclr_jax.visualize.gallery import MOST_NEIGHBORS
from snclr_jax.visualize.project import METHODS, can_umap, project

# Large sets take seconds, and small ones are taken whole.
MAP_IMAGES = 2_000
KNN_IMAGES = 10_000


class EmbeddingMap(NamedTuple):
    """Maps of some images of a split, "test" or "training", that has `images`."""

    maps: dict[str, Map]
    labels: np.ndarray | None
    split: str
    images: int


class Confusion(NamedTuple):
    """Labels (m,) of images, and what their neighbors say among `train_images`."""

    true: np.ndarray
    predicted: np.ndarray
    train_images: int
    majority: Accuracy  # of always answering the most frequent of their classes
    left_out: bool  # every training image by the others: there is no test split


class Shown(NamedTuple):
    """A gallery and its pictures."""

    queries: np.ndarray
    neighbors: np.ndarray
    gallery: Gallery


class Looks(NamedTuple):
    """Pictures uint8 (n, v, v, 3), and where the encoder looks, (n, v, v)."""

    pictures: np.ndarray
    maps: np.ndarray
    kind: str  # "attention" or "activation"


def look(encoder: Encoder, train: Split, mesh: Mesh) -> Looks:
    """Returns where an encoder looks in the training images of the gallery."""
    images = train.read(choose_queries(train, QUERIES, seed=encoder.config.seed))
    loaded = LoadedEncoder(encoder, mesh)
    make = attention if encoder.config.model.name in VITS else activation
    return Looks(loaded.views(images), make(loaded, images), make.__name__)


def map_embedding(subject: Subject, data: Data, *, seed: int) -> EmbeddingMap | None:
    """Returns every map that can be made, of at most `MAP_IMAGES` images.

    They are test images where there are enough of them; None where there are of
    neither. Of many classes, some are taken with all of their images: a few points of
    each would show nothing.
    """
    splits = {"test": data.test, "training": data.train}
    enough = ((name, each) for name, each in splits.items() if each and each.size > 2)
    name, split = next(enough, ("", None))
    if split is None:
        return None
    part = split.subset(_map_rows(split))
    part = part.subset(part.thinned(MAP_IMAGES))
    features = subject.features(part)
    methods = [method for method in METHODS if method != "UMAP" or can_umap()]
    return EmbeddingMap(
        {method: project(features, method, seed=seed) for method in methods},
        part.labels if with_labels(part) else None,
        name,
        split.size,
    )


def _map_rows(split: Split) -> np.ndarray:
    rows = np.arange(split.size)
    if split.labelled:
        classes = np.unique(split.labels[split.labels >= 0])
        if len(classes) > MOST_CLASSES:
            kept = classes[evenly(len(classes), MOST_CLASSES)]
            rows = np.flatnonzero(np.isin(split.labels, kept))
    return rows


def classify(subject: Subject, data: Data, config, mesh: Mesh) -> Confusion | None:
    """Returns the classes that kNN finds, as in training; None for fewer than two."""
    train, test = with_labels(data.train), with_labels(data.test)
    if train is None or len(np.unique(train.labels)) < 2:
        return None
    train = train.subset(train.thinned(KNN_IMAGES))
    left_out = test is None
    test = train if left_out else test.subset(test.thinned(KNN_IMAGES))
    k, temperature = config.evaluate.k, config.evaluate.temperature
    similarity, row = nearest(
        subject.features(train),
        subject.features(test),
        k,
        mesh=mesh,
        leave_one_out=left_out,
    )
    voted = vote(similarity, row, train.labels, k=(k,), temperature=(temperature,))
    always = majority(train.labels, test.labels)
    predicted = voted[k, temperature]
    return Confusion(test.labels, predicted, train.size, always, left_out)


def show_neighbors(search: Search, networks: Networks, train: Split) -> Shown:
    """Returns a few training images of many classes with their neighbors."""
    queries = choose_queries(train, QUERIES, seed=search.forward.config.seed)
    gallery = find_gallery(search, networks, train, queries).nearest(MOST_NEIGHBORS)
    return Shown(*read_pictures(train, gallery), gallery)
