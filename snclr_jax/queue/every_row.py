"""Every image against every row: sums over rows that are spread over the devices.

Queries travel, rows stay. A device adds up what its own rows give all images, in blocks
(`sums.py`), and maxima and sums over devices, of b numbers each, complete it. Forward,
one device receives the b d numbers of the queries; backward, the gradient of its own
images comes back the same way. The rows may be a queue, or the targets of the batch.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh

from snclr_jax.devices.mesh import AXIS, gather
from snclr_jax.queue.sharded import ROWS, ROWS_OF_VIEWS
from snclr_jax.queue.sums import RowList, log_sum_exp, log_sum_exp_and_mean


@jax.named_scope("every_row")
def log_sum_over_rows(
    query: Array,
    keys: Array,
    counted: Array,
    *,
    temperature: float,
    block: int,
    mesh: Mesh,
    but_own: bool = False,
) -> Array:
    """Returns log sum_r exp(query_i . keys_r / temperature) of the rows that count.

    Args:
      query: (v, b, d) unit rows of v views, sharded over b.
      keys: (n, d) unit rows, sharded over n; no gradient reaches them.
      counted: (n,) bool.
      temperature: tau > 0.
      block: most numbers that exist at once on a device.
      mesh: its size divides b and n.
      but_own: image i leaves row i out; n is b.

    Returns:
      (v, b); -inf where no row counts, with a gradient of 0.
    """

    def of_device(query: Array, keys: Array, counted: Array) -> Array:
        z = gather(query)
        listed = list_rows(z, counted, but_own)
        part: Any = log_sum_exp(_flat(z), keys, listed, temperature, block)
        return _own(_log_sum(part), z, query)

    return _on_each_device(of_device, mesh, ROWS_OF_VIEWS)(query, keys, counted)


@jax.named_scope("every_row")
def softmax_over_rows(
    query: Array,
    keys: Array,
    counted: Array,
    *,
    temperature: float,
    block: int,
    mesh: Mesh,
    but_own: bool = False,
) -> tuple[Array, Array]:
    """Returns the log-sum of `log_sum_over_rows`, and the mean row of its softmax.

        mean_i = sum_r softmax_r(query_i . keys_r / temperature) keys_r

    With such a distribution over rows as its aim, a cross-entropy needs its mean row
    alone: sum_r p_ir (z_i . c_r) = z_i . mean_i. No gradient reaches anything.

    Args:
      query: (v, b, d) unit rows; what follows is as `log_sum_over_rows` has it.

    Returns:
      (v, b), and (v, b, d), 0 where no row counts.
    """

    def of_device(query: Array, keys: Array, counted: Array) -> tuple[Array, Array]:
        z = gather(query)
        listed = list_rows(z, counted, but_own)
        part, mean = log_sum_exp_and_mean(_flat(z), keys, listed, temperature, block)
        whole = _log_sum(part)
        # A device without rows that count has no share, not 0 x inf.
        share = jnp.where(part > -jnp.inf, jnp.exp(part - _finite(whole)), 0.0)
        mean = jax.lax.psum(share[:, None] * mean, AXIS)
        return _own(whole, z, query), _own(mean, z, query)

    query, keys = jax.lax.stop_gradient((query, keys))
    return _on_each_device(of_device, mesh, (ROWS_OF_VIEWS, ROWS_OF_VIEWS))(
        query, keys, counted
    )


def merged(log_sums: Array, means: Array) -> tuple[Array, Array]:
    """Returns one softmax over n disjoint lists of rows, from those over each list.

    Args:
      log_sums: (n, ...) as of `softmax_over_rows`; -inf of a list without rows.
      means: (n, ..., d).

    Returns:
      Log-sum (...), and mean row (..., d), 0 where no list has rows.
    """
    whole = jax.nn.logsumexp(log_sums, axis=0)
    share = jnp.exp(log_sums - _finite(whole))
    return whole, jnp.sum(share[..., None] * means, axis=0)


def softmax_entropy(
    query: Array, log_sum: Array, mean: Array, *, temperature: float
) -> Array:
    """Returns the entropy (...) of a softmax over rows in nats, 0 where there is none.

        H_i = log_sum_i - query_i . mean_i / temperature

    Args:
      query: (..., d); log_sum (...) and mean (..., d): of `softmax_over_rows`.
      temperature: of that softmax.
    """
    return _finite(log_sum) - jnp.sum(query * mean, axis=-1) / temperature


def _on_each_device(function, mesh: Mesh, out_specs):
    in_specs = (ROWS_OF_VIEWS, ROWS, ROWS)
    return jax.shard_map(function, mesh=mesh, in_specs=in_specs, out_specs=out_specs)


def list_rows(z: Array, counted: Array, but_own: bool) -> RowList:
    """Lists all rows of this device, in their order, for the queries of all views.

    Args:
      z: (v, b, d) of all images.
      counted: (n / P,) bool.
      but_own: image i leaves row i of all devices out.
    """
    own = counted.shape[0]
    excluded = None
    if but_own:
        index = jnp.arange(z.shape[1]) - jax.lax.axis_index(AXIS) * own
        excluded = jnp.tile(index[:, None], (z.shape[0], 1))
    return RowList(
        row=jnp.arange(own),
        multiplicity=counted.astype(z.dtype),
        count=jnp.int32(own),
        excluded=excluded,
    )


def _flat(z: Array) -> Array:
    return z.reshape(-1, z.shape[-1])


def _own(values: Array, z: Array, query: Array) -> Array:
    """Returns, of (v b, ...) values of all images, (v, b / P, ...) of this device."""
    values = values.reshape(*z.shape[:2], *values.shape[1:])
    own = query.shape[1]
    first = jax.lax.axis_index(AXIS) * own
    return jax.lax.dynamic_slice_in_dim(values, first, own, axis=1)


def _log_sum(part: Array) -> Array:
    """Returns log sum exp of what the devices hold, -inf where all of it is."""
    top = _finite(jax.lax.pmax(jax.lax.stop_gradient(part), AXIS))
    total = jax.lax.psum(jnp.exp(part - top), AXIS)
    return jnp.where(
        total > 0, top + jnp.log(jnp.where(total > 0, total, 1.0)), -jnp.inf
    )


def _finite(values: Array) -> Array:
    return jnp.where(values > -jnp.inf, values, 0.0)
