"""The nearest of all train features to each test feature, on all devices."""

from __future__ import annotations

from functools import partial
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jax.typing import ArrayLike

from snclr_jax.devices.mesh import AXIS, over_batch, place_everywhere, replicated
from snclr_jax.evaluate.frozen.checks import check_features, check_positive
from snclr_jax.queue.search import top_k
from snclr_jax.run.metrics import progress_bar

# Of the train features that lie on each device at a time.
RESIDENT_BYTES = 2**32


def nearest(
    train_features: ArrayLike,
    test_features: ArrayLike,
    k: int,
    *,
    mesh: Mesh,
    leave_one_out: bool = False,
    train_block: int = 2**16,
    test_block: int = 2**10,
) -> tuple[np.ndarray, np.ndarray]:
    """Finds for every test row the k train rows of the largest cosine, exactly.

    Train rows are split over the devices and stay there while blocks of test rows pass
    all of them; each device offers its k nearest, and the best of those win. So each
    train row is copied to a device once, and each test row once per
    devices x RESIDENT_BYTES of train rows. Every process passes the same arrays.

    Args:
      train_features: "n f", of any length: rows are normalized.
      test_features: "m f", of any length.
      k: number of neighbors, >= 1; where there are fewer, all of them.
      mesh: the devices.
      leave_one_out: test row i is train row i, and no neighbor of itself.
      train_block: train rows that a device compares at a time, >= 1.
      test_block: test rows that are compared at a time, >= 1. A device holds
        test_block x train_block similarities.

    Returns:
      Cosine similarity float32 "m k", descending, and train row int32 "m k"; of equally
      similar rows the lowest comes first.

    Raises:
      ValueError: for an empty split, features that are not finite or not "n f", a k or
        block that is not positive, or leave_one_out with other than the train rows.

    Example:
      >>> from snclr_jax.devices.mesh import make_mesh
      >>> train = np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0]])
      >>> _, row = nearest(train, train, 1, mesh=make_mesh(), leave_one_out=True)
      >>> row.ravel().tolist()
      [2, 2, 0]
    """
    train = check_features("train", train_features)
    test = check_features("test", test_features, train.shape[1])
    check_positive("k", [k])
    check_positive("train_block", [train_block])
    check_positive("test_block", [test_block])
    rows, tests = len(train), len(test)
    if leave_one_out and not rows == tests > 1:
        raise ValueError(
            f"leave_one_out with {rows} train and {tests} test rows; use the same two "
            "or more rows for both"
        )
    k = min(k, rows - leave_one_out)

    of_device, train_block = _resident(rows, train[0].nbytes, mesh.size, train_block)
    resident = of_device * mesh.size
    test_block = _even(tests, test_block)
    # All blocks are padded to the same size, and share one compiled program.
    padded = -(-tests // test_block) * test_block
    similarity = np.full((padded, k), -np.inf, np.float32)
    row = np.zeros((padded, k), np.int32)
    itself = np.arange(padded, dtype=np.int32)
    if not leave_one_out:
        itself[:] = -1

    everywhere = partial(place_everywhere, mesh=mesh)
    placed = None
    for first, start in progress_bar(
        list(product(range(0, rows, resident), range(0, padded, test_block))),
        desc="nearest neighbors",
    ):
        if start == 0:
            del placed  # makes room for the next
            here = train[first : first + resident]
            placed = place_unit_rows(here, resident, over_batch(mesh))
        part = slice(start, start + test_block)
        similarity[part], row[part] = _search(
            placed,
            place_unit_rows(test[part], test_block, replicated(mesh)),
            everywhere(itself[part]),
            (everywhere(similarity[part]), everywhere(row[part])),
            first,
            rows,
            block=train_block,
            mesh=mesh,
        )
    return similarity[:tests], row[:tests]


@partial(jax.jit, static_argnames=("block", "mesh"))
def _search(
    train: Array,
    test: Array,
    itself: Array,
    best: tuple[Array, Array],
    first: int,
    rows: int,
    *,
    block: int,
    mesh: Mesh,
) -> tuple[Array, Array]:
    """Merges `best` with what is found in `train`, the train rows from `first` on.

    Args:
      train: (r, f), split over the devices; the last ones only fill up.
      test: (t, f).
      itself: (t,) the train row that is no neighbor, or -1.
      best: similarity (t, k) and row (t, k) among the train rows before `first`.
      first: see above.
      rows: number of all train rows.
      block: divides the rows of a device.
      mesh: the devices.
    """
    k = best[0].shape[1]

    def on_each_device(train, test, itself, best, first, rows):
        own_first = first + jax.lax.axis_index(AXIS) * train.shape[0]

        def in_block(offers: tuple[Array, Array], start: Array):
            part = jax.lax.dynamic_slice_in_dim(train, start, block)
            row = own_first + start + jnp.arange(block, dtype=jnp.int32)
            similarity = jnp.matmul(test, part.T, precision=jax.lax.Precision.HIGHEST)
            counts = (row < rows) & (row != itself[:, None])
            similarity = jnp.where(counts, similarity, -jnp.inf)
            similarity, column = top_k(similarity, min(k, block))
            return _merge(offers, (similarity, row[column])), None

        none = jnp.full_like(best[0], -jnp.inf), jnp.zeros_like(best[1])
        starts = jnp.arange(0, train.shape[0], block, dtype=jnp.int32)
        offers, _ = jax.lax.scan(in_block, none, starts)
        # All merges follow the order of rows, so that the lowest of equals wins.
        return _merge(best, jax.lax.all_gather(offers, AXIS, axis=1, tiled=True))

    return jax.shard_map(
        on_each_device,
        mesh=mesh,
        in_specs=(P(AXIS), P(), P(), P(), P(), P()),
        out_specs=P(),
        check_vma=False,  # what is gathered is the same everywhere
    )(train, test, itself, best, jnp.int32(first), jnp.int32(rows))


def _merge(
    ahead: tuple[Array, Array], behind: tuple[Array, Array]
) -> tuple[Array, Array]:
    """Returns the most similar of both, as many as are `ahead`."""
    similarity, row = (
        jnp.concatenate(both, axis=1) for both in zip(ahead, behind, strict=True)
    )
    similarity, column = jax.lax.top_k(similarity, ahead[0].shape[1])
    return similarity, jnp.take_along_axis(row, column, axis=1)


def place_unit_rows(features: np.ndarray, count: int, sharding: NamedSharding) -> Array:
    """Returns float32 rows of length 1 on the devices, filled up to `count` with zeros.

    A row of zeros stays one. Every process passes the same features.
    """

    # Any: JAX's annotation has a None that is never passed.
    def part(index: Any) -> np.ndarray:
        start, stop, _ = index[0].indices(count)
        some = features[start:stop]
        norm = np.sqrt(np.einsum("nf,nf->n", some, some, dtype=np.float64))
        norm = np.where(norm > 0, norm, 1.0).astype(np.float32)
        rows = np.zeros((stop - start, features.shape[1]), np.float32)
        np.divide(some, norm[:, None], out=rows[: len(some)])
        return rows

    shape = (count, features.shape[1])
    return jax.make_array_from_callback(shape, sharding, part)


def _resident(rows: int, row_bytes: int, devices: int, block: int) -> tuple[int, int]:
    """Returns the train rows on a device at a time, and the size of their blocks."""
    fitting = max(1, RESIDENT_BYTES // row_bytes) * devices
    of_device = -(-_even(rows, fitting) // devices)
    block = _even(of_device, block)
    return -(-of_device // block) * block, block


def _even(count: int, most: int) -> int:
    """Returns the size of the fewest equal parts of `count` that are at most `most`."""
    return -(-count // -(-count // most))
