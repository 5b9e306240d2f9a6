"""The whole config is checked once, before anything is compiled or written."""

from __future__ import annotations

import math

from snclr_jax.losses import FORMS

_CHOICES = {
    "data.name": ("digits", "folder", "tfds"),
    "model.dtype": ("float32", "bfloat16", "float64"),
    "queue.dtype": ("float32", "bfloat16", "float64"),
    "queue.search": ("exact", "approx"),
    "queue.push": ("second", "both"),
    "attention.kind": ("cosine", "linear"),
    "loss.form": FORMS,
    "optim.name": ("lars", "adamw", "sgd"),
    "evaluate.network": ("online", "target"),
}
_AT_LEAST_ONE = (
    "batch_size",
    "accumulate",
    "epochs",
    "data.image_size",
    "data.pictures_per_digit",
    "augment.size",
    "augment.local_size",
    "model.patch_size",
    "model.embedding_dim",
    "queue.banks",
    "queue.block",
    "log.every_steps",
    "checkpoint.every_steps",
    "checkpoint.keep",
    "evaluate.k",
    "evaluate.train_images",
    "evaluate.batch_size",
)
_POSITIVE = (
    "queue.recall",
    "attention.temperature",
    "attention.gamma",
    "loss.temperature",
    "loss.scale",
    "optim.learning_rate",
    "evaluate.temperature",
)
_NOT_NEGATIVE = (
    "seed",
    "data.holdback",
    "data.num_workers",
    "augment.local_views",
    "queue.size",
    "queue.k",
    "loss.neighbor_weight",
    "loss.neighbor_warmup_epochs",
    "optim.warmup_epochs",
    "optim.weight_decay",
    "optim.trust_coefficient",
    "evaluate.every_epochs",
)
_SHARES = (
    "queue.recall",
    "ema.momentum",
    "model.drop_path",
    "optim.momentum",
    "optim.beta1",
    "optim.beta2",
)
_VIEW_SHARES = ("flip", "jitter", "grayscale", "blur", "solarize")
_VIEW_STRENGTHS = ("brightness", "contrast", "saturation", "hue")


def check_config(config, *, devices: int) -> None:
    """Raises ValueError naming the field, its value and the fix.

    Args:
      config: the run's config.
      devices: number of devices of the mesh.
    """
    _check_values(config)
    _check_augment(config)
    _check_queue(config, devices)
    if config.batch_size % devices:
        raise ValueError(
            f"batch_size {config.batch_size} is not a multiple of the {devices} "
            f"devices; use {_next_multiple(config.batch_size, devices)}"
        )
    if config.data.name == "digits" and config.data.path:
        raise ValueError(
            f"data.path {config.data.path!r} is not read where data.name is 'digits', "
            "as in every debug variant; add --config.data.name=folder or tfds"
        )
    if config.optim.warmup_epochs >= config.epochs:
        raise ValueError(
            f"optim.warmup_epochs {config.optim.warmup_epochs:g} must be less than "
            f"epochs {config.epochs}: the rate rises, then falls"
        )
    if config.seed >= 2**32:
        raise ValueError(f"seed {config.seed} must be below 2**32")
    if config.batch_size < 2:
        raise ValueError("batch_size 1 has no negatives; use at least 2")
    _check_parts(config, devices)


def check_against_data(config, images: int) -> None:
    """Raises ValueError where the config does not fit a training set of `images`."""
    if config.batch_size > images:
        raise ValueError(
            f"batch_size {config.batch_size} is larger than the training set of "
            f"{images} images; use at most {images}"
        )


def notes(config, images: int) -> list[str]:
    """Returns what is worth knowing about a config that fits a set of `images`."""
    size, batch = config.queue.size, config.batch_size
    found = [
        f"peak learning rate {config.optim.learning_rate * batch / 256:.3g}: "
        f"optim.learning_rate {config.optim.learning_rate:g} x batch_size {batch} / 256"
    ]
    local = config.augment.local_views
    if local or config.augment.global_views > 2:
        found.append(_cost_of_views(config))
    if config.queue.k and size > images:
        found.append(
            f"queue.size {size} is {size / images:.1f} times the training set of "
            f"{images} images: it holds every image, and neighbors repeat one another; "
            f"{images // 2} rows would be half the set"
        )
    if config.queue.k and size < 10 * batch:
        found.append(
            f"queue.size {size} is {size / batch:.1f} batches: all neighbors come from "
            "the last steps; ten batches or more offer a choice"
        )
    return found


def _cost_of_views(config) -> str:
    views, local = config.augment.global_views, config.augment.local_views
    pixels = views * config.augment.size**2 + local * config.augment.local_size**2
    share = pixels / (2 * config.augment.size**2)
    return (
        f"{views} global views of {config.augment.size} pixels and {local} local ones "
        f"of {config.augment.local_size}: {views * (views + local - 1)} pairs of "
        f"prediction and target, {share:.2f} times the pixels of two global views for "
        f"the online network, {views / 2:.2f} times for the target network"
    )


