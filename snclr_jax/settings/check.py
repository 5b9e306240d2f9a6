"""The whole config is checked once, before anything is compiled or written."""

from __future__ import annotations

from snclr_jax.configs.base import EPOCHS
from snclr_jax.settings.embedded import EMBEDDED
from snclr_jax.settings.objective import build_objective
from snclr_jax.settings.ranges import check_fields, get_field
from snclr_jax.settings.resident import is_resident

# Statistics of BatchNorm over fewer images are noise.
LEAST_BATCH = 8
# Pixels of one drawing of each digit, times pictures: 1.2 GB, all drawn in memory.
_MOST_DIGIT_PIXELS = 2**18


def check_config(config, *, devices: int) -> None:
    """Raises ValueError naming the field, its value and the fix.

    Args:
      config: the run's config.
      devices: number of devices of the mesh.
    """
    check_fields(config)
    _check_data(config.data)
    _check_augment(config)
    _check_network(config)
    if config.batch_size < 2:
        raise ValueError("batch_size 1 has no negatives; use at least 2")
    objective = build_objective(config)
    objective.check(config, devices)
    if config.evaluate.network == "target" and not objective.target:
        raise ValueError(
            f"evaluate.network 'target': objective.name {config.objective.name!r} has "
            "no target network; use 'online'"
        )
    if config.batch_size % devices:
        raise ValueError(
            f"batch_size {config.batch_size} is not a multiple of the {devices} "
            f"devices; use {_next_multiple(config.batch_size, devices)}"
        )
    if config.optim.warmup_epochs >= config.epochs:
        raise ValueError(
            f"optim.warmup_epochs {config.optim.warmup_epochs:g} must be less than "
            f"epochs {config.epochs}: the rate rises, then falls"
        )
    if config.steps_per_call > config.log.every_steps:
        raise ValueError(
            f"steps_per_call {config.steps_per_call} is more than log.every_steps "
            f"{config.log.every_steps}, and metrics are written between two calls; use "
            f"at most {config.log.every_steps}"
        )
    _check_division(config, devices)


def check_against_data(config, images: int) -> None:
    """Raises ValueError where the config does not fit a training set of `images`."""
    if images < 2:
        raise ValueError(
            f"{images} training images are too few to learn from; add some"
        )
    if config.batch_size > images:
        raise ValueError(
            f"batch_size {config.batch_size} is larger than the training set of "
            f"{images} images; use at most {images}"
        )
    steps_per_epoch = images // config.batch_size
    warmups = (
        f"objective.{name}" for name in config.objective if name.endswith(EPOCHS)
    )
    for field in ("epochs", *warmups):
        epochs = get_field(config, field)
        if epochs * steps_per_epoch >= 2**31:
            raise ValueError(
                f"{field} {epochs:g} of {steps_per_epoch} steps are more steps than "
                f"are counted; use less than {2**31 // steps_per_epoch}"
            )
    if is_resident(config, images):
        return
    if config.steps_per_call > 1:
        raise ValueError(
            f"steps_per_call {config.steps_per_call}: images that do not stay on the "
            "device come one batch at a time; use 1, or data.resident=True where they "
            "fit"
        )
    if config.data.name == "python" and config.data.num_workers:
        raise ValueError(
            f"data.num_workers {config.data.num_workers}: images that are given in "
            "Python stay in its process; use 0, and they are cropped in threads"
        )


def notes(config, images: int) -> list[str]:
    """Returns what is worth knowing about a config that fits a set of `images`."""
    batch = config.batch_size
    notes = [
        f"peak learning rate {config.optim.learning_rate * batch / 256:.3g}: "
        f"optim.learning_rate {config.optim.learning_rate:g} x batch_size {batch} / 256"
    ]
    scope = config.model.bn_scope or batch
    if scope < LEAST_BATCH:
        notes.append(
            f"BatchNorm sees {scope} images at a time, and of fewer than {LEAST_BATCH} "
            "its statistics are noise; use a larger batch_size or model.bn_scope"
        )
    objective, local = build_objective(config), config.augment.local_views
    for field, never in objective.waits.items():
        if (value := config.objective[field]) >= config.epochs:
            notes.append(
                f"objective.{field} {value:g} is not before the end of {config.epochs} "
                f"epochs: {never}; lower it, or use more epochs"
            )
    if local or config.augment.global_views > 2:
        notes.append(_cost_of_views(config, objective.target))
    return notes + objective.notes(config, images)


