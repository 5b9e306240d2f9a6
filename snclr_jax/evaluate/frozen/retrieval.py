"""Image retrieval: does a ranking by similarity put images of one class first?"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jax.typing import ArrayLike

from snclr_jax.devices.mesh import AXIS, over_batch, place_everywhere, replicated
from snclr_jax.evaluate.frozen.checks import check_both_splits, check_positive
from snclr_jax.evaluate.frozen.neighbors import place_unit_rows
from snclr_jax.run.metrics import progress_bar

# Similarities that a device sorts at a time: some 0.4 GB with all that is made of them.
SORTED = 2**24
# Label of rows that only fill up the gallery.
NO_IMAGE = -1


class Retrieval(NamedTuple):
    """How well queries find the images of their class."""

    mean_average_precision: float  # percent, over the ranking of the whole gallery
    recall: dict[int, float]  # percent of queries with a hit among the first k, by k
    queries: int  # that these are means over
    left_out: int  # queries without an image of their class in the gallery


def score_retrieval(
    train_features: ArrayLike,
    train_labels: ArrayLike,
    test_features: ArrayLike | None = None,
    test_labels: ArrayLike | None = None,
    *,
    recall_at: Sequence[int],
    mesh: Mesh,
) -> Retrieval:
    """Ranks the gallery of train rows by cosine to each query, a test row.

        AP = 1/|R| sum_{i in R} |{j in R: rank(j) <= rank(i)}| / rank(i)

    with R the train rows of the query's class and ranks from 1; mAP is the mean of AP.
    Of equally similar rows the lowest ranks first. scikit-learn's
    `average_precision_score` is the same where no two similarities are equal; it gives
    equal ones one rank together.

    The gallery is split over the devices, n f / devices numbers on each.

    Args:
      train_features: "n f", of any length: rows are normalized.
      train_labels: int "n", >= 0.
      test_features: "m f", of any length; None ranks for each train row the others.
      test_labels: int "m", >= 0; None where test_features is.
      recall_at: values of k, each >= 1; more than n count the whole gallery.
      mesh: the devices.

    Returns:
      The means over all queries with an image of their class in the gallery.

    Raises:
      ValueError: for an empty split, features that are not finite or not "n f", labels
        that are negative, not integers or not one per row, a k that is not positive, or
        no query with an image of its class in the gallery.

    Manning et al. 2008, "Introduction to Information Retrieval", section 8.4, for mAP;
    Song et al. 2016, "Deep Metric Learning via Lifted Structured Feature Embedding",
    section 6, for recall@k by class.

    Example:
      >>> from snclr_jax.devices.mesh import make_mesh
      >>> gallery = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
      >>> query = np.array([[1.0, 0.1]])
      >>> settings = dict(recall_at=(1, 2), mesh=make_mesh())
      >>> result = score_retrieval(gallery, [0, 1, 0], query, [1], **settings)
      >>> result.mean_average_precision, result.recall
      (50.0, {1: 0.0, 2: 100.0})
    """
    check_positive("recall_at", recall_at)
    train, train_labels, test, test_labels = check_both_splits(
        train_features, train_labels, test_features, test_labels
    )
    rows, tests = len(train), len(test)
    padded = -(-rows // mesh.size) * mesh.size
    gallery = place_unit_rows(train, padded, over_batch(mesh))
    of_gallery = np.pad(train_labels, (0, padded - rows), constant_values=NO_IMAGE)
    of_gallery = place_everywhere(of_gallery, mesh)
    itself = np.arange(tests) if test_features is None else np.full(tests, -1)

    at_once = min(max(1, SORTED // padded), -(-tests // mesh.size)) * mesh.size
    average, recalled, relevant = [], [], []
    for start in progress_bar(
        range(0, tests, at_once),
        desc="retrieval",
    ):
        part = slice(start, start + at_once)
        missing = (0, at_once - len(test[part]))
        scores = _score(
            gallery,
            of_gallery,
            place_unit_rows(test[part], at_once, replicated(mesh)),
            *(
                place_everywhere(np.pad(array[part], missing).astype(np.int32), mesh)
                for array in (test_labels, itself)
            ),
            recall_at=tuple(min(k, padded) for k in recall_at),
            mesh=mesh,
        )
        for all_parts, values in zip(
            (average, recalled, relevant), scores, strict=True
        ):
            all_parts.append(np.asarray(values)[: tests - start])
    average, recalled, relevant = map(np.concatenate, (average, recalled, relevant))
    answered = relevant > 0
    if not answered.any():
        raise ValueError(
            f"none of {tests} queries has an image of its class in the gallery of "
            f"{rows}; use splits that share classes"
        )
    recall = 100.0 * recalled[answered].mean(axis=0, dtype=np.float64)
    return Retrieval(
        mean_average_precision=100.0 * float(average[answered].mean(dtype=np.float64)),
        recall=dict(zip(recall_at, recall.tolist(), strict=True)),
        queries=int(answered.sum()),
        left_out=int((~answered).sum()),
    )


@partial(jax.jit, static_argnames=("recall_at", "mesh"))
def _score(
    gallery: Array,
    gallery_labels: Array,
    queries: Array,
    query_labels: Array,
    itself: Array,
    *,
    recall_at: tuple[int, ...],
    mesh: Mesh,
) -> tuple[Array, Array, Array]:
    """Returns AP "q", whether there is a hit among the first k "q k", and |R| "q"."""
    similarity = jnp.matmul(queries, gallery.T, precision=jax.lax.Precision.HIGHEST)
    # Each device compares all queries with its own rows, then ranks its own queries.
    for layout in (P(None, AXIS), P(AXIS)):
        sharding = NamedSharding(mesh, layout)
        similarity = jax.lax.with_sharding_constraint(similarity, sharding)
    row = jnp.arange(gallery.shape[0])
    absent = (gallery_labels == NO_IMAGE) | (row == itself[:, None])
    relevant = (gallery_labels == query_labels[:, None]) & ~absent
    _, relevant = jax.lax.sort(
        (jnp.where(absent, jnp.inf, -similarity), relevant),
        dimension=1,
        is_stable=True,
        num_keys=1,
    )
    hits = jnp.cumsum(relevant, axis=1, dtype=jnp.int32)
    count = hits[:, -1]
    precision = jnp.where(relevant, hits / (row + 1), 0.0)
    average = jnp.sum(precision, axis=1) / jnp.maximum(count, 1)
    recalled = jnp.stack([hits[:, k - 1] > 0 for k in recall_at], axis=1)
    return jax.lax.with_sharding_constraint(
        (average, recalled, count), replicated(mesh)
    )
