"""Multinomial logistic regression by L-BFGS."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.sharding import Mesh
from jax.typing import ArrayLike

from snclr_jax.devices.mesh import over_batch
from snclr_jax.evaluate.frozen.classifier import (
    TrainSet,
    Weights,
    objective,
    place_rows,
    zero_weights,
)
from snclr_jax.run.metrics import progress_bar

_GRADIENT_TOLERANCE = 1e-5  # of the mean loss; float32 reaches it, 1e-6 not always


def fit_strengths(
    train: TrainSet,
    layer: str,
    strengths: Sequence[float],
    rows: np.ndarray,
    *,
    max_steps: int,
    mesh: Mesh,
) -> tuple[Weights, int]:
    """Fits a classifier for each strength of the penalty, on the features of a layer.

    All n rows of the layer lie on the devices, an equal part on each.

    Args:
      train: the features.
      layer: whose.
      strengths: "g" of them; each fit starts where the one before it ended, which is
        near if that one was a little stronger.
      rows: int "m", those to fit to.
      max_steps: of each fit, >= 1.
      mesh: the devices.

    Returns:
      Kernel "g c f" and bias "g c", and the number of steps of the last fit.
    """
    features = train.features[layer]
    count, width = features.shape
    whole = np.arange(-(-count // mesh.size) * mesh.size)
    counted = np.isin(whole, rows)
    over_rows = over_batch(mesh)
    placed = (
        _standardize(
            place_rows(features, whole % count, over_rows), train.scaling[layer]
        ),
        place_rows(train.labels, whole % count, over_rows),
        place_rows(counted, whole, over_rows),
    )
    weights, fits, steps = zero_weights((train.num_classes, width), mesh), [], 0
    for l2 in progress_bar(strengths, desc=f"L-BFGS, {layer}", unit="fit"):
        weights, steps = fit_logistic(weights, *placed, l2, max_steps=max_steps)
        fits.append(jax.block_until_ready(weights))
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *fits), int(steps)


_standardize = jax.jit(lambda features, scaling: scaling(features), donate_argnums=0)


@partial(jax.jit, static_argnames="max_steps")
def fit_logistic(
    weights: Weights,
    features: Array,
    labels: Array,
    counted: Array,
    l2: ArrayLike,
    *,
    max_steps: int,
) -> tuple[Weights, Array]:
    """Minimizes the `objective` over the counted rows, from `weights` on.

    A mask, rather than a part of the rows, spares a copy of the features and lets all
    fits share one compiled program.

    Args:
      weights: to start from.
      features: "n f".
      labels: int "n".
      counted: bool "n", the rows to fit to.
      l2: strength of the penalty, > 0.
      max_steps: at most so many steps, >= 1.

    Returns:
      The weights and the number of steps; `max_steps` means that the gradient's norm
      had not come down to 1e-5.
    """

    def value(weights: Weights) -> Array:
        return objective(weights, features, labels, counted, l2)

    optimizer = optax.lbfgs()
    # The line search has computed the next value and gradient already.
    value_and_gradient = optax.value_and_grad_from_state(value)

    def unfinished(carry: tuple) -> Array:
        _, _, step, gradient_norm = carry
        return (step < max_steps) & (gradient_norm > _GRADIENT_TOLERANCE)

    def descend(carry: tuple) -> tuple:
        weights, state, step, _ = carry
        now, gradient = value_and_gradient(weights, state=state)
        updates, state = optimizer.update(
            gradient, state, weights, value=now, grad=gradient, value_fn=value
        )
        weights = optax.apply_updates(weights, updates)
        return weights, state, step + 1, optax.tree.norm(gradient)

    start: Any = (weights, optimizer.init(weights), 0, jnp.inf)
    weights, _, steps, _ = jax.lax.while_loop(unfinished, descend, start)
    return weights, steps
