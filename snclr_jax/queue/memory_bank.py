"""A memory bank on a device mesh: a row for each training image, not a ring of rows.

Wu et al., "Unsupervised feature learning via non-parametric instance discrimination",
CVPR 2018, section 3. Image i has row i mod q, so that a bank as long as the training
set holds each image once. It is a `NeighborQueue` whose cursor stays where it is, and
is searched like one.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp
from annotated_types import Ge, Le, Lt
from jax import Array
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from snclr_jax.devices.mesh import AXIS, gather
from snclr_jax.queue.ring import NeighborQueue, write
from snclr_jax.queue.settings import RingSettings
from snclr_jax.queue.sharded import QUEUE_SPEC, ROWS, first_row


@dataclasses.dataclass(frozen=True)
class BankSettings(RingSettings):
    """A memory bank of moving means, and how it is searched.

    In one that is shorter than the training set images share rows, and the last one
    that was seen has it.
    """

    # Rows q over all devices; a multiple of the number of devices. None: one for each
    # training image.
    size: Annotated[int, Ge(0), Le(2**30)] | None = None  # pyrefly: ignore[bad-override]
    # K, neighbors per image; with 0 the objective has none, and needs no bank.
    k: Annotated[int, Ge(0), Le(2**14)] = 5
    # The row at this rank is the first that is no neighbor at all.
    rank: Annotated[int, Ge(1), Le(2**14)] = 20
    # Of the moving mean: what stays of an image's row when it is seen again.
    momentum: Annotated[float, Ge(0), Lt(1)] = 0.5

    # What a search of a ring may be asked, and one of a bank is not.
    search: ClassVar[str] = "exact"
    banks: ClassVar[int] = 1


@jax.named_scope("moving_mean")
def moving_mean(
    bank: NeighborQueue, rows: Array, image_id: Array, *, momentum: float, mesh: Mesh
) -> Array:
    """Returns what the images' rows of the bank become, but for their length.

        momentum m_i + (1 - momentum) t_i           t_i where image i has no row yet

    Args:
      bank: keys sharded over the mesh axis "data".
      rows: (b, d) unit rows t, sharded over the batch.
      image_id: (b,) int32.
      momentum: in [0, 1).
      mesh: its size divides b and the rows of the bank.

    Returns:
      (b, d) rows, sharded as `rows`.
    """

    def of_device(bank: NeighborQueue, rows: Array, image_id: Array) -> Array:
        owned, row = bank.keys.shape[0], image_id % bank.image_id.shape[0]
        place = row - first_row(bank)
        own = (place >= 0) & (place < owned) & (bank.image_id[row] == image_id)
        # One device alone has the row of an image, and zeros for those of others.
        mine = jnp.where(own[:, None], bank.keys[jnp.clip(place, 0, owned - 1)], 0)
        before = jax.lax.psum_scatter(mine.astype(rows.dtype), AXIS, tiled=True)
        known = jnp.any(before != 0, axis=1, keepdims=True)
        return jnp.where(known, momentum * before + (1 - momentum) * rows, rows)

    specs = (QUEUE_SPEC, ROWS, P())
    return jax.shard_map(of_device, mesh=mesh, in_specs=specs, out_specs=ROWS)(
        bank, rows, image_id
    )


@jax.named_scope("remember")
def remember(
    bank: NeighborQueue, rows: Array, image_id: Array, step: Array, *, mesh: Mesh
) -> NeighborQueue:
    """Writes rows (b, d) over those of their images; each device keeps its own.

    Of images that share a row, the last one of the batch has it.
    """

    def of_device(bank, rows, image_id, step):
        owned, size = bank.keys.shape[0], bank.image_id.shape[0]
        row, order = image_id % size, jnp.arange(image_id.shape[0])
        later = (row[:, None] == row) & (order[:, None] < order)
        row = jnp.where(jnp.any(later, axis=1), size, row)
        place = row - first_row(bank)
        place = jnp.where((place >= 0) & (place < owned), place, owned)
        return bank.replace(
            keys=write(bank.keys, place, gather(rows)),
            image_id=write(bank.image_id, row, image_id),
            pushed_at=write(bank.pushed_at, row, jnp.broadcast_to(step, row.shape)),
        )

    return jax.shard_map(
        of_device,
        mesh=mesh,
        in_specs=(QUEUE_SPEC, ROWS, P(), P()),
        out_specs=QUEUE_SPEC,
    )(bank, rows, image_id, step)
