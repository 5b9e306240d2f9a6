"""Linear classification of frozen features, with its settings chosen honestly."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh
from jax.typing import ArrayLike

from snclr_jax.evaluate.frozen.accuracy import Accuracy
from snclr_jax.evaluate.frozen.checks import check_split
from snclr_jax.evaluate.frozen.classifier import (
    TrainSet,
    Weights,
    measure_scaling,
    score,
)
from snclr_jax.evaluate.frozen.logistic import fit_strengths
from snclr_jax.evaluate.frozen.sgd import train_heads
from snclr_jax.evaluate.frozen.subsets import held_back


class Candidate(NamedTuple):
    """One way to fit the classifier."""

    kind: str  # "lbfgs" or "sgd"
    layer: str  # whose features
    l2: float  # strength of the penalty, which SGD knows as its weight decay
    # Any, not None: who reads them knows the kind, or that it did not diverge.
    learning_rate: float | Any  # of SGD
    accuracy: float | Any  # percent of the held-back rows; None: it diverged


class LinearResult(NamedTuple):
    """What a linear probe found."""

    accuracy: Accuracy  # top-1, of the test split
    top5: float | None  # percent as well; None for at most 5 classes
    chosen: Candidate
    candidates: list[Candidate]
    steps: int | None  # of the last fit, if by L-BFGS; max_steps: it had not converged


def linear_probe(
    train_features: Mapping[str, ArrayLike],
    train_labels: ArrayLike,
    test_features: Mapping[str, ArrayLike],
    test_labels: ArrayLike,
    *,
    mesh: Mesh,
    learning_rate: Sequence[float],
    weight_decay: Sequence[float],
    epochs: int,
    batch_size: int,
    l2: Sequence[float],
    max_steps: int,
    holdback: float,
    seed: int,
    group: np.ndarray | None = None,
) -> LinearResult:
    """Fits linear classifiers on frozen features and scores the best one on the test.

        minimize  mean_i CE(softmax(W x_i + b), y_i) + l2 / 2 ||W||^2

    over features standardized with the train split's mean and deviation: by L-BFGS for
    every l2 and layer, and by SGD for every rate, decay and layer. Each candidate is
    fitted without the held-back rows and judged on them. The best one is fitted again
    on the whole train split and scored once on the test split. Of equals, the first in
    this order is the best: L-BFGS before SGD, layers as they are given, slow rates
    before fast ones, strong penalties before weak ones.

    The features stay in host memory, from where SGD and the scoring stream them. For
    L-BFGS the rows of one layer lie on the devices, 4 n f bytes divided by their
    number, and on each of them about 30 copies of f c weights.

    Args:
      train_features: layer -> "n f" with an f of its own; all layers of the same rows.
      train_labels: int "n".
      test_features: layer -> "m f", the same layers.
      test_labels: int "m".
      mesh: the devices.
      learning_rate: SGD's, each > 0 and used as it is; may be empty, if l2 is not.
      weight_decay: SGD's, each >= 0.
      epochs: of SGD, >= 1.
      batch_size: of SGD, >= 1.
      l2: L-BFGS's strengths, each > 0; may be empty, if learning_rate is not.
      max_steps: L-BFGS steps per fit, >= 1.
      holdback: share of every class's train rows that chooses, in (0, 1). A class
        always keeps one row to be fitted on.
      seed: of the choice of the held-back rows, and of SGD's order.
      group: int "n"; train rows of one group, such as pictures of one original, are
        held back together. None where every row is its own.

    Returns:
      The accuracy and how it was reached.

    Raises:
      ValueError: for an empty split, features that are not finite or not "n f", labels
        that do not match them, layers that differ, a setting out of range, a holdback
        that leaves no row to choose with, or candidates that all diverge.

    L-BFGS with l2 chosen on a part of the train split is the protocol of Kornblith et
    al. 2019, "Do Better ImageNet Models Transfer Better?"; SGD over a grid of rates and
    layers, judged side by side, that of Oquab et al. 2023, "DINOv2". Papers' linear
    accuracies mostly come of SGD with random crops instead.
    """
    grids = {"learning_rate": learning_rate, "weight_decay": weight_decay, "l2": l2}
    _check_settings(grids, epochs=epochs, batch_size=batch_size, max_steps=max_steps)
    features, train_labels = _check_layers("train", train_features, train_labels)
    tested, test_labels = _check_layers("test", test_features, test_labels, features)
    held = held_back(train_labels, holdback, seed, group)
    train = TrainSet(
        features,
        {layer: measure_scaling(rows) for layer, rows in features.items()},
        train_labels,
        1 + int(max(train_labels.max(), test_labels.max())),
    )
    lbfgs = partial(fit_strengths, train, max_steps=max_steps, mesh=mesh)
    sgd = partial(
        train_heads, train, epochs=epochs, batch_size=batch_size, seed=seed, mesh=mesh
    )
    candidates = _judge(train, held, lbfgs, sgd, mesh, **grids)
    chosen = _best(candidates)
    layer, everything, steps = chosen.layer, np.arange(len(train_labels)), None
    if chosen.kind == "lbfgs":
        weights, steps = lbfgs(layer, [chosen.l2], everything)
    else:
        grid = [(chosen.learning_rate, chosen.l2)]
        weights = sgd([layer], grid, everything)[layer]
    (top1,), (balanced,), (top5,) = score(
        weights,
        tested[layer],
        test_labels,
        np.arange(len(test_labels)),
        train.scaling[layer],
        mesh,
    )
    if np.isnan(top1):
        raise ValueError(
            f"{chosen} was the best on held-back rows, but diverged on the whole train "
            "split; use lower values of linear.learning_rate"
        )
    return LinearResult(
        accuracy=Accuracy(float(top1), float(balanced)),
        top5=float(top5) if train.num_classes > 5 else None,
        chosen=chosen,
        candidates=candidates,
        steps=steps,
    )


def _judge(
    train: TrainSet,
    held: np.ndarray,
    lbfgs: Callable,
    sgd: Callable,
    mesh: Mesh,
    *,
    learning_rate: Sequence[float],
    weight_decay: Sequence[float],
    l2: Sequence[float],
) -> list[Candidate]:
    """Fits all candidates without the held-back rows, and scores them on those."""
    rows, judges = np.flatnonzero(~held), np.flatnonzero(held)

    def accuracies(layer: str, weights: Weights) -> list[float | None]:
        features, scaling = train.features[layer], train.scaling[layer]
        top1 = score(weights, features, train.labels, judges, scaling, mesh).top1
        return [None if np.isnan(accuracy) else float(accuracy) for accuracy in top1]

    candidates = []
    strengths = sorted(map(float, l2), reverse=True)
    for layer in train.features if strengths else ():
        weights, _ = lbfgs(layer, strengths, rows)
        for strength, accuracy in zip(
            strengths, accuracies(layer, weights), strict=True
        ):
            candidates.append(Candidate("lbfgs", layer, strength, None, accuracy))
    decays = sorted(map(float, weight_decay), reverse=True)
    grid = list(product(sorted(map(float, learning_rate)), decays))
    heads = sgd(train.features, grid, rows) if grid else {}
    for layer in train.features if heads else ():
        for (rate, decay), accuracy in zip(
            grid, accuracies(layer, heads[layer]), strict=True
        ):
            candidates.append(Candidate("sgd", layer, decay, rate, accuracy))
    return candidates


def _best(candidates: list[Candidate]) -> Candidate:
    finite = [candidate for candidate in candidates if candidate.accuracy is not None]
    if not finite:
        raise ValueError(
            f"all {len(candidates)} candidates diverged; add lower values to "
            "linear.learning_rate, or strengths to linear.l2"
        )
    return max(finite, key=lambda candidate: candidate.accuracy)


def _check_layers(
    split: str,
    features: Mapping[str, ArrayLike],
    labels: ArrayLike,
    train: Mapping[str, np.ndarray] | None = None,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    layers = features.keys() if train is None else train.keys()
    if not features or features.keys() != layers:
        raise ValueError(
            f"{split} features are of the layers {list(features)}; use "
            + ("at least one" if train is None else f"those of train, {list(train)}")
        )
    checked, checked_labels = {}, np.empty(0, np.int32)
    for layer in layers:
        name = f"{split} {layer}"
        width = None if train is None else train[layer].shape[1]
        checked[layer], checked_labels = check_split(
            name, features[layer], labels, width
        )
    return checked, checked_labels


def _check_settings(grids: Mapping[str, Sequence[float]], **counts: int) -> None:
    for name, values in grids.items():
        if name == "weight_decay" and any(value < 0 for value in values):
            raise ValueError(f"{name} is {values}; use values of 0 or above")
        if name != "weight_decay" and any(value <= 0 for value in values):
            raise ValueError(f"{name} is {values}; use values above 0")
    if not grids["l2"] and not (grids["learning_rate"] and grids["weight_decay"]):
        raise ValueError(
            f"l2 is {grids['l2']}, learning_rate {grids['learning_rate']} and "
            f"weight_decay {grids['weight_decay']}, which leaves no classifier to "
            "choose; give an l2, or a learning_rate and a weight_decay"
        )
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"{name} is {value}; use 1 or more")
