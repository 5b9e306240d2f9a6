"""SNCLR's positiveness and loss in their plain, gathered form.

One call is one direction: the predictions of one view against the targets of the other.
These functions are the definition and the oracle of `snclr_fused.py`, which computes
the same on a sharded queue without gathering b x K x d numbers.

All rows (predictions, targets, neighbors) are unit vectors; nothing here normalizes.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

FORMS = ("paper", "soft_cross_entropy")


def positiveness(
    anchor: Array,
    neighbor_keys: Array,
    *,
    valid: Array | None = None,
    temperature: float = 1.0,
    gamma: float = 1.0,
    threshold: float | None = None,
) -> Array:
    """Returns the positiveness w_ik of each neighbor: how positive is it? (section 3.2)

        w_ik = softmax_k( f1(y_i) . f2(c_ik) / temperature ) / gamma

    Linear attention is folded into the anchor: the caller passes W2^T W1 y_i, so the
    neighbors enter unchanged. The positive itself has w_i0 = 1 and is not listed.

    Args:
      anchor: (b, d), the online projection y (cosine) or W2^T W1 y (linear attention).
      neighbor_keys: (b, k, d), the unit queue rows of T_i.
      valid: (b, k) bool; a missing neighbor has weight 0. None: all are there.
      temperature: softmax temperature, > 0.
      gamma: divisor of the weights, > 0.
      threshold: softmax weights at or below this are set to 0 and the rest is not
        renormalized; the authors' code offers 1 / K. None keeps all.

    Returns:
      (b, k) weights >= 0; rows without any neighbor are 0.

    Raises:
      ValueError: for a temperature or gamma that is not positive.

    Example:
      >>> anchor = jnp.array([[1.0, 0.0]])
      >>> keys = jnp.array([[[1.0, 0.0], [0.0, 1.0]]])
      >>> [f"{weight:.3f}" for weight in positiveness(anchor, keys)[0]]
      ['0.731', '0.269']
    """
    logits = jnp.einsum(
        "bd,bkd->bk", anchor, neighbor_keys, precision=jax.lax.Precision.HIGHEST
    )
    return positiveness_of_logits(
        logits,
        valid=valid,
        temperature=temperature,
        gamma=gamma,
        threshold=threshold,
    )


def positiveness_of_logits(
    logits: Array,
    *,
    valid: Array | None,
    temperature: float,
    gamma: float,
    threshold: float | None,
    axis_name: str | None = None,
) -> Array:
    """Returns `positiveness` from the (..., b, k) products f1(y_i) . f2(c_ik).

    With `axis_name`, the neighbors of an image are spread over the devices of that mesh
    axis: each passes its own, `valid`, and gets their weights.
    """
    if temperature <= 0:
        raise ValueError(f"objective.attention.temperature {temperature} must be > 0")
    if gamma <= 0:
        raise ValueError(f"objective.attention.gamma {gamma} must be > 0")
    if logits.shape[-1] == 0:
        return logits
    if valid is None:
        valid = jnp.ones(logits.shape, bool)
    # A row without neighbors would be a softmax over nothing: NaN, also in gradients.
    logits = jnp.where(valid, logits / temperature, -jnp.inf)
    top = _max(logits, axis_name)[..., None]
    exponential = jnp.exp(logits - jnp.where(jnp.isfinite(top), top, 0.0))
    total = _sum(exponential, axis_name)[..., None]
    weights = exponential / jnp.where(total > 0, total, 1.0)
    if threshold is not None:
        weights = jnp.where(weights > threshold, weights, 0.0)
    return weights / gamma


def soft_neighbor_loss(
    prediction: Array,
    target: Array,
    neighbor_keys: Array,
    weights: Array,
    *,
    temperature: float,
    form: str = "paper",
    valid: Array | None = None,
    decoupled: bool = False,
) -> Array:
    """Returns the soft-neighbor contrastive loss of one direction (eq. 3 and 4).

        s_i0 = z_i . t_i / tau,   s_ik = z_i . c_ik / tau,   w_i0 = 1
        D_i  = sum_j [ exp(z_i . t_j / tau) + sum_k exp(z_i . c_jk / tau) ]

        form="paper"               L_i = log D_i - log sum_k w_ik exp(s_ik)
        form="soft_cross_entropy"  L_i = sum_k w_ik (log D_i - s_ik)

    The first form is satisfied by one good neighbor, the second pulls every one. The
    authors' code is the second form, times 2 tau, which `objective.scale` holds.

    Args:
      prediction: (b, d) unit rows z, predictions of one view.
      target: (b, d) unit rows t, target projections of the other view; no gradient.
      neighbor_keys: (b, k, d) unit rows; k = 0 makes both forms InfoNCE.
      weights: (b, k) positiveness; one below the smallest normal number counts as 0.
      temperature: tau > 0.
      form: "paper" or "soft_cross_entropy".
      valid: (b, k) bool; a missing neighbor is left out of w, numerator and D.
      decoupled: leave image i's own candidates (target and neighbors) out of D_i.

    Returns:
      () the mean of L_i over the global batch.

    Raises:
      ValueError: for an unknown form, a temperature that is not positive, or decoupled
        with a batch of one (D_i would be empty).
    """
    check_loss(form, temperature, decoupled, prediction.shape[0])
    if valid is None:
        valid = jnp.ones(weights.shape, bool)
    batch, k = weights.shape
    precision = jax.lax.Precision.HIGHEST
    target_logits = jnp.einsum("id,jd->ij", prediction, target, precision=precision)
    neighbor_logits = jnp.einsum(
        "id,jkd->ijk", prediction, neighbor_keys, precision=precision
    )
    target_logits = target_logits / temperature
    neighbor_logits = neighbor_logits / temperature

    image = jnp.arange(batch)
    own = target_logits[image, image]
    own_neighbors = neighbor_logits[image, image]

    in_denominator = jnp.broadcast_to(valid, (batch, batch, k))
    target_in_denominator = jnp.ones((batch, batch), bool)
    if decoupled:
        other = ~jnp.eye(batch, dtype=bool)
        in_denominator = in_denominator & other[:, :, None]
        target_in_denominator = other
    candidates = jnp.concatenate(
        [
            jnp.where(target_in_denominator, target_logits, -jnp.inf),
            jnp.where(in_denominator, neighbor_logits, -jnp.inf).reshape(batch, -1),
        ],
        axis=1,
    )
    log_denominator = jax.nn.logsumexp(candidates, axis=1)
    return jnp.mean(
        combine(log_denominator, own, own_neighbors, weights, valid, form=form)
    )


def info_nce(prediction: Array, target: Array, *, temperature: float) -> Array:
    """Returns InfoNCE, the loss without neighbors (MoCo v3, eq. 1 without 2 tau).

        L_i = log sum_j exp(z_i . t_j / tau) - z_i . t_i / tau

    Args:
      prediction: (b, d) unit rows z.
      target: (b, d) unit rows t.
      temperature: tau > 0.

    Returns:
      () the mean over the batch.
    """
    batch, dim = prediction.shape
    return soft_neighbor_loss(
        prediction,
        target,
        jnp.zeros((batch, 0, dim), prediction.dtype),
        jnp.zeros((batch, 0), prediction.dtype),
        temperature=temperature,
    )


def combine(
    log_denominator: Array,
    own: Array,
    own_neighbors: Array,
    weights: Array,
    valid: Array,
    *,
    form: str,
    axis_name: str | None = None,
) -> Array:
    """Returns (..., b) L_i from log D_i, s_i0 (..., b), s_ik and w_ik (..., b, k).

    With `axis_name`, the neighbors of an image are spread over the devices of that mesh
    axis; the other arguments and the result are the same on all of them.
    """
    if form == "soft_cross_entropy":
        pulled = jnp.where(valid, log_denominator[..., None] - own_neighbors, 0.0)
        return log_denominator - own + _sum(weights * pulled, axis_name)
    # The numerator has its own maximum, of all that it sums, weights included: shifted
    # by the denominator's, or by a neighbor whose weight vanishes, it could underflow
    # as a whole. A vanishing weight (a subnormal one has no inverse) is left out, so
    # that no gradient passes through its logarithm.
    counts = valid & (weights >= jnp.finfo(weights.dtype).tiny)
    weighted = jnp.where(
        counts, own_neighbors + jnp.log(jnp.where(counts, weights, 1.0)), -jnp.inf
    )
    top = jnp.maximum(jax.lax.stop_gradient(own), _max(weighted, axis_name))
    numerator = jnp.exp(own - top) + _sum(jnp.exp(weighted - top[..., None]), axis_name)
    return log_denominator - top - jnp.log(numerator)


def _sum(values: Array, axis_name: str | None) -> Array:
    """The sum over an image's neighbors, (..., b, k) -> (..., b)."""
    total = jnp.sum(values, axis=-1)
    return total if axis_name is None else jax.lax.psum(total, axis_name)


def _max(values: Array, axis_name: str | None) -> Array:
    """The maximum over an image's neighbors, without gradient: a shift of exponents."""
    top = jax.lax.stop_gradient(jnp.max(values, axis=-1, initial=-jnp.inf))
    return top if axis_name is None else jax.lax.pmax(top, axis_name)


def check_loss(form: str, temperature: float, decoupled: bool, batch: int) -> None:
    """Raises ValueError for settings that no loss is defined for."""
    if form not in FORMS:
        raise ValueError(f"objective.form {form!r} is unknown; use one of {FORMS}")
    if temperature <= 0:
        raise ValueError(f"objective.temperature {temperature} must be > 0")
    if decoupled and batch < 2:
        raise ValueError(
            "objective.decoupled=True leaves nothing in the denominator of a batch of "
            "1; use a batch of at least 2"
        )
