"""The order of the data: one Grain pipeline for every image set.

The order is a function of (seed, epoch) alone (`epoch_order`). Process p of P reads
rows [p b / P, (p + 1) b / P) of every global batch of b images.
"""

from __future__ import annotations

import atexit
import dataclasses
import functools
import multiprocessing.util  # noqa: F401  registers its own exit: see TrainBatches
import os
import re
import signal
import weakref
from collections.abc import Callable, Iterator, Sequence

import grain
import numpy as np
from absl import flags

from snclr_jax.data.blocks import Blocks
from snclr_jax.data.crop import View, draw_uniforms
from snclr_jax.data.decode import Encoded, UnreadableImage
from snclr_jax.data.decode_views import decode_views
from snclr_jax.data.order import RANDOM, WINDOWED, epoch_order, lane_count
from snclr_jax.data.split import Split
from snclr_jax.data.worker import start_worker

# Rows that a thread or worker process makes at a time, at most. Were it a whole batch,
# every worker would hold gigabytes: 4,096 pairs of 224-pixel views are 1.2.
CHUNK = 32
_FOREVER = 2**62  # elements; Grain wants a length
# What Grain says of one.
_LOST_WORKER = re.compile("Worker process was terminated .*exit code -([0-9]+)")


def train_batches(
    split: Split,
    *,
    batch_size: int,
    seed: int,
    num_workers: int,
    views: Sequence[View] | None,
    order: str,
    process_index: int = 0,
    process_count: int = 1,
) -> TrainBatches:
    """Endless training batches; each epoch is a new permutation of the split.

    An epoch has floor(n / b) batches: the rest of its permutation is dropped. Where an
    image cannot be read, its row holds index and crops of the one in its place (see
    `Split`), and all other rows are what they would be.

    Args:
      split: n images.
      batch_size: global batch size b, over all processes.
      seed: of the order and the crops, 0 to 2^32 - 1.
      num_workers: processes that decode images; 0 decodes in this one, with threads.
      views: random crops that are cut out of every image; None where the images
        already live on the device, so that only indices are produced.
      order: see `epoch_order`; images in "windowed" order are read in blocks.
      process_index: p, this process.
      process_count: P.

    Returns:
      A Grain iterator over {"index": int32 (b / P,)} and, for each view v,
      {"view{v}": uint8 (b / P, s_v, s_v, c)}. Its state is the number of batches
      produced: it may be restored with any number of workers or processes.

    Raises:
      ValueError: where b does not fit the split or the processes; `next` raises it
        where more images are bad than may be.
      OSError: from `next`, where a worker process was killed.
    """
    if not 1 <= batch_size <= split.size:
        raise ValueError(
            f"batch_size {batch_size} is not between 1 and the {split.size} images of "
            "the training split; use a smaller batch or more images"
        )
    if batch_size % process_count:
        raise ValueError(
            f"batch_size {batch_size} is not a multiple of the {process_count} "
            f"processes; use {-(-batch_size // process_count) * process_count}"
        )
    per_process = batch_size // process_count
    workers = num_workers or 1
    reader = split
    if order == WINDOWED:
        lanes = -(-lane_count(batch_size) // process_count)
        reader = Blocks(split, -(-lanes // workers))
    part = _Part(
        split,
        batch_size,
        seed,
        rows=range(process_index * per_process, (process_index + 1) * per_process),
        views=tuple(views or ()),
        order=order,
        workers=workers,
        reader=reader,
    )
    if views is None:
        return TrainBatches(part, functools.partial(_read_indices, part))
    return TrainBatches(part, functools.partial(_read_views, part, num_workers))


@dataclasses.dataclass(frozen=True)
class _Part:
    """This process's rows of every global batch, in chunks.

    Chunk c of a step is element step * chunks + c of the pipeline.
    """

    split: Split
    batch_size: int
    seed: int
    rows: range
    views: tuple[View, ...]
    order: str
    workers: int
    reader: Split | Blocks

    @property
    def chunks(self) -> int:
        count = -(-len(self.rows) // CHUNK)
        if self.order == RANDOM:
            return count
        # Worker w makes elements w, w + workers, ...: the same rows of every batch, so
        # that no other one reads their blocks.
        return min(-(-count // self.workers) * self.workers, len(self.rows))

    def indices(self, element: int) -> dict[str, np.ndarray]:
        """Which images chunk `element` holds, {"index": int32 (c,)}."""
        return {"index": self.split.shown(self.asked(*self._rows_of(element)))}

    def cut(self, element: int) -> dict[str, np.ndarray]:
        """The same images' random crops too, {"view{v}": uint8 (c, s_v, s_v, k)}."""
        step, rows = self._rows_of(element)
        asked = self.asked(step, rows)
        uniforms = [
            draw_uniforms(self.seed, step, view, rows)
            for view in range(len(self.views))
        ]
        cuts = [
            self._cut(row, original, numbers)
            for row, original, *numbers in zip(
                asked, self.reader.originals(asked), *uniforms, strict=True
            )
        ]
        chunk = {"index": np.array([row for row, _ in cuts], asked.dtype)}
        for number, of_view in enumerate(
            zip(*(crops for _, crops in cuts), strict=True)
        ):
            chunk[f"view{number}"] = np.stack(of_view)
        return chunk

    def _cut(
        self, row: int, original: Encoded | np.ndarray, numbers: Sequence[np.ndarray]
    ) -> tuple[int, list[np.ndarray]]:
        """The crops of an image or of the one in its place, and which one it was."""
        try:
            return row, decode_views(original, self.views, numbers)
        except UnreadableImage:

            def read(other: int) -> list[np.ndarray]:
                (original,) = self.split.originals(np.array([other]))
                return decode_views(original, self.views, numbers)

            return self.split.first_readable(row, read)

    def asked(self, step: int, rows: range) -> np.ndarray:
        """Which images the order has at some rows of a global batch."""
        epoch, batch = divmod(step, self.split.size // self.batch_size)
        first = batch * self.batch_size
        order = epoch_order(
            self.order, self.split.size, self.batch_size, self.seed, epoch
        )
        return order[first + rows.start : first + rows.stop]

    def _rows_of(self, element: int) -> tuple[int, range]:
        step, chunk = divmod(element, self.chunks)
        first, end = (len(self.rows) * c // self.chunks for c in (chunk, chunk + 1))
        return step, self.rows[first:end]


class TrainBatches(grain.DatasetIterator):
    """A Grain iterator over whole batches, whose whole state is the step.

    Grain's own state of a pipeline with workers holds one position per worker, and is
    lost when their number changes.

    Args:
      part: what a batch is made of.
      pipeline: first element -> iterable over the chunks from there on.
    """

    def __init__(
        self, part: _Part, pipeline: Callable[[int], grain.IterDataset]
    ) -> None:
        super().__init__()
        self._part = part
        self._pipeline = pipeline
        self._running: list[grain.DatasetIterator] = []  # at most one
        self._step = 0
        weakref.finalize(self, _close_all, self._running)
        # At exit before multiprocessing's own, which would send SIGTERM to workers that
        # do not heed it, and wait for them: what is registered last is called first.
        atexit.register(_close_all, self._running)

    def __next__(self) -> dict[str, np.ndarray]:
        if not self._running:
            first = self._step * self._part.chunks
            self._running.append(iter(self._pipeline(first)))
        try:
            batch = self._join_chunks(self._running[0])
            self._note_replaced(batch["index"])
        except BaseException as error:
            self.close()  # it may stand in the middle of a batch
            if lost := _LOST_WORKER.search(str(error)):
                raise OSError(_why_lost(int(lost[1]))) from error
            raise
        self._step += 1
        return batch

    def _join_chunks(self, chunks: Iterator[dict]) -> dict[str, np.ndarray]:
        """Copies each chunk as it comes: workers hand over scarce shared memory."""
        batch: dict[str, np.ndarray] = {}
        end = 0
        for _ in range(self._part.chunks):
            chunk = next(chunks)
            start, end = end, end + len(chunk["index"])
            for name, rows in chunk.items():
                if name not in batch:
                    shape = (len(self._part.rows), *rows.shape[1:])
                    batch[name] = np.empty(shape, rows.dtype)
                batch[name][start:end] = rows
        return batch

    def _note_replaced(self, index: np.ndarray) -> None:
        """What worker processes met is known to them alone, but for the indices."""
        asked = self._part.asked(self._step, self._part.rows)
        for row in np.flatnonzero(index != asked):
            self._part.split.replaced(int(asked[row]), int(index[row]))

    def get_state(self) -> dict[str, int]:
        return {"step": self._step}

    def set_state(self, state: dict[str, int]) -> None:
        self.close()
        self._step = int(state["step"])

    def close(self) -> None:
        """Stops the workers; the next batch starts them again."""
        while self._running:  # Grain calls this when names of modules are gone, too
            self._running.pop().close()


def _why_lost(signal_number: int) -> str:
    name = signal.Signals(signal_number).name
    causes = {
        "SIGBUS": "shared memory, /dev/shm, is full: give a container more of it "
        "(docker run --shm-size=8g), or",
        "SIGKILL": "most likely, memory ran out:",
    }
    return (
        f"a process that decodes images was ended by {name}; "
        f"{causes.get(name, 'try it without such processes:')} set a smaller "
        "data.num_workers, 0 to decode in threads. The run goes on from its last "
        "checkpoint"
    )


def _close_all(running: list[grain.DatasetIterator]) -> None:
    while running:
        running.pop().close()


def _read_indices(part: _Part, first: int) -> grain.IterDataset:
    chunks = grain.MapDataset.range(first, _FOREVER).map(part.indices)
    # No threads: they would cost more than the slice of a permutation.
    return chunks.to_iter_dataset(grain.ReadOptions(num_threads=0))


def _read_views(part: _Part, num_workers: int, first: int) -> grain.IterDataset:
    chunks = grain.MapDataset.range(first, _FOREVER).map(part.cut)
    if num_workers == 0:
        threads = min(16, os.cpu_count() or 1)
        return chunks.to_iter_dataset(
            grain.ReadOptions(
                num_threads=threads,
                prefetch_buffer_size=max(2 * threads, part.chunks),
            )
        )
    if not flags.FLAGS.is_parsed():  # Grain's workers read absl's flags
        flags.FLAGS.mark_as_parsed()
    chunks = chunks.to_iter_dataset(grain.ReadOptions(num_threads=0))
    return chunks.mp_prefetch(
        grain.MultiprocessingOptions(num_workers=num_workers), start_worker
    )
