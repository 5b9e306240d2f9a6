"""`snclr evaluate`: everything that is asked for about one encoder, on one page."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh
from ml_collections import ConfigDict

from snclr_jax.data import Data, open_data
from snclr_jax.data.bad_files import BadFiles, describe_bad
from snclr_jax.data.python_source import named_python
from snclr_jax.devices.agreement import in_agreement
from snclr_jax.devices.mesh import make_mesh
from snclr_jax.encoder.stored import Encoder, open_encoder
from snclr_jax.evaluate.evaluations import EVALUATIONS, Outcome, Task
from snclr_jax.evaluate.memory.networks import Search, open_networks
from snclr_jax.evaluate.online import with_labels
from snclr_jax.evaluate.results import (
    Record,
    add_record,
    read_records,
    records_path,
    table,
    versions,
    write_board,
)
from snclr_jax.evaluate.subject import Subject, make_subjects
from snclr_jax.run.common import common_facts
from snclr_jax.run.files import OWN
from snclr_jax.run.metrics import say
from snclr_jax.run.paths import absolute_paths, located
from snclr_jax.run.workdir import as_json, has_images


def evaluate(
    path: epath.PathLike,
    what: Sequence[str],
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
      what: names of `EVALUATIONS`.
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
    unknown = [name for name in what if name not in EVALUATIONS]
    if unknown or not what:
        raise ValueError(
            f"--what={','.join(what)} is not known; use one or more of "
            f"{','.join(EVALUATIONS)}"
        )
    mesh = make_mesh()
    destination = records_path(path)
    read_records(destination)  # what cannot be added to is refused before any work
    given = data is not None
    encoder, config, data = open_both(
        path,
        settings,
        network=network,
        mesh=mesh,
        data=data,
        what=list(what),
        baselines=baselines,
    )
    _, origin = target_config(encoder.config, settings.data)
    if given:
        own = has_images(destination.parent, data.identity)
        origin = OWN if own else f"python, {data.train.identity}"
    config = absolute_paths(config)  # records keep it
    train, test = labelled_splits(data, what)
    networks = None
    if "quality" in what and origin == OWN and epath.Path(encoder.source).is_dir():
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
            records.append(_record(name, subject, outcome, origin, task))
            # One by one: what took hours is kept, whatever comes after it.
            _keep(destination, records[-1])
    if origin == OWN and not located(path).is_file():
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
    """
    config = config.copy_and_resolve_references()
    new = {name: value for name, value in changed.items() if value is not None}
    if not new:
        return config, OWN
    if new.get("name", config.data.name) != config.data.name:
        config.data.update(
            path="", tfds_name="", train_split="train", test_split="test", holdback=0
        )
    config.data.update(new)
    data = absolute_paths(config).data
    return config, ",".join(f"{name}={data[name]}" for name in sorted(new))


def labelled_splits(data: Data, what: Sequence[str]):
    """Returns the labelled training and test images, or None for each.

    Raises:
      ValueError: where an evaluation of `what` needs one that is not there.
    """
    train, test = with_labels(data.train), with_labels(data.test)
    needs_labels = [name for name in what if name != "quality"]
    if not needs_labels:
        return train, test
    if train is None:
        raise ValueError(
            f"{needs_labels[0]} needs labels, and the training images have none; for a "
            "folder, sort them as train/<class>/*, or name other images with "
            "--config.data.name and --config.data.path"
        )
    classes = len(np.unique(train.labels))
    if classes < 2:
        raise ValueError(
            f"{needs_labels[0]} needs two classes or more, and all {train.size} "
            "labelled training images are of one"
        )
    needs_test = [name for name in what if EVALUATIONS[name].needs_test]
    if test is None and needs_test:
        raise ValueError(
            f"{needs_test[0]} needs a labelled test split; for a folder, add "
            "test/<class>/* beside train/<class>/*, or hold training images back with "
            "--config.data.holdback=N"
        )
    return train, test


def _record(
    name: str, subject: Subject, outcome: Outcome, origin: str, task: Task
) -> Record:
    encoder = subject.encoder
    settings = as_json(task.settings)
    used = (name, "finetune") if name == "semi" else (name,)
    return {
        "what": name,
        "encoder": subject.name,
        "network": encoder.network if encoder else "",
        "step": encoder.step if encoder else 0,
        "fingerprint": encoder.fingerprint if encoder else "",
        "data": origin,
        "metrics": outcome.metrics,
        "details": outcome.details,
        "settings": {
            **{section: settings[section] for section in used},
            "seed": settings["seed"],
            "data": as_json(task.config)["data"],
            "size": task.config.augment.size,
        },
        "versions": versions(),
        "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _keep(path: epath.Path, record: Record) -> None:
    if jax.process_index() != 0:
        return
    add_record(path, record)
    if (path.parent / "tensorboard").is_dir() and record["encoder"] == "trained":
        write_board(path.parent, record)
