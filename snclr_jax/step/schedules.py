"""What changes with the step besides the learning rate (which optax schedules)."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array


def ema_momentum(step: Array, *, base: float, total_steps: int) -> Array:
    """Returns the momentum of the target network, a cosine from `base` to 1.

        m_s = 1 - (1 - base) (cos(pi s / S) + 1) / 2          (BYOL, section 3.2)

    Args:
      step: () the step s, counted from 0.
      base: momentum of the first step, in [0, 1].
      total_steps: S.
    """
    progress = jnp.minimum(step / total_steps, 1.0)
    return 1.0 - (1.0 - base) * (jnp.cos(jnp.pi * progress) + 1.0) / 2.0


def linear_warmup(step: Array, *, peak: float, warmup_steps: int) -> Array:
    """Returns `peak` after rising linearly from 0 over the first `warmup_steps`.

    It is the neighbor weight's warm-up: early neighbors are close to random.
    """
    if warmup_steps == 0:
        return jnp.asarray(peak, jnp.float32)
    return peak * jnp.minimum(step / warmup_steps, 1.0)
