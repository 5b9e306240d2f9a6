"""Training batches, placed on the devices."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import grain
import jax
import numpy as np
from jax.sharding import Mesh

from snclr_jax.data.crop import View
from snclr_jax.data.order import RANDOM
from snclr_jax.data.pipeline import train_batches
from snclr_jax.data.shared import keep_own
from snclr_jax.data.split import Split
from snclr_jax.devices.mesh import (
    over_batch,
    over_batches,
    place_batch,
    place_batches,
    place_everywhere,
)
from snclr_jax.devices.shares import place_shares
from snclr_jax.settings.resident import is_resident
from snclr_jax.step.augment import view_settings
from snclr_jax.step.views import Batch


def views_on_host(augment) -> list[View]:
    """How every view is cropped where the host does it, global ones first."""
    return [
        View(size, tuple(settings.crop_scale), tuple(settings.crop_ratio))
        for size, settings in view_settings(augment)
    ]


class Feed:
    """The global batches of a run.

    A small set is decoded once, by each process its share, and stays whole on every
    device; batches are indices into it. Of a large one, each process decodes and crops
    its own rows of every batch: a thread makes the next batch and moves it to the
    devices while they compute. The devices hold three batches then: one in use, one
    handed out and one on its way.

    Args:
      config: reads `data`, `augment`, `batch_size` and `seed`. `data.resident` decides
        where the images live; None keeps sets up to `RESIDENT_BYTES` on the device.
      split: the training images.
      mesh: the devices.
      labels: whether batches need labels even where reading them takes long.

    Attributes:
      resident: whether the images live on the device.
      batches: the Grain iterator at the batch that `next` returns next, for
        checkpoints; close it in the end.
    """

    def __init__(
        self,
        config,
        split: Split,
        mesh: Mesh,
        *,
        labels: bool = False,
    ) -> None:
        self.resident = is_resident(config, split.size)
        batches = train_batches(
            split,
            batch_size=config.batch_size,
            seed=config.seed,
            num_workers=config.data.num_workers,
            views=None if self.resident else views_on_host(config.augment),
            order=config.data.get("order") or RANDOM,  # before there was a choice
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        self.batches = batches if self.resident else ReadAhead(batches, self._place)
        self._mesh = mesh
        # Virtual CPU devices wait for one another inside a step, on a thread each, and
        # there are as many threads as cores: where two steps run, all of them may wait.
        self._one_step_at_a_time = (
            jax.default_backend() == "cpu" and mesh.local_mesh.size > 1
        )
        self._under_way: Any = None
        self._waited = 0.0
        # Reading the labels of a large set takes longer than one metric is worth.
        cheap = self.resident or split.labels_at_hand
        known = split.labelled and (cheap or labels)
        self._batch = functools.partial(
            Batch,
            resident=place_shares(keep_own(split), split.size, mesh)
            if self.resident
            else None,
            labels=place_everywhere(split.labels, mesh) if known else None,
        )

    def next(self, under_way: Any = None, *, steps: int = 1) -> Batch:
        """Returns the next global batch, or the next ones in one.

        Args:
          under_way: arrays that the call started last returns. At most this call is
            still running when a batch is handed out, so that no more of them gather on
            the devices; on virtual CPU devices none is.
          steps: n batches of resident images in turn, as `image_id` (n, b); of one
            step it is (b,).
        """
        before, self._under_way = self._under_way, under_way
        jax.block_until_ready(under_way if self._one_step_at_a_time else before)
        if not isinstance(self.batches, ReadAhead):
            if steps == 1:
                return self._place(next(self.batches))
            rows = np.stack([next(self.batches)["index"] for _ in range(steps)])
            return self._batch(image_id=place_batches(rows, self._mesh))
        idle = under_way is not None and not self.batches.ready
        if idle:  # but for the step that is still running
            jax.block_until_ready(under_way)
        started = time.perf_counter()
        batch = next(self.batches)
        if idle:
            self._waited += time.perf_counter() - started
        return batch

    def shaped(self, batch: Batch, *, steps: int) -> Batch:
        """Returns what to compile for: a batch as `next` returns it for `steps`.

        Its indices are a shape, in place of those of `batch`.
        """
        shape, sharding = batch.image_id.shape[-1:], over_batch(self._mesh)
        if steps > 1:
            shape, sharding = (steps, *shape), over_batches(self._mesh)
        indices = jax.ShapeDtypeStruct(shape, batch.image_id.dtype, sharding=sharding)
        return batch.replace(image_id=indices)

    def take_waited(self) -> float:
        """Returns the seconds that the devices waited for batches since last asked."""
        waited, self._waited = self._waited, 0.0
        return waited

    def _place(self, rows: dict[str, np.ndarray]) -> Batch:
        index = rows.pop("index")
        views = tuple(
            place_batch(rows[f"view{number}"], self._mesh)
            for number in range(len(rows))
        )
        return self._batch(image_id=place_batch(index, self._mesh), views=views or None)


class ReadAhead(grain.DatasetIterator):
    """Makes the next item of an iterator in a thread while the last one is used.

    Its state is that of the items handed out: what was read ahead is made again after
    a restart. An error of the thread is raised where its item is asked for.

    Args:
      source: has the whole state; used by nobody else.
      make: what is done, in the thread, with each of its items.
    """

    def __init__(
        self, source: grain.DatasetIterator, make: Callable[[Any], Any]
    ) -> None:
        super().__init__()
        self._source, self._make = source, make
        self._state = source.get_state()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="read_ahead")
        self._next: Future | None = None

    @property
    def ready(self) -> bool:
        """Whether the next item is there, or its error."""
        return self._next is not None and self._next.done()

    def __next__(self) -> Any:
        if self._next is None:
            self._next = self._thread.submit(self._read)
        item, self._state = self._next.result()
        self._next = self._thread.submit(self._read)
        return item

    def _read(self) -> tuple[Any, dict[str, Any]]:
        rows = next(self._source)
        # Ready means that it has arrived on the devices, too.
        return jax.block_until_ready(self._make(rows)), self._source.get_state()

    def get_state(self) -> dict[str, Any]:
        return self._state

    def set_state(self, state: dict[str, Any]) -> None:
        if self._next is not None:
            # One that is being made ends first; what comes of it is not wanted.
            self._next.cancel()
            wait([self._next])
            self._next = None
        self._source.set_state(state)
        self._state = state

    def close(self) -> None:
        """Stops the source; the next item starts it again."""
        self.set_state(self._state)
