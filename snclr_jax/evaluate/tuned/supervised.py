"""The loop that trains a classifier on augmented images, its encoder frozen or not."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.sharding import Mesh

from snclr_jax.data import Split
from snclr_jax.data.feed import Feed
from snclr_jax.devices.mesh import place_everywhere, replicated
from snclr_jax.encoder.encode import make_encode
from snclr_jax.evaluate.features import extract_features
from snclr_jax.evaluate.frozen.accuracy import Accuracy
from snclr_jax.evaluate.frozen.classifier import Scaling, Weights, logits, score
from snclr_jax.models import Model, encoder_subset
from snclr_jax.run.metrics import NonFiniteError, progress_bar
from snclr_jax.step.forward import DROP_PATH
from snclr_jax.step.views import Batch, image_keys, random_views

# What image_keys are numbered by where the head is drawn.
_HEAD = DROP_PATH + 1


class ClassifierResult(NamedTuple):
    """What a trained classifier reached, and with what."""

    accuracy: Accuracy  # top-1, of the test split
    top5_accuracy: float | None  # percent; None for at most 5 classes
    loss: float  # mean of the last epoch
    train_images: int
    batch_size: int  # fitted to the images and the devices
    learning_rate: float  # the peak, for that batch size
    weight_decay: float
    steps: int


class ClassifierState(flax.struct.PyTreeNode):
    """Everything that a step reads and writes.

    Attributes:
      step: () int32, the number of updates made.
      params: of the "encoder", and the "head", which are `Weights`.
      batch_stats: running BatchNorm statistics of the encoder.
      opt_state: the optimizer's state.
    """

    step: Array
    params: Any
    batch_stats: Any
    opt_state: Any


class Protocol(NamedTuple):
    """How a classifier is trained; `protocols.py` has the published ones.

    Attributes:
      name: for messages.
      model: the networks, of which the encoder is used.
      config: what a run's config says of data, views, batches and learning rate.
      optimizer: of what learns.
      tunes_encoder: whether the encoder learns, on the statistics of each batch. If
        not, it is left as it is, with the running statistics, and the head learns.
      head_deviation: of the normal distribution that the head's kernel is drawn from.
      label_smoothing: share of the target that is spread evenly over the classes.
    """

    name: str
    model: Model
    config: Any
    optimizer: optax.GradientTransformation
    tunes_encoder: bool
    head_deviation: float
    label_smoothing: float

    def learning(self, params: Any) -> Any:
        """Returns the part of `params` that learns."""
        return params if self.tunes_encoder else {"head": params["head"]}


def train_classifier(
    protocol: Protocol,
    params: Any,
    batch_stats: Any,
    train: Split,
    test: Split,
    *,
    eval_batch_size: int,
    mesh: Mesh,
) -> ClassifierResult:
    """Trains a classifier, and scores it once, on the center of every test image.

    Args:
      protocol: how it is trained.
      params, batch_stats: pretrained, read under the key "encoder" and not changed.
      train, test: images that all have a label.
      eval_batch_size: test images per step.
      mesh: the devices.

    Returns:
      Accuracies and how they were reached.

    Raises:
      ValueError: where a label is missing.
      NonFiniteError: where the loss, or what it led to, is not a number.
    """
    config = protocol.config
    classes = 1 + max(_largest_label("train", train), _largest_label("test", test))
    state = init_classifier(protocol, params, batch_stats, classes, mesh)
    state, loss = fit(protocol, state, train, mesh)
    top1, top5 = accuracies(protocol, state, test, eval_batch_size, mesh)
    return ClassifierResult(
        accuracy=top1,
        top5_accuracy=top5 if classes > 5 else None,
        loss=loss,
        train_images=train.size,
        batch_size=config.batch_size,
        learning_rate=config.optim.learning_rate * config.batch_size / 256,
        weight_decay=config.optim.weight_decay,
        steps=int(state.step),
    )


def init_classifier(
    protocol: Protocol, params: Any, batch_stats: Any, classes: int, mesh: Mesh
) -> ClassifierState:
    """Returns the state at step 0: a copy of the encoder, and a fresh head."""

    def init(params: Any, batch_stats: Any) -> ClassifierState:
        (key,) = image_keys(protocol.config.seed, 0, _HEAD, 1)
        kernel = jax.random.normal(key, (classes, protocol.model.feature_dim))
        head = Weights(protocol.head_deviation * kernel, jnp.zeros(classes))
        params = {"encoder": params["encoder"], "head": head}
        return ClassifierState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            batch_stats=batch_stats,
            opt_state=protocol.optimizer.init(protocol.learning(params)),
        )

    # A copy, since each step gives the memory of its state to the next one.
    encoder, stats = jax.tree.map(
        lambda leaf: place_everywhere(np.array(leaf), mesh),
        [encoder_subset(params), encoder_subset(batch_stats)],
    )
    return jax.jit(init, out_shardings=replicated(mesh))(encoder, stats)


def fit(
    protocol: Protocol, state: ClassifierState, split: Split, mesh: Mesh
) -> tuple[ClassifierState, float]:
    """Returns the trained state, and the mean loss of the last epoch.

    Raises:
      NonFiniteError: where the loss is not a number.
    """
    config = protocol.config
    step = make_step(protocol, mesh)
    steps_per_epoch = split.size // config.batch_size
    feed = Feed(config, split, mesh, labels=True)
    progress = progress_bar(
        total=config.epochs * steps_per_epoch,
        desc=protocol.name,
        unit="step",
        dynamic_ncols=True,
    )
    loss, mean = None, np.nan
    with contextlib.closing(feed.batches), contextlib.closing(progress):
        for epoch in range(1, config.epochs + 1):
            losses = []
            for _ in range(steps_per_epoch):
                batch = feed.next(loss)
                state, loss = step(state, batch)
                losses.append(loss)
                progress.update()
            mean = float(np.mean(jax.device_get(losses)))
            _check_finite(protocol, f"loss of epoch {epoch}", mean)
            progress.set_postfix_str(f"loss {mean:.3f}")
    return state, mean


def make_step(
    protocol: Protocol, mesh: Mesh
) -> Callable[[ClassifierState, Batch], tuple[ClassifierState, Array]]:
    """Returns the compiled step: `state, loss = step(state, batch)`.

    The state is donated. Views and dropped paths depend on (seed, step, index in the
    global batch) alone, so the step computes the same on any mesh.
    """
    model, config = protocol.model, protocol.config

    def features(params: Any, state: ClassifierState, images: Array):
        if not protocol.tunes_encoder:
            frozen = model.encode(params, state.batch_stats, images)
            return frozen, state.batch_stats
        keys = image_keys(config.seed, state.step, DROP_PATH, len(images))
        return model.tune(params, state.batch_stats, images, keys)

    def step(state: ClassifierState, batch: Batch) -> tuple[ClassifierState, Array]:
        (images,) = random_views(batch, state.step, config=config, mesh=mesh)
        labels = batch.labels[batch.image_id]

        def loss_and_stats(learning: Any) -> tuple[Array, Any]:
            params = state.params | learning
            feature, batch_stats = features(params, state, images)
            values = logits(params["head"], feature)
            return cross_entropy(values, labels, protocol.label_smoothing), batch_stats

        learning = protocol.learning(state.params)
        (loss, batch_stats), gradients = jax.value_and_grad(
            loss_and_stats, has_aux=True
        )(learning)
        updates, opt_state = protocol.optimizer.update(
            gradients, state.opt_state, learning
        )
        state = ClassifierState(
            step=state.step + 1,
            params=state.params | optax.apply_updates(learning, updates),
            batch_stats=batch_stats,
            opt_state=opt_state,
        )
        return state, loss

    return jax.jit(step, donate_argnums=0, out_shardings=replicated(mesh))


def accuracies(
    protocol: Protocol, state: ClassifierState, test: Split, batch_size: int, mesh: Mesh
) -> tuple[Accuracy, float]:
    """Returns top-1 and top-5 accuracy on the center of every image, in percent.

    Raises:
      NonFiniteError: where a logit is not a number.
    """
    features = extract_features(
        make_encode(protocol.model.encode, protocol.config, mesh),
        state.params,
        state.batch_stats,
        test,
        batch_size=batch_size,
        mesh=mesh,
        description="test images",
    )
    head = jax.tree.map(lambda leaf: leaf[None], state.params["head"])
    every = np.arange(test.size)
    scores = score(head, features, test.labels, every, Scaling(), mesh)
    top1, balanced, top5 = (float(each[0]) for each in scores)
    _check_finite(protocol, "accuracy", top1)
    return Accuracy(top1, balanced), top5


def cross_entropy(values: Array, labels: Array, smoothing: float) -> Array:
    """Returns the mean over images of -sum_c q_c log p_c, p the softmax of `values`.

        q_c = (1 - smoothing) [c = label] + smoothing / classes

    (Szegedy et al., 2016, "Rethinking the Inception architecture", section 7.)

    Args:
      values: "b c".
      labels: int "b".
      smoothing: in [0, 1).
    """
    targets = optax.smooth_labels(jax.nn.one_hot(labels, values.shape[1]), smoothing)
    return optax.softmax_cross_entropy(values, targets).mean()


def _largest_label(name: str, split: Split) -> int:
    if not split.labelled or split.labels.min() < 0:
        raise ValueError(
            f"the {name} split has images without a label; leave them out, see "
            "evaluate.online.with_labels"
        )
    return int(split.labels.max())


def _check_finite(protocol: Protocol, what: str, value: float) -> None:
    if not np.isfinite(value):
        raise NonFiniteError(
            f"{protocol.name}: the {what} is {value}; lower learning_rate, which was "
            f"{protocol.config.optim.learning_rate:g} for each 256 images of a batch"
        )
