"""`snclr evaluate`: everything that is asked for about one encoder, on one page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath
from jax.sharding import Mesh
from ml_collections import ConfigDict

from snclr_jax.data import Data, Split, open_data
from snclr_jax.data.bad_files import BadFiles, describe_bad
from snclr_jax.data.python_source import named_python
from snclr_jax.devices.agreement import in_agreement
from snclr_jax.devices.mesh import make_mesh
from snclr_jax.encoder.stored import Encoder, open_encoder
from snclr_jax.evaluate.evaluations import EVALUATIONS, Outcome, Task
from snclr_jax.evaluate.frozen.accuracy import majority
from snclr_jax.evaluate.memory.networks import Search, open_networks
from snclr_jax.evaluate.online import with_labels
from snclr_jax.evaluate.results import (
    Record,
    check_records,
    keep_record,
    make_record,
    records_path,
    table,
)
from snclr_jax.evaluate.subject import Subject, make_subjects
from snclr_jax.run.common import common_facts
from snclr_jax.run.files import OWN
from snclr_jax.run.metrics import say
from snclr_jax.run.workdir import as_json, has_images
from snclr_jax.settings.embedded import EMBEDDED
from snclr_jax.settings.paths import absolute_paths

DEFAULT = ("knn", "linear")
WITHOUT_LABELS = "quality"

_OF_FILES = ("path", "tfds_name", "train_split", "test_split")


def evaluate(
    path: epath.PathLike,
    what: Sequence[str] | None,
    settings: ConfigDict,
    *,
    data: Any = None,
    network: str | None = None,
    baselines: bool = False,
) -> list[Record]:
    """Evaluates an encoder, prints a table and keeps the records.

    They go to `evaluation.json` of the run (beside an exported file, to
    FILE.evaluation.json) with every setting, and to the run's TensorBoard files. A
    second call replaces what it measures again and keeps the rest.

    Args:
      path: a run's workdir, a checkpoint in it, or an exported file.
      what: names of `EVALUATIONS`; None is knn and linear, or what of them the labels
        suffice for, or quality.
      settings: `configs/evaluate.py`.
      data: images in place of those that the run names, as for `train`: its own where
        it was given them, or others.
      network: whose encoder, see `open_encoder`.
      baselines: evaluate an untrained encoder and raw pixels beside it.

    Returns:
      The records.

    Raises:
      ValueError: for an unknown evaluation; where the encoder is not whole, or the
        images have no labels, one class or no test split and an evaluation needs them.
      NonFiniteError: where training a classifier diverges.
    """
    if what is not None and not (what and set(what) <= set(EVALUATIONS)):
        raise ValueError(
            f"--what={','.join(what)} is not known; use one or more of "
            f"{','.join(EVALUATIONS)}"
        )
    mesh = make_mesh()
    destination = records_path(path)
    in_agreement(lambda: check_records(destination), lambda _: {})
    given = data is not None
    encoder, config, data = open_both(
        path,
        settings,
        network=network,
        mesh=mesh,
        data=data,
        what=what and list(what),
        baselines=baselines,
    )
    _, origin = target_config(encoder.config, settings.data)
    if given:
        own = has_images(destination.parent, data.identity)
        origin = OWN if own else f"python, {data.train.identity}"
    config = absolute_paths(config)  # records keep it
    train, test = with_labels(data.train), with_labels(data.test)
    what, left_out = choose_what(what, train, test)
    if left_out:
        say(left_out)
    networks, of_run = None, origin == OWN and epath.Path(encoder.source).is_dir()
    if "quality" in what and of_run:
        search = Search.of(config, mesh)
        if search.objective.searches:
            networks = open_networks(encoder, search)
    subjects = make_subjects(
        encoder,
        layers="linear" in what,
        baselines=baselines,
        settings=settings,
        mesh=mesh,
    )
    records: list[Record] = []
    for subject in subjects:
        task = Task(
            subject=subject,
            images=data.train,
            train=train,
            test=test,
            networks=networks if subject.encoder is encoder else None,
            config=config,
            settings=settings,
            mesh=mesh,
        )
        for name in what:
            if subject.encoder is None and not EVALUATIONS[name].of_features:
                continue
            outcome = EVALUATIONS[name].run(task)
            if EVALUATIONS[name].classifies:
                scored = task.train if task.test is None else task.test
                always = majority(task.train.labels, scored.labels)
                outcome.metrics.update(always.named("majority"))
            records.append(_record(name, subject, outcome, origin, task))
            # One by one: what took hours is kept, whatever comes after it.
            keep_record(destination, records[-1])
    if of_run:
        BadFiles(str(destination.parent), data).close()
    say("\n".join(filter(None, [table(records), str(destination), describe_bad(data)])))
    return records


def open_both(
    path: epath.PathLike,
    settings: ConfigDict,
    *,
    network: str | None,
    mesh: Mesh,
    data: Any = None,
    **asked: Any,
) -> tuple[Encoder, ConfigDict, Data]:
    """Opens an encoder and the images to use it on, and says which one it is.

    Args:
      path, settings, network, data: as in `evaluate`.
      mesh: the devices.
      asked: what else has to be the same in all processes.

    Returns:
      The encoder, its run's config with these images, and the images.

    Raises:
      ValueError: where either cannot be opened, or processes differ in what
        `common_facts` lists.
    """

    def opened() -> tuple[Encoder, ConfigDict, Data]:
        encoder = open_encoder(path, network=network, mesh=mesh)
        config, _ = target_config(encoder.config, settings.data)
        if data is not None:
            config = named_python(config)
        return encoder, config, open_data(config.data, data)

    both = in_agreement(
        opened,
        lambda both: common_facts(
            both[1],
            both[2].evidence,
            encoder=both[0].fingerprint,
            evaluation=as_json(settings),
            **asked,
        ),
    )
    say("\n".join([both[0].describe(), *both[2].notes]))
    return both


def target_config(config: ConfigDict, changed: ConfigDict) -> tuple[ConfigDict, str]:
    """Returns a run's config with the images to evaluate on, and what to call them.

    They are called by absolute paths: two folders may have one name, each from another.

    Args:
      config: the run's.
      changed: `data` of `configs/evaluate.py`; None keeps what the run has. Another
        `name` starts from its defaults, not from the run's path and splits.

    Raises:
      ValueError: for what says where files are, of images that are in none.
    """
    config = config.copy_and_resolve_references()
    new = {name: value for name, value in changed.items() if value is not None}
    if not new:
        return config, OWN
    if new.get("name", config.data.name) != config.data.name:
        config.data.update(
            path="", tfds_name="", train_split="train", test_split="test", holdback=0
        )
        config.data.update(image_column=None, label_column=None, pages=None)
    config.data.update(new)
    unread = [name for name in _OF_FILES if name in new]
    if unread and config.data.name in EMBEDDED:
        raise ValueError(
            f"data.{unread[0]} {new[unread[0]]!r} is not read where data.name is "
            f"{config.data.name!r}; add --config.data.name=folder, or what the images "
            "are"
        )
    data = absolute_paths(config).data
    return config, ",".join(f"{name}={data[name]}" for name in sorted(new))


def choose_what(
    what: Sequence[str] | None, train: Split | None, test: Split | None
) -> tuple[Sequence[str], str]:
    """Returns what to evaluate, and a sentence on what is left out, "" for nothing.

    Args:
      what: names of `EVALUATIONS`; None is `DEFAULT` as far as the labels suffice, and
        what needs no labels where they suffice for none of it.
      train: the labelled training images, or None.
      test: the labelled test images, or None.

    Raises:
      ValueError: where an evaluation of `what` needs labels that are not there.
    """
    lacks = {name: _lacks(name, train, test) for name in what or DEFAULT}
    lacking = [name for name, (lack, _) in lacks.items() if lack]
    if not lacking:
        return list(lacks), ""
    lack, fix = lacks[lacking[0]]
    if what is not None:
        raise ValueError(f"{lacking[0]} needs {lack}; {fix}")
    chosen = [name for name in lacks if name not in lacking] or [WITHOUT_LABELS]
    needs = "needs" if len(lacking) == 1 else "need"
    left_out = f"{' and '.join(lacking)} {needs} {lack}"
    return chosen, f"measured: {', '.join(chosen)}; {left_out}"


def _lacks(name: str, train: Split | None, test: Split | None) -> tuple[str, str]:
    """Returns what an evaluation needs in vain, "" for nothing, and the fix."""
    evaluation = EVALUATIONS[name]
    if not evaluation.needs_labels:
        return "", ""
    without = f"use --what={WITHOUT_LABELS}, which needs none"
    if train is None:
        return (
            "labels, and the training images have none",
            f"{without}, or images with labels: a folder sorted as train/<class>/*, or "
            "others with --config.data.name and --config.data.path",
        )
    if len(classes := np.unique(train.labels)) < 2:
        return (
            f"two classes or more, and all {train.size} labelled training images are "
            f"of class {classes[0]}",
            f"{without}, or images of several classes",
        )
    if evaluation.needs_test and test is None:
        return (
            "a labelled test split",
            "for a folder, add test/<class>/* beside train/<class>/*, or hold training "
            "images back with --config.data.holdback=N",
        )
    return "", ""


def _record(
    name: str, subject: Subject, outcome: Outcome, origin: str, task: Task
) -> Record:
    settings = as_json(task.settings)
    used = (name, "finetune") if name == "semi" else (name,)
    return make_record(
        name,
        subject.name,
        subject.encoder,
        *outcome,
        data=origin,
        settings={
            **{section: settings[section] for section in used},
            "seed": settings["seed"],
            "data": as_json(task.config)["data"],
            "size": task.config.augment.size,
        },
    )