def _cost_of_views(config, target: bool) -> str:
    views, local = config.augment.global_views, config.augment.local_views
    pixels = views * config.augment.size**2 + local * config.augment.local_size**2
    share = pixels / (2 * config.augment.size**2)
    cost = (
        f"{views} global views of {config.augment.size} pixels and {local} local ones "
        f"of {config.augment.local_size}: {share:.2f} times the pixels of two global "
        "views for the online network"
    )
    if not target:
        return cost
    pairs = views * (views + local - 1)
    return (
        f"{cost}, {views / 2:.2f} times for the target network; {pairs} pairs of "
        "prediction and target"
    )


def _check_data(data) -> None:
    if data.name not in EMBEDDED:
        return
    if data.path:
        raise ValueError(
            f"data.path {data.path!r} is not read where data.name is {data.name!r}, "
            "as in every debug variant; add --config.data.name=folder or tfds"
        )
    if data.pictures_per_digit * data.image_size**2 > _MOST_DIGIT_PIXELS:
        raise ValueError(
            f"data.pictures_per_digit {data.pictures_per_digit} at data.image_size "
            f"{data.image_size} do not fit into memory, where all digits are drawn; "
            f"use pictures_per_digit x image_size^2 of at most {_MOST_DIGIT_PIXELS}"
        )


def _check_network(config) -> None:
    patch, name = config.model.patch_size, config.model.name
    if name != "patchnet" and not name.startswith("vit"):
        return
    # Patchnet joins two by two patches.
    unit = 2 * patch if name == "patchnet" else patch
    for field in _view_sizes(config.augment):
        size = config.augment[field]
        if size % unit:
            raise ValueError(
                f"augment.{field} {size} is not a multiple of {unit}, which model.name "
                f"{name!r} needs at model.patch_size {patch}; use "
                f"{_next_multiple(size, unit)}"
            )


def _check_augment(config) -> None:
    augment = config.augment
    for size in _view_sizes(augment):
        if augment[size] > config.data.image_size:
            raise ValueError(
                f"augment.{size} {augment[size]} is larger than data.image_size "
                f"{config.data.image_size}; decode at least at the size of a view"
            )


def _view_sizes(augment) -> tuple[str, ...]:
    return ("size", "local_size") if augment.local_views else ("size",)


def _check_division(config, devices: int) -> None:
    """Checks what a batch is divided into: BatchNorm groups and micro-batches."""
    scope, micro_batches = config.model.bn_scope, config.accumulate
    if scope is not None and config.batch_size % scope:
        raise ValueError(
            f"model.bn_scope {scope} must divide batch_size "
            f"{config.batch_size}; None is the whole batch"
        )
    if config.batch_size % (devices * micro_batches):
        raise ValueError(
            f"accumulate {micro_batches} does not divide the "
            f"{config.batch_size // devices} images of each of {devices} devices; use "
            "a batch_size of "
            f"{_next_multiple(config.batch_size, devices * micro_batches)}"
        )
    own = config.batch_size // (devices * micro_batches)
    if micro_batches > 1 and (scope is None or own % scope):
        raise ValueError(
            f"accumulate {micro_batches} leaves {own} consecutive images of each "
            f"device to one micro-batch, and model.bn_scope is {scope}: BatchNorm "
            "statistics over images of several micro-batches would need every layer of "
            "all of them at once, so they cannot be kept; use a model.bn_scope that "
            f"divides {own}"
        )


def _next_multiple(value: int, of: int) -> int:
    return -(-value // of) * of