def get_field(config, field: str):
    """Returns the value at a dotted path."""
    for name in field.split("."):
        config = config[name]
    return config


def _check_values(config) -> None:
    for field, choices in _CHOICES.items():
        if get_field(config, field) not in choices:
            raise ValueError(
                f"{field} {get_field(config, field)!r} is unknown; use one of {choices}"
            )
    rules = (
        (_AT_LEAST_ONE, lambda value: value >= 1, "at least 1"),
        (_POSITIVE, lambda value: value > 0, "greater than 0"),
        (_NOT_NEGATIVE, lambda value: value >= 0, "0 or more"),
        (_SHARES, lambda value: 0 <= value <= 1, "between 0 and 1"),
    )
    for fields, holds, rule in rules:
        for field in fields:
            if not holds(get_field(config, field)):
                raise ValueError(f"{field} {get_field(config, field)} must be {rule}")


def _check_augment(config) -> None:
    augment = config.augment
    for name in ("view1", "view2", "local"):
        _check_view(f"augment.{name}", augment[name])
    if augment.global_views < 2:
        raise ValueError(
            f"augment.global_views {augment.global_views} must be at least 2: a view "
            "predicts the target of another one"
        )
    sizes = ("size", "local_size") if augment.local_views else ("size",)
    for size in sizes:
        if augment[size] > config.data.image_size:
            raise ValueError(
                f"augment.{size} {augment[size]} is larger than data.image_size "
                f"{config.data.image_size}; decode at least at the size of a view"
            )


def _check_parts(config, devices: int) -> None:
    """Checks the parts that a batch is cut into: BatchNorm groups and accumulation."""
    scope, parts = config.model.bn_scope, config.accumulate
    if scope is not None and (scope < 2 or config.batch_size % scope):
        raise ValueError(
            f"model.bn_scope {scope} must be at least 2 and divide batch_size "
            f"{config.batch_size}; None is the whole batch"
        )
    if config.batch_size % (devices * parts):
        raise ValueError(
            f"accumulate {parts} does not divide the {config.batch_size // devices} "
            f"images of each of {devices} devices; use a batch_size of "
            f"{_next_multiple(config.batch_size, devices * parts)}"
        )
    own = config.batch_size // (devices * parts)
    if parts > 1 and (scope is None or own % scope):
        raise ValueError(
            f"accumulate {parts} leaves {own} consecutive images of each device to one "
            f"pass, and model.bn_scope is {scope}: BatchNorm statistics over images of "
            "several passes would need every layer of all of them at once, so they "
            f"cannot be kept; use a model.bn_scope that divides {own}"
        )


def _check_view(name: str, view) -> None:
    for field in _VIEW_SHARES:
        if not 0 <= view[field] <= 1:
            raise ValueError(f"{name}.{field} {view[field]} must be between 0 and 1")
    for field in _VIEW_STRENGTHS:
        if view[field] < 0:
            raise ValueError(f"{name}.{field} {view[field]} must be 0 or more")
    if view.hue > 0.5:
        raise ValueError(f"{name}.hue {view.hue} must be at most 0.5, half a turn")
    for field, largest in (
        ("crop_scale", 1.0),
        ("crop_ratio", float("inf")),
        ("blur_sigma", float("inf")),
    ):
        low, high = view[field]
        if not 0 < low <= high <= largest:
            raise ValueError(
                f"{name}.{field} {(low, high)} must be an increasing pair above 0"
                + (f" and at most {largest:g}" if largest == 1.0 else "")
            )


def _check_queue(config, devices: int) -> None:
    queue = config.queue
    unit = math.lcm(devices, queue.banks)
    if queue.size % unit:
        raise ValueError(
            f"queue.size {queue.size} is not a multiple of {devices} devices and "
            f"{queue.banks} queue.banks; use {_next_multiple(queue.size, unit)}"
        )
    if queue.dtype == "float64" and config.model.dtype != "float64":
        raise ValueError(
            "queue.dtype 'float64' needs model.dtype='float64'; use 'float32'"
        )
    if config.batch_size % queue.banks:
        raise ValueError(
            f"batch_size {config.batch_size} is not a multiple of queue.banks "
            f"{queue.banks}; use {_next_multiple(config.batch_size, queue.banks)}"
        )
    if queue.k > queue.size // queue.banks:
        raise ValueError(
            f"queue.size {queue.size} in {queue.banks} queue.banks never holds "
            f"queue.k={queue.k} neighbors for an image; use a larger queue or a "
            "smaller k"
        )


def _next_multiple(value: int, of: int) -> int:
    return -(-value // of) * of
