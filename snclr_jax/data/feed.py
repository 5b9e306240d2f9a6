"""Training batches, placed on the devices."""

from __future__ import annotations

import jax
from jax.sharding import Mesh

from snclr_jax.data.pipeline import train_batches
from snclr_jax.data.split import Split
from snclr_jax.partition import place_batch, place_everywhere
from snclr_jax.train_step import Batch

# A decoded set up to this size is kept whole on every device.
RESIDENT_BYTES = 2 * 2**30


def is_resident(config, images: int) -> bool:
    """Whether a training set of this many images stays on the device."""
    if config.data.resident is not None:
        return config.data.resident
    return images * config.data.image_size**2 * 3 <= RESIDENT_BYTES


class Feed:
    """The global batches of a run.

    A small set is decoded once and stays on every device, and batches are indices into
    it; of a large one, each process decodes its own rows of every batch.

    Args:
      config: reads `data`, `batch_size` and `seed`. `data.resident` decides where the
        images live; None keeps sets up to `RESIDENT_BYTES` on the device.
      split: the training images.
      mesh: the devices.

    Attributes:
      batches: the Grain iterator, for checkpoints.
    """

    def __init__(self, config, split: Split, mesh: Mesh) -> None:
        resident = is_resident(config, split.size)
        self.batches = train_batches(
            split,
            batch_size=config.batch_size,
            seed=config.seed,
            num_workers=config.data.num_workers,
            resident=resident,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        self._mesh = mesh
        # Labels feed one metric; reading them from a large TFDS set would take longer.
        known = split.labelled and (resident or config.data.name != "tfds")
        self._constant = Batch(
            image_id=None,
            resident=place_everywhere(split.images(), mesh) if resident else None,
            labels=place_everywhere(split.labels, mesh) if known else None,
        )

    def next(self) -> Batch:
        """Returns the next global batch."""
        rows = next(self.batches)
        images = rows.get("image")
        return self._constant.replace(
            image_id=place_batch(rows["index"], self._mesh),
            images=None if images is None else place_batch(images, self._mesh),
        )
