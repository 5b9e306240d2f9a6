"""Every evaluation that `--what` can name: a subject and images in, numbers out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh

from snclr_jax.data import Split
from snclr_jax.devices.shares import read_in_shares
from snclr_jax.evaluate.frozen.accuracy import Accuracy
from snclr_jax.evaluate.frozen.fewshot import few_shot
from snclr_jax.evaluate.frozen.knn import knn_accuracies, named
from snclr_jax.evaluate.frozen.linear import linear_probe
from snclr_jax.evaluate.frozen.retrieval import score_retrieval
from snclr_jax.evaluate.frozen.subsets import class_balanced, listed
from snclr_jax.evaluate.memory.choices import choices
from snclr_jax.evaluate.memory.networks import Networks
from snclr_jax.evaluate.memory.queue_use import queue_use
from snclr_jax.evaluate.quality import quality as score_quality
from snclr_jax.evaluate.quality_views import encode_random_views
from snclr_jax.evaluate.subject import Subject
from snclr_jax.evaluate.tuned import protocols
from snclr_jax.evaluate.tuned.supervised import Protocol, train_classifier
from snclr_jax.settings.objective import build_objective

# SimCLR's lists of ImageNet images, by the share of them.
LISTS = {0.01: "1percent.txt", 0.1: "10percent.txt"}


class Task(NamedTuple):
    """One subject on one image set.

    Attributes:
      subject: what is evaluated.
      images: the training images.
      train: those that have a label, or None.
      test: labelled images to score, or None where the set has one split.
      networks: those of the run beside a trained encoder, where `images` are what it
        was trained on and its objective has a memory to search; None elsewhere.
      config: of the run, with `data` of this image set.
      settings: `configs/evaluate.py`.
      mesh: the devices.
    """

    subject: Subject
    images: Split
    # Any, not None: an evaluation that needs one is given one.
    train: Split | Any
    test: Split | Any
    networks: Networks | None
    config: Any
    settings: Any
    mesh: Mesh

    def labelled_features(
        self,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | Any, np.ndarray | Any]:
        """Returns training features and labels, then those of the test or None."""
        train = self.subject.features(self.train), self.train.labels
        if self.test is None:
            return *train, None, None
        return *train, self.subject.features(self.test), self.test.labels


class Outcome(NamedTuple):
    """What an evaluation found.

    Attributes:
      metrics: numbers by name; accuracies are in percent.
      details: how they were reached, as it goes to JSON.
    """

    metrics: dict[str, float]
    details: dict[str, Any] = {}


def knn(task: Task) -> Outcome:
    """Votes of nearest neighbors; leaving one out where there is one split."""
    accuracies = knn_accuracies(
        *task.labelled_features(), **task.settings.knn, mesh=task.mesh
    )
    metrics = {}
    for setting, accuracy in accuracies.items():
        metrics |= accuracy.named(named(setting))
    return Outcome(metrics)


def linear(task: Task) -> Outcome:
    """The best of many linear classifiers on the features of several layers."""
    probe = linear_probe(
        task.subject.layers(task.train),
        task.train.labels,
        task.subject.layers(task.test),
        task.test.labels,
        **task.settings.linear,
        seed=task.settings.seed,
        group=task.train.group,
        mesh=task.mesh,
    )
    details = {
        "chosen": probe.chosen._asdict(),
        "steps": probe.steps,
        "candidates": [candidate._asdict() for candidate in probe.candidates],
    }
    held_back = probe.chosen.accuracy
    return Outcome(_top(probe.accuracy, probe.top5) | {"held_back": held_back}, details)


def fewshot(task: Task) -> Outcome:
    """A linear classifier of a few images a class."""
    results = few_shot(
        *task.labelled_features(),
        **task.settings.fewshot,
        seed=task.settings.seed,
        mesh=task.mesh,
    )
    metrics = {}
    for result in results:
        metrics |= result.accuracy.named(f"{result.shots}_shot")
        metrics[f"{result.shots}_shot_interval"] = result.interval
    return Outcome(
        metrics, {f"{result.shots}_shot": result.draws for result in results}
    )


def retrieval(task: Task) -> Outcome:
    """How well images find images of their class."""
    scores = score_retrieval(
        *task.labelled_features(), **task.settings.retrieval, mesh=task.mesh
    )
    metrics = {"mAP": scores.mean_average_precision}
    metrics |= {f"recall_at_{k}": recall for k, recall in scores.recall.items()}
    return Outcome(metrics, {"queries": scores.queries, "left_out": scores.left_out})


def linear_augmented(task: Task) -> Outcome:
    """The linear protocol of papers: random crops, a frozen encoder."""
    protocol = protocols.linear_augmented(
        task.config,
        images=task.train.size,
        devices=task.mesh.size,
        seed=task.settings.seed,
        **task.settings.linear_augmented,
    )
    return _train(protocol, task, task.train)


def finetune(task: Task) -> Outcome:
    """The whole network learns from all labels."""
    return _train(_to_tune(task, task.train, {}), task, task.train)


def semi(task: Task) -> Outcome:
    """The whole network learns from a share of the labels."""
    settings = dict(task.settings.semi)
    shares, lists = settings.pop("share"), settings.pop("lists")
    metrics, details = {}, {}
    for share in shares:
        name, part = f"{100 * share:g}%", task.train.subset(_share(task, share, lists))
        outcome = _train(_to_tune(task, part, settings), task, part)
        metrics |= {f"{name}_{key}": value for key, value in outcome.metrics.items()}
        details[name] = outcome.details
    return Outcome(metrics, details)


def quality(task: Task) -> Outcome:
    """What features and queue are like; labels feed the purities alone."""
    settings, encoder = task.settings.quality, task.subject.encoder
    rows = task.images.thinned(settings.images)
    split = task.images.subset(rows)
    views = encode_random_views(
        encoder, task.networks, split, rows, config=task.config, mesh=task.mesh
    )
    metrics = score_quality(
        task.subject.features(split),
        views.first,
        views.second,
        k=settings.k,
        mesh=task.mesh,
        labels=split.labels,
    )
    if task.networks is not None and views.neighbors is not None:
        objective = build_objective(task.config)
        pushed_at = np.asarray(objective.pushed_at(task.networks.objective))
        found = choices(
            views.neighbors,
            pushed_at,
            image_id=rows,
            step=encoder.step,
            labels=task.images.labels,
        )
        metrics |= queue_use(found, len(pushed_at)) | found.numbers()
    return Outcome(metrics)


def _share(task: Task, share: float, lists: str) -> np.ndarray:
    """Returns the rows of a part of the labels: a published list, or by the seed."""
    if not lists:
        return class_balanced(task.train.labels, share=share, seed=task.settings.seed)
    if share not in LISTS:
        raise ValueError(
            f"semi.share {share} has no published list; use shares of "
            f"{tuple(LISTS)}, or semi.lists='' for subsets by the seed"
        )
    names = list(read_in_shares(task.train.names, task.train.size))
    return listed(Path(lists) / LISTS[share], names)


def _to_tune(task: Task, train: Split, changed: dict[str, Any]) -> Protocol:
    return protocols.finetune(
        task.config,
        images=train.size,
        devices=task.mesh.size,
        seed=task.settings.seed,
        **dict(task.settings.finetune)
        | {name: value for name, value in changed.items() if value is not None},
    )


def _train(protocol: Protocol, task: Task, train: Split) -> Outcome:
    encoder = task.subject.encoder
    details = train_classifier(
        protocol,
        encoder.params,
        encoder.batch_stats,
        train,
        task.test,
        eval_batch_size=task.settings.batch_size,
        mesh=task.mesh,
    )._asdict()
    return Outcome(_top(details.pop("accuracy"), details.pop("top5_accuracy")), details)


def _top(top1: Accuracy, top5: float | None) -> dict[str, float]:
    return top1.named("top1") | ({} if top5 is None else {"top5": top5})


class Evaluation(NamedTuple):
    """What `--what` names.

    Attributes:
      run: does it.
      needs_labels: of the training images.
      needs_test: a labelled test split; the others compare images of one split, each
        with all the others, if need be.
      of_features: it takes features of any kind, raw pixels too.
      classifies: its numbers are accuracies, which those of `majority` stand beside.
    """

    run: Callable[[Task], Outcome]
    needs_labels: bool = True
    needs_test: bool = False
    of_features: bool = False
    classifies: bool = True


EVALUATIONS = {
    "knn": Evaluation(knn, of_features=True),
    "linear": Evaluation(linear, needs_test=True, of_features=True),
    "linear_augmented": Evaluation(linear_augmented, needs_test=True),
    "finetune": Evaluation(finetune, needs_test=True),
    "semi": Evaluation(semi, needs_test=True),
    "fewshot": Evaluation(fewshot, needs_test=True, of_features=True),
    "retrieval": Evaluation(retrieval, of_features=True, classifies=False),
    "quality": Evaluation(quality, needs_labels=False, classifies=False),
}
