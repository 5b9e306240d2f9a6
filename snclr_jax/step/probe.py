"""A linear classifier that reads the encoder while it is pretrained, and moves nothing.

It says within minutes what kNN and linear evaluation say at the end of a run: whether
classes are becoming linearly separable. Labels feed its weights and its two metrics
alone; the gradient of its loss never reaches the encoder.
"""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from snclr_jax.step.views import Batch

# Rows have a mean square length of 1, so the curvature of the cross-entropy is at most
# (1 + 1) / 2, the bias included (Böhning, 1992), and descent with momentum 0.9 is
# stable up to a rate of 3.8, whatever the network.
RATE = 1.0
MOMENTUM = 0.9
_SGD = optax.sgd(RATE, momentum=MOMENTUM)


class Probe(flax.struct.PyTreeNode):
    """The classifier and its optimizer.

    Attributes:
      weights: "kernel" (f, classes) and "bias" (classes,).
      opt_state: momentum of SGD.
    """

    weights: dict[str, Array]
    opt_state: optax.OptState


def init_probe(features: int, classes: int, dtype: jnp.dtype) -> Probe:
    """Returns a classifier of zeros, which finds every class equally likely.

    Args:
      features: f, of the encoder.
      classes: their number.
      dtype: of the weights, at least float32.
    """
    weights = {
        "kernel": jnp.zeros((features, classes), dtype),
        "bias": jnp.zeros((classes,), dtype),
    }
    return Probe(weights, _SGD.init(weights))


def count_classes(labels: np.ndarray | None) -> int:
    """Returns the number of classes that a probe of these training labels needs.

    Args:
      labels: int (n,) of the training set, below 0 where unknown, or None.

    Raises:
      ValueError: where no image has a label.

    Example:
      >>> count_classes(np.array([2, 0, -1]))
      3
    """
    if labels is None or labels.max(initial=-1) < 0:
        raise ValueError(
            "evaluate.online_probe True needs labels, and no training image has one; "
            "use evaluate.online_probe=False"
        )
    return 1 + int(labels.max())


def probe_logits(weights: dict[str, Array], feature: Array) -> Array:
    """Returns W^T x + b (b, classes) of a batch's features h (b, f).

        x_i = (h_i - mean h) / std h / sqrt(f)

    with mean and deviation of every feature over the batch, as a BatchNorm without
    scale and bias would (He et al., 2022, "Masked Autoencoders", appendix A.1, linear
    probing).
    """
    x = jax.lax.stop_gradient(feature)
    x = (x - jnp.mean(x, axis=0)) / (jnp.std(x, axis=0) + 1e-6) / jnp.sqrt(x.shape[1])
    return x @ weights["kernel"] + weights["bias"]


@jax.named_scope("online_probe")
def update_probe(
    probe: Probe | None, feature: Array, batch: Batch
) -> tuple[Probe | None, dict[str, Array]]:
    """Scores the classifier on a batch, then trains it on the batch by one SGD step.

        minimize  mean_i CE(softmax(W^T x_i + b), label_i),   see `probe_logits`

    Images whose label is below 0 have weight 0.

    Args:
      probe: the classifier; None does nothing.
      feature: (b, f) features h of one random view, as in training: the metrics are of
        augmented training images, a few points below those of whole images.
      batch: reads `image_id` and `labels`.

    Returns:
      The trained classifier, and `probe_loss` and `probe_accuracy` (percent) of the one
      before this step, which has not seen these views. No metrics without a probe.

    Raises:
      ValueError: where there is a probe and the batch has no labels.
    """
    if probe is None:
        return None, {}
    if batch.labels is None:
        raise ValueError(
            "evaluate.online_probe True needs batches with labels, and this batch has "
            "none; use evaluate.online_probe=False"
        )
    label = batch.labels[batch.image_id]
    known = label >= 0
    weight = known / jnp.maximum(jnp.sum(known), 1)

    def loss(weights: dict[str, Array]) -> tuple[Array, Array]:
        logits = probe_logits(weights, feature)
        losses = optax.softmax_cross_entropy_with_integer_labels(
            logits, jnp.maximum(label, 0)
        )
        return jnp.sum(weight * losses), logits

    (value, logits), gradient = jax.value_and_grad(loss, has_aux=True)(probe.weights)
    updates, opt_state = _SGD.update(gradient, probe.opt_state)
    hit = jnp.argmax(logits, axis=1) == label
    metrics = {"probe_loss": value, "probe_accuracy": 100 * jnp.sum(weight * hit)}
    weights = optax.apply_updates(probe.weights, updates)
    return probe.replace(weights=weights, opt_state=opt_state), metrics
