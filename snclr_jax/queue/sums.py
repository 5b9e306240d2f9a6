"""Products and log-sum-exp of one device's rows, in blocks, with their gradients.

Logits of all images with all rows never exist at once, nor do the neighbors of all
images: each function walks through blocks. Backward passes recompute, or scale a sum
that the forward pass made on its way. Nothing here communicates.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from snclr_jax.queue.ring import similarities

# More rows in one product are not faster, and the last block wastes more.
MOST_ROWS = 1024
# To know whether a block may be skipped, the host of a GPU waits for it: not worth it
# for so few.
FEW_BLOCKS = 4

_einsum = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)


class RowList(NamedTuple):
    """The rows that enter the denominators, each listed once.

    Attributes:
      row: (n,) int32 row of the device's keys; the list is filled up with row 0.
      multiplicity: (n,) m_r, how often the row was chosen; 0 where filled up.
      count: () int32, the length of the list before it was filled up.
      excluded: (b, e) int32 indices into the list that image i leaves out of its own
        denominator, each once; an index outside of the list is none. None: nothing is
        left out.
    """

    row: Array
    multiplicity: Array
    # Hides tuple.count, which nobody calls on it.
    count: Array
    excluded: Array | None


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def products_with_rows(
    queries: tuple[Array, ...], keys: Array, row: Array, count: Array, block: int
) -> tuple[Array, ...]:
    """Returns the products of each image's queries with rows of its own.

        p_ik = query_i . keys[row_ik]      for k < count_i, else 0

    Rows are gathered for a few k at a time, only as far as any image has some. The
    backward pass gathers them again.

    Args:
      queries: arrays of shape (b, d).
      keys: (r, d), without gradient.
      row: (b, k) int32.
      count: (b,) int32.
      block: most numbers of the rows gathered at once and of their products.

    Returns:
      For each of the queries its (b, k) products.
    """

    def products(first: Array, fresh: Array, rows: Array, out: tuple[Array, ...]):
        del fresh  # The same products may be written twice.
        return tuple(
            jax.lax.dynamic_update_slice_in_dim(
                product, _einsum("bd,bkd->bk", query, rows), first, axis=1
            )
            for query, product in zip(queries, out, strict=True)
        )

    # zeros_like, since the carry of a loop must vary over the mesh as the data do.
    nothing = tuple(jnp.zeros_like(query, shape=row.shape) for query in queries)
    out = _over_neighbors(products, nothing, keys, row, count, block)
    inside = jnp.arange(row.shape[1]) < count[:, None]
    return tuple(jnp.where(inside, product, 0.0) for product in out)


def _products_forward(queries, keys, row, count, block):
    return products_with_rows(queries, keys, row, count, block), (keys, row, count)


def _products_backward(block, residuals, gradients):
    keys, row, count = residuals
    inside = jnp.arange(row.shape[1]) < count[:, None]
    gradients = tuple(jnp.where(inside, gradient, 0.0) for gradient in gradients)

    def pull(first: Array, fresh: Array, rows: Array, out: tuple[Array, ...]):
        def add(total: Array, gradient: Array) -> Array:
            part = jax.lax.dynamic_slice_in_dim(gradient, first, rows.shape[1], axis=1)
            part = jnp.where(fresh, part, 0.0)
            return total + _einsum("bk,bkd->bd", part, rows)

        return jax.tree.map(add, out, gradients)

    shape = (row.shape[0], keys.shape[1])
    nothing = tuple(jnp.zeros_like(gradient, shape=shape) for gradient in gradients)
    out = _over_neighbors(pull, nothing, keys, row, count, block)
    return out, None, None, None


products_with_rows.defvjp(_products_forward, _products_backward)


def _over_neighbors(function, carry, keys, row, count, block):
    """Calls `function(first, fresh, keys[row[:, first : first + width]], carry)`.

    `fresh` (width,) is false for the neighbors that an earlier block held already.
    """
    batch, k = row.shape
    width = max(1, min(k, block // (2 * batch * keys.shape[1])))
    longest = jnp.max(count, initial=0)

    def step(number: Array, carry):
        first = jnp.minimum(number * width, k - width)
        part = jax.lax.dynamic_slice_in_dim(row, first, width, axis=1)
        fresh = first + jnp.arange(width) >= number * width
        return function(first, fresh, keys[part], carry)

    return in_blocks(step, carry, size=k, width=width, count=longest)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def log_sum_exp(
    query: Array, keys: Array, listed: RowList, temperature: float, block: int
) -> Array:
    """Returns log sum_r n_ir exp(query_i . keys_r / temperature), -inf where empty.

    n_ir is the multiplicity of r, less one where image i excludes it: counted before
    the exponential, since subtracting two nearly equal sums would lose every digit.

    The gradient by the query is the softmax-weighted mean of the rows, which the
    forward pass gathers on its way: backward only scales it.

    Args:
      query: (b, d) unit rows z.
      keys: (r, d) unit rows, without gradient.
      listed: the rows that count, and how often.
      temperature: tau > 0.
      block: most numbers of the logits and exponentials that exist at once.

    Returns:
      (b,).
    """
    return log_sum_exp_and_mean(query, keys, listed, temperature, block)[0]


def _log_sum_exp_backward(temperature, block, mean, gradient):
    return gradient[:, None] * mean / temperature, None, None


def log_sum_exp_and_mean(query, keys, listed, temperature, block):
    """Returns log_sum_exp (b,) and the mean row (b, d) under its softmax."""
    batch, size = query.shape[0], listed.row.shape[0]
    # Logits and exponentials.
    width = max(1, min(size, block // (2 * batch), MOST_ROWS))
    padded = -(-size // width) * width
    row, multiplicity = (
        jnp.pad(values, (0, padded - size))
        for values in (listed.row, listed.multiplicity)
    )

    def add(number: Array, carry: tuple[Array, Array, Array]):
        top, total, mean = carry
        first = number * width
        rows = keys[jax.lax.dynamic_slice_in_dim(row, first, width)]
        counts = jax.lax.dynamic_slice_in_dim(multiplicity, first, width)[None]
        if listed.excluded is not None:
            index = listed.excluded - first
            index = jnp.where(index >= 0, index, width)
            image = jnp.arange(batch)[:, None]
            # An index of the padding may be hit; its count is not above 0 either way.
            counts = jnp.tile(counts, (batch, 1)).at[image, index].add(-1, mode="drop")
        logits = similarities(query, rows) / temperature
        # What does not count is masked in the exponent too: exp may overflow there.
        logits = jnp.where(counts > 0, logits, -jnp.inf)
        new_top = jnp.maximum(top, jnp.max(logits, axis=1))
        exponential = counts * jnp.exp(logits - new_top[:, None])
        fade = jnp.exp(top - new_top)
        total = fade * total + jnp.sum(exponential, axis=1)
        mean = fade[:, None] * mean + _einsum("br,rd->bd", exponential, rows)
        return new_top, total, mean

    # A finite start, since -inf - -inf is not a number.
    total = jnp.zeros_like(query, shape=(batch,))
    carry = total + jnp.finfo(query.dtype).min, total, jnp.zeros_like(query)
    top, total, mean = in_blocks(add, carry, size=size, width=width, count=listed.count)
    return top + jnp.log(total), mean / jnp.where(total > 0, total, 1.0)[:, None]


log_sum_exp.defvjp(log_sum_exp_and_mean, _log_sum_exp_backward)


def in_blocks(step: Callable, carry, *, size: int, width: int, count: Array):
    """Runs `step(number, carry)` for each block of `width` that begins before `count`.

    The number of turns is static and the rest is skipped, so that the cost of the
    compiled program has a bound that can be read from it. Few turns are all taken:
    what lies behind `count` changes nothing.
    """
    if size == 0:
        return carry
    turns = -(-size // width)

    def turn(number: Array, carry):
        if turns <= FEW_BLOCKS:
            return step(number, carry)
        begins = number * width < count
        return jax.lax.cond(begins, functools.partial(step, number), lambda c: c, carry)

    return jax.lax.fori_loop(0, turns, turn, carry)
