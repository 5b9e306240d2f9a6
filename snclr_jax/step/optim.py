"""Optimizers through optax, with the exclusions usual in self-supervised training.

Biases, norms and every other vector get neither weight decay nor LARS's trust scaling
(BYOL, section 3.2; MoCo v3, appendix A). The frozen patch embedding of a ViT is not
updated at all: its gradient is zero, but weight decay would still shrink it.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from snclr_jax.models.vit import STACKED

NAMES = ("lars", "adamw", "sgd")


def learning_rate(config, steps_per_epoch: int) -> optax.Schedule:
    """Returns the schedule: linear warm-up, then a cosine to 0.

    The peak is `optim.learning_rate` x batch / 256 (the linear scaling rule).

    Args:
      config: the run's config; reads `optim`, `batch_size` and `epochs`.
      steps_per_epoch: steps that one epoch takes.
    """
    total = config.epochs * steps_per_epoch
    warmup = min(round(config.optim.warmup_epochs * steps_per_epoch), total - 1)
    peak = config.optim.learning_rate * config.batch_size / 256
    return optax.warmup_cosine_decay_schedule(
        init_value=0.0, peak_value=peak, warmup_steps=warmup, decay_steps=total
    )


def ema_momentum(config, steps_per_epoch: int) -> optax.Schedule:
    """Returns the momentum of the target network, a cosine from m to m'.

        m_s = m' - (m' - m) (cos(pi s / S) + 1) / 2    (BYOL, section 3.2, with m' = 1)

    m is `ema.momentum`, and m' is `ema.final_momentum`; with m' = m it is constant.

    Args:
      config: the run's config; reads `ema` and `epochs`.
      steps_per_epoch: steps that one epoch takes.
    """
    total = config.epochs * steps_per_epoch
    first, final = config.ema.momentum, config.ema.final_momentum
    left = optax.cosine_decay_schedule(final - first, total)
    return lambda step: final - left(step)


def make_optimizer(config, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Returns the optimizer that `config.optim` names.

    Args:
      config: the run's config; reads `optim` and `model.freeze_patch_embed`.
      schedule: the learning rate by step.

    Raises:
      ValueError: for an unknown `optim.name`.
    """
    settings = config.optim
    decayed = None if settings.decay_all else _matrices
    match settings.name:
        case "adamw":
            transform = optax.adamw(
                schedule,
                b1=settings.beta1,
                b2=settings.beta2,
                weight_decay=settings.weight_decay,
                mask=decayed,
            )
        case "sgd":
            transform = optax.chain(
                optax.add_decayed_weights(settings.weight_decay, mask=decayed),
                optax.sgd(schedule, momentum=settings.momentum),
            )
        case "lars":
            transform = _lars(settings, schedule, decayed)
        case name:
            raise ValueError(f"optim.name {name!r} is unknown; use one of {NAMES}")
    if not config.model.freeze_patch_embed:
        return transform
    return optax.multi_transform(
        {"trained": transform, "frozen": optax.set_to_zero()}, _frozen_or_trained
    )


def _lars(
    settings, schedule: optax.Schedule, decayed
) -> optax.GradientTransformationExtraArgs:
    """Returns LARS: decay, the layers' trust ratios, momentum, then the learning rate.

    The rate stays outside the momentum, as in MoCo v3's and solo-learn's optimizers
    (You et al., 2017, have it inside, which differs wherever the rate changes).
    """
    if settings.trust_clip:
        ratio = _clipped_trust_ratio(settings.trust_coefficient, schedule)
    else:
        ratio = optax.stateless(
            functools.partial(_times_trust_ratio, settings.trust_coefficient)
        )
    return optax.chain(
        optax.add_decayed_weights(settings.weight_decay, mask=decayed),
        optax.masked(ratio, _matrices),
        optax.sgd(schedule, momentum=settings.momentum),
    )


def _clipped_trust_ratio(
    coefficient: float, schedule: optax.Schedule
) -> optax.GradientTransformation:
    """LARS that never exceeds the learning rate: scales by min(eta |p| / (|g| lr), 1).

    With the plain ratio eta |p| / |g| a layer whose gradient vanishes takes huge steps;
    the CIFAR recipes of solo-learn clip it ("LARC").
    """

    def update(updates, state, params=None):
        rate = jnp.maximum(schedule(state.count), jnp.finfo(jnp.float32).tiny)
        updates = _times_trust_ratio(coefficient / rate, updates, params, largest=1.0)
        count = optax.safe_increment(state.count)
        return updates, optax.ScaleByScheduleState(count)

    def init(params):
        del params
        return optax.ScaleByScheduleState(count=jnp.zeros((), jnp.int32))

    return optax.GradientTransformation(init, update)


def _times_trust_ratio(
    coefficient: jax.Array | float, updates: Any, params: Any, largest: float = jnp.inf
) -> Any:
    """Scales each layer's update g by eta |p| / |g| (You et al., 2017, equation 6).

    Where either norm is 0 the update stays as it is, and the ratio is `largest` at
    most.
    """

    def scale(path, update, param):
        axes = tuple(range(_is_stacked(path), param.ndim))
        norm, of_param = (
            jnp.sqrt(jnp.sum(leaf * leaf, axes, keepdims=True))
            for leaf in (update, param)
        )
        safe = jnp.where(norm > 0, norm, 1.0)
        ratio = jnp.minimum(coefficient * of_param / safe, largest)
        return update * jnp.where((norm > 0) & (of_param > 0), ratio, 1.0)

    return jax.tree.map_with_path(scale, updates, params)


def _matrices(params: Any) -> Any:
    """True for kernels; false for biases, norms, class tokens and other vectors."""

    def is_matrix(path, leaf):
        return sum(n > 1 for n in leaf.shape[_is_stacked(path) :]) > 1

    return jax.tree.map_with_path(is_matrix, params)


def _is_stacked(path: tuple[Any, ...]) -> bool:
    """Whether the first axis of the leaf at `path` counts layers (`model.scan`)."""
    return any(getattr(key, "key", None) == STACKED for key in path)


def _frozen_or_trained(params: Any) -> Any:
    def label(path, _):
        frozen = any(getattr(key, "key", None) == "patch_embed" for key in path)
        return "frozen" if frozen else "trained"

    return jax.tree.map_with_path(label, params)
