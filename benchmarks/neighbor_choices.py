"""Other neighbors than the nearest: what no run without labels can choose.

These bound what a better choice could bring, and what a worse one costs, for analysis
alone: the package has neither, and a config names them, such as
"neighbor_choices:SNCLROfSameClass", where this folder is imported from.
"""

from __future__ import annotations

import dataclasses
from contextlib import AbstractContextManager
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from snclr_jax.objectives.memory_dcl import MemoryDCL
from snclr_jax.objectives.snclr import SNCLR
from snclr_jax.objectives.soft_dcl import SoftDCL
from snclr_jax.objectives.soft_neighbors import SoftNeighbors
from snclr_jax.queue import ring, search
from snclr_jax.queue.memory_bank import BankSettings
from snclr_jax.queue.ring import NeighborQueue
from snclr_jax.step.objective import Found, Now, Seen


class OtherSearch(SoftNeighbors):
    """An objective whose search is another one while its step is traced."""

    def search(self) -> AbstractContextManager[Any]:
        """Returns what replaces a part of the search."""
        raise NotImplementedError

    def loss(
        self, params: dict[str, Array], state: NeighborQueue, seen: Seen, now: Now
    ) -> tuple[Array, Any]:
        """Returns that of the objective with these neighbors."""
        with self.search():
            return super().loss(params, state, seen, now)

    def neighbors(
        self, params: dict[str, Array], state: NeighborQueue, seen: Seen, now: Now
    ) -> Found:
        """Returns these neighbors of the first target."""
        with self.search():
            return super().neighbors(params, state, seen, now)


@dataclasses.dataclass(frozen=True)
class OfSameClass(OtherSearch):
    """An oracle: the nearest rows of the image's own class."""

    # A .npy file, int (n,): labels of the training images, below 0 where unknown.
    labels: str = ""

    def search(self) -> AbstractContextManager[Any]:
        """Leaves rows of other classes out; an image of unknown class finds none."""
        labels = np.load(self.labels)

        def of_own_class(
            queue: NeighborQueue, image_id: Array, bank: Array, row_bank: Array
        ) -> Array:
            known = jnp.asarray(labels)
            own, theirs = known[image_id][:, None], known[queue.image_id]
            eligible = ring.eligible(queue, image_id, bank, row_bank)
            return eligible & (own >= 0) & (own == theirs)

        return mock.patch.object(search, "eligible", of_own_class)


@dataclasses.dataclass(frozen=True)
class OfAnyRow(OtherSearch):
    """Noise: K rows that are drawn at random for every image and step."""

    def search(self) -> AbstractContextManager[Any]:
        """Takes scrambled bits of a similarity for it, so numbers that know nothing."""

        def scrambled(queries: Array, keys: Array) -> Array:
            similarity = ring.similarities(queries, keys).astype(jnp.float32)
            bits = jax.lax.bitcast_convert_type(similarity, jnp.uint32)
            # Two rounds of multiplying and folding the high bits down, as hashes do.
            for factor in (0x9E3779B1, 0x85EBCA77):
                bits *= jnp.uint32(factor)
                bits ^= bits >> 15
            return (bits >> 8).astype(jnp.float32) / 2**24

        return mock.patch.object(search, "similarities", scrambled)


@dataclasses.dataclass(frozen=True)
class SNCLROfSameClass(OfSameClass, SNCLR):
    """SNCLR with the oracle's neighbors."""


@dataclasses.dataclass(frozen=True)
class SoftDCLOfSameClass(OfSameClass, SoftDCL):
    """SoftDCL with the oracle's neighbors."""


@dataclasses.dataclass(frozen=True)
class MemoryDCLOfSameClass(OfSameClass, MemoryDCL):
    """MemoryDCL with the oracle's neighbors."""

    queue: BankSettings = BankSettings()  # pyrefly: ignore[bad-override]


@dataclasses.dataclass(frozen=True)
class MemoryDCLOfAnyRow(OfAnyRow, MemoryDCL):
    """MemoryDCL with neighbors by chance."""

    queue: BankSettings = BankSettings()  # pyrefly: ignore[bad-override]


@dataclasses.dataclass(frozen=True)
class SNCLROfAnyRow(OfAnyRow, SNCLR):
    """SNCLR with neighbors by chance."""


@dataclasses.dataclass(frozen=True)
class SoftDCLOfAnyRow(OfAnyRow, SoftDCL):
    """SoftDCL with neighbors by chance."""
