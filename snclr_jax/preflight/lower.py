"""Compiling the training step of a config without data, weights or the devices."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from snclr_jax.data import open_data
from snclr_jax.devices.mesh import over_batch, replicated
from snclr_jax.settings.resident import is_resident
from snclr_jax.settings.training import build_training
from snclr_jax.step.augment import view_settings
from snclr_jax.step.channels import channels_of
from snclr_jax.step.state import TrainState, train_state_shapes
from snclr_jax.step.views import Batch

# Training images of TFDS sets (tensorflow.org/datasets/catalog), for where the set
# itself is not prepared.
TRAIN_IMAGES = {"imagenet2012": 1_281_167, "cifar10": 50_000, "cifar100": 50_000}


def number_of_images(config, images: int | None) -> int:
    """Returns the size of the training set: as given, as prepared, or as known.

    Args:
      config: a checked config; reads `data`.
      images: the number, or None.

    Raises:
      ValueError: where none of the three is there.
    """
    if images is not None:
        return images
    try:
        data = open_data(config.data)
        for note in data.notes:
            print(note)
        return data.train.size
    except ValueError as error:
        name = config.data.tfds_name.partition(":")[0]
        known = config.data.name == "tfds" and config.data.train_split == "train"
        if known and name in TRAIN_IMAGES:
            print(f"{error}\nthe published number of images of {name} is taken")
            return TRAIN_IMAGES[name] - config.data.holdback
        raise ValueError(
            f"{error}; or give the number of training images: --images=N"
        ) from error


def compile_step(config, mesh: Mesh, *, images: int) -> jax.stages.Compiled:
    """Compiles the step that `train` runs, for the devices of the mesh.

    Args:
      config: a checked config.
      mesh: devices that are there, or those of a slice that is not.
      images: size of the training set.
    """
    step, arguments = _step(config, mesh, images)
    return step.lower(*arguments).compile()


def held_bytes(config, mesh: Mesh, *, images: int) -> dict[str, int]:
    """Returns the bytes on a device of the batch and of each part of the state.

    Args:
      config, mesh, images: as in `compile_step`.
    """
    _, (state, batch) = _step(config, mesh, images)
    held = {"batch": _bytes(batch)}
    for field in dataclasses.fields(state):
        held[f"state.{field.name}"] = _bytes(getattr(state, field.name))
    return held


def _bytes(shapes: Any) -> int:
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(shapes)
    )


def _step(
    config, mesh: Mesh, images: int
) -> tuple[jax.stages.Wrapped, tuple[TrainState, Batch]]:
    """Returns the step, and the shapes that it takes."""
    model, objective, optimizer, step, _ = build_training(config, mesh, images=images)
    state = train_state_shapes(model, objective, optimizer, config, mesh)
    batch = _abstract_batch(config, mesh, images)
    return step, (state, batch)


def _abstract_batch(config, mesh: Mesh, images: int) -> Batch:
    """The batch that `Feed` makes, of shapes; labels of large folders are left out."""

    # Any, since shapes stand for the arrays of a `Batch`.
    def rows(shape: tuple[int, ...], dtype, sharding) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    split, whole = over_batch(mesh), replicated(mesh)
    channels = channels_of(config.data)
    image_id = rows((config.batch_size,), jnp.int32, split)
    if not is_resident(config, images):
        views = tuple(
            rows((config.batch_size, size, size, channels), jnp.uint8, split)
            for size, _ in view_settings(config.augment)
        )
        return Batch(image_id, views=views)
    side = config.data.image_size
    return Batch(
        image_id,
        resident=rows((images, side, side, channels), jnp.uint8, whole),
        labels=rows((images,), jnp.int32, whole),
    )
