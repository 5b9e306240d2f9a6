"""Search among the rows of one device, in blocks of queries and rows.

The similarities of all queries with all rows never exist at once. Nothing here
communicates; `sharded.py` elects the winners among the devices.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from snclr_jax.queue.ring import NeighborQueue, eligible, similarities

# With fewer queries at a time, a product is bound by reading the rows once more.
LEAST_QUERIES = 64
# Rows per group of the exact top-K; 16 and 64 take as long.
GROUP = 32


def nearest_rows(
    queue: NeighborQueue,
    queries: Array,
    image_id: Array,
    bank: Array,
    row_bank: Array,
    *,
    k: int,
    block: int,
    recall: float | None = None,
) -> tuple[Array, Array]:
    """Finds the k eligible rows with the largest t_i . c_r among a device's rows.

    Blocks of queries meet blocks of rows; the best k so far are carried along.

    Args:
      queue: the rows of this device, r of them.
      queries: (b, d) unit rows t.
      image_id: (b,) int32; see `eligible`.
      bank: (b,) int32 bank of each query.
      row_bank: (r,) int32 bank of each row.
      k: at most r.
      block: most numbers of the arrays that one step of the search makes.
      recall: None searches exactly; otherwise the target recall of `approx_max_k`.

    Returns:
      similarity (b, k), descending, -inf where there is no eligible row, and row (b, k)
      int32. An exact search puts the lowest of equally similar rows first.
    """
    rows = queue.keys.shape[0]
    # Similarities, the same with ineligible rows masked, and what is sorted, twice.
    products = block // 4
    at_once = min(queries.shape[0], max(LEAST_QUERIES, products // rows))
    # A block of rows is copied too.
    width = min(products // at_once, block // queue.keys.shape[1])
    width = min(rows, max(k, width))

    def in_rows(first: Array | int, fresh: Array | int) -> tuple[Array, Array]:
        keys, row_image, pushed_at, of_bank = (
            jax.lax.dynamic_slice_in_dim(array, first, width)
            for array in (queue.keys, queue.image_id, queue.pushed_at, row_bank)
        )
        part = NeighborQueue(keys, row_image, pushed_at, queue.cursor)

        def of_queries(queries: Array, image_id: Array, bank: Array):
            allowed = eligible(part, image_id, bank, of_bank)
            allowed &= first + jnp.arange(width) >= fresh
            similarity = jnp.where(allowed, similarities(queries, keys), -jnp.inf)
            if recall is None:
                return top_k(similarity, k)
            return jax.lax.approx_max_k(similarity, k, recall_target=recall)

        similarity, row = _over_queries(of_queries, at_once, queries, image_id, bank)
        return similarity, (first + row).astype(jnp.int32)

    def merge(number: Array, best: tuple[Array, Array]) -> tuple[Array, Array]:
        # The last block reaches back over rows that were already seen.
        fresh = number * width
        candidates = in_rows(jnp.minimum(fresh, rows - width), fresh)
        similarity, row = (
            jnp.concatenate(pair, axis=1) for pair in zip(best, candidates, strict=True)
        )
        similarity, column = jax.lax.top_k(similarity, k)
        return similarity, jnp.take_along_axis(row, column, axis=1)

    return jax.lax.fori_loop(1, -(-rows // width), merge, in_rows(0, 0))


def _over_queries(function: Callable, at_once: int, *arrays: Array):
    """Applies `function` to blocks of `at_once` leading entries of all arrays."""
    batch = arrays[0].shape[0]
    whole = batch // at_once * at_once
    results = jax.lax.map(
        lambda block: function(*block),
        [array[:whole].reshape(-1, at_once, *array.shape[1:]) for array in arrays],
    )
    results = jax.tree.map(lambda leaf: leaf.reshape(whole, *leaf.shape[2:]), results)
    if whole == batch:
        return results
    rest = function(*(array[whole:] for array in arrays))
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), results, rest)


def top_k(values: Array, k: int) -> tuple[Array, Array]:
    """Does `lax.top_k` exactly, through the maxima of groups where that is faster.

    That is in long rows on CPUs and GPUs. The k groups with the largest maxima hold the
    k largest values: each of these groups offers one value at least as large as any
    value outside of them. Groups are read in their order, so that the
    first of equal values wins here too.

    Args:
      values: (b, n).
      k: at most n.

    Returns:
      The k largest values (b, k), descending, and their columns (b, k).
    """
    count = values.shape[1]
    if 4 * (k * GROUP + count // GROUP) > count:
        return jax.lax.top_k(values, k)
    # A TPU has a fast top-K of its own, and reads groups slowly.
    return jax.lax.platform_dependent(
        values,
        tpu=lambda values: (*jax.lax.top_k(values, k),),
        default=functools.partial(_top_k_through_groups, k=k),
    )


def _top_k_through_groups(values: Array, k: int) -> tuple[Array, Array]:
    batch, count = values.shape
    groups = -(-count // GROUP)
    if count % GROUP:
        rest = ((0, 0), (0, groups * GROUP - count))
        values = jnp.pad(values, rest, constant_values=-jnp.inf)
    # On a CPU, XLA fuses this window with what made the values; a reshape and jnp.max
    # take a fifth longer.
    maxima = jax.lax.reduce_window(
        values, -jnp.inf, jax.lax.max, (1, GROUP), (1, GROUP), "VALID"
    )
    _, chosen = jax.lax.top_k(maxima, k)
    chosen = jnp.sort(chosen, axis=1)
    grouped = values.reshape(batch, groups, GROUP)
    inside = jnp.take_along_axis(grouped, chosen[:, :, None], axis=1)
    largest, index = jax.lax.top_k(inside.reshape(batch, k * GROUP), k)
    group = jnp.take_along_axis(chosen, index // GROUP, axis=1)
    return largest, group * GROUP + index % GROUP
