"""The order of the data: one Grain pipeline for every image set.

The order is a function of (seed, epoch) alone. Process p of P reads rows
[p b / P, (p + 1) b / P) of every global batch of b images.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterator

import grain
import numpy as np
from absl import flags

from snclr_jax.data.split import Split

_FOREVER = 2**62  # steps; Grain wants a length

Indices = Callable[[int], dict[str, np.ndarray]]  # step -> this process's batch


def train_batches(
    split: Split,
    *,
    batch_size: int,
    seed: int,
    num_workers: int,
    resident: bool,
    process_index: int = 0,
    process_count: int = 1,
) -> TrainBatches:
    """Endless training batches; each epoch is a new permutation of the split.

    An epoch has floor(n / b) batches: the rest of its permutation is dropped.

    Args:
      split: n images.
      batch_size: global batch size b, over all processes.
      seed: of the order, 0 to 2^32 - 1.
      num_workers: processes that decode images; 0 decodes in this one, with threads.
      resident: the images already live on the device, so only indices are produced.
      process_index: p, this process.
      process_count: P.

    Returns:
      A Grain iterator over {"index": int32 (b / P,)} and, unless resident,
      {"image": uint8 (b / P, s, s, 3)}. Its state is the number of batches produced:
      it may be restored with any number of workers or processes.

    Raises:
      ValueError: where b does not fit the split or the processes.
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
    indices = functools.partial(
        _batch_indices,
        size=split.size,
        batch_size=batch_size,
        seed=seed,
        rows=slice(process_index * per_process, (process_index + 1) * per_process),
    )
    if resident:
        return TrainBatches(functools.partial(_resident, indices))
    return TrainBatches(functools.partial(_decoded, split, indices, num_workers))


def eval_batches(split: Split, batch_size: int) -> Iterator[np.ndarray]:
    """The images in order, uint8 (b, s, s, 3); the last batch may be shorter."""
    for start in range(0, split.size, batch_size):
        yield split.read(range(start, min(start + batch_size, split.size)))


@functools.lru_cache(maxsize=2)  # threads at both sides of an epoch's end
def epoch_order(size: int, seed: int, epoch: int) -> np.ndarray:
    """The permutation of [0, size) that epoch `epoch` follows, int32 (size,)."""
    # RandomState's stream is frozen (NEP 19); Generator's may change with numpy.
    order = np.random.RandomState([seed, epoch]).permutation(size).astype(np.int32)
    order.flags.writeable = False
    return order


class TrainBatches(grain.DatasetIterator):
    """A Grain iterator whose whole state is the step.

    Grain's own state of a pipeline with workers holds one position per worker, and is
    lost when their number changes.

    Args:
      pipeline: first step -> iterable over the batches from there on.
    """

    def __init__(self, pipeline: Callable[[int], grain.IterDataset]) -> None:
        super().__init__()
        self._pipeline = pipeline
        self._running: list[grain.DatasetIterator] = []  # at most one
        self._step = 0
        # Also runs at exit: workers still running then would bury the last error.
        weakref.finalize(self, _close_all, self._running)

    def __next__(self) -> dict[str, np.ndarray]:
        if not self._running:
            self._running.append(iter(self._pipeline(self._step)))
        batch = next(self._running[0])
        self._step += 1
        # Workers hand over shared memory, which whoever kept it would never free.
        return {name: np.array(array) for name, array in batch.items()}

    def get_state(self) -> dict[str, int]:
        return {"step": self._step}

    def set_state(self, state: dict[str, int]) -> None:
        self.close()
        self._step = int(state["step"])

    def close(self) -> None:
        """Stops the workers; the next batch starts them again."""
        _close_all(self._running)


def _close_all(running: list[grain.DatasetIterator]) -> None:
    while running:
        running.pop().close()


def _batch_indices(
    step: int, *, size: int, batch_size: int, seed: int, rows: slice
) -> dict[str, np.ndarray]:
    epoch, batch = divmod(step, size // batch_size)
    order = epoch_order(size, seed, epoch)
    return {"index": order[batch * batch_size : (batch + 1) * batch_size][rows]}


def _read_images(split: Split, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return batch | {"image": split.read(batch["index"])}


def _resident(indices: Indices, first: int) -> grain.IterDataset:
    steps = grain.MapDataset.range(first, _FOREVER).map(indices)
    # No threads: they would cost more than the slice of a permutation.
    return steps.to_iter_dataset(grain.ReadOptions(num_threads=0))


def _decoded(
    split: Split, indices: Indices, num_workers: int, first: int
) -> grain.IterDataset:
    steps = grain.MapDataset.range(first, _FOREVER).map(indices)
    steps = steps.map(functools.partial(_read_images, split))
    # A step is a whole batch, so few are kept: the threads are inside `split.read`.
    batches = steps.to_iter_dataset(
        grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
    )
    if num_workers == 0:
        return batches
    if not flags.FLAGS.is_parsed():  # Grain's workers read absl's flags
        flags.FLAGS.mark_as_parsed()
    return batches.mp_prefetch(grain.MultiprocessingOptions(num_workers=num_workers))
