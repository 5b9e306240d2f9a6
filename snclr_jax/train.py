"""A run from its config: images in, compiled step, loop, what it leaves behind."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence
from typing import Any

import ml_collections

from snclr_jax.data import Data, open_data
from snclr_jax.data.bad_files import BadFiles
from snclr_jax.data.choose import choose_from_data, choose_order
from snclr_jax.data.depth import note_on_range
from snclr_jax.data.feed import Feed
from snclr_jax.data.python_source import named_python
from snclr_jax.devices.agreement import in_agreement
from snclr_jax.devices.mesh import make_mesh
from snclr_jax.devices.processes import from_first
from snclr_jax.encoder.init_from import init_from
from snclr_jax.evaluate.online import (
    Evaluator,
    OnlineChoices,
    OnlineKnn,
    OnlineProbe,
    Run,
)
from snclr_jax.loop import Loop
from snclr_jax.report.online import OnlineGallery
from snclr_jax.report.summary import summarize
from snclr_jax.run.checkpoint import Checkpoints
from snclr_jax.run.common import common_facts
from snclr_jax.run.digest import digest_of_json, digests
from snclr_jax.run.loggers import check_loggers
from snclr_jax.run.metrics import (
    Clock,
    read_metrics,
    say,
)
from snclr_jax.run.stopped import stop_written
from snclr_jax.run.workdir import own_workdir, record_run
from snclr_jax.settings.check import check_against_data, check_config, notes
from snclr_jax.settings.paths import absolute_paths, expanded, located
from snclr_jax.settings.training import build_training
from snclr_jax.step.probe import count_classes
from snclr_jax.step.state import TrainState, init_train_state


def train(
    config: ml_collections.ConfigDict,
    workdir: str,
    *,
    data: Any = None,
    allow: Sequence[str] = (),
    evaluators: Sequence[Evaluator] = (),
) -> TrainState:
    """Pretrains an encoder as the config says, or continues the run in the workdir.

    The same call continues a run that was killed at any moment, and ends with the same
    bits as one that never was. Writes `config.json`, `data.json`, `packages.json`,
    `shown.json`, `metrics.jsonl`, `checkpoints/`, `summary.json`, what `log.to` leaves,
    where images cannot be read `bad_files.jsonl`, and where it stops early
    `stopped.json`.

    Args:
      config: a recipe, see `configs/base.py`.
      workdir: folder of the run.
      data: images, in place of those that `config.data` names: an array (n, h, w, 3), a
        tuple (images, labels), a data set of PyTorch or Hugging Face, or {"train": ...,
        "test": ...} of these; see `open_python`. With several processes, each of them
        is given all.
      allow: fields of the config that may differ from those of the run so far, see
        `check_workdir`.
      evaluators: what to do at intervals, besides the gallery, kNN, the probe and
        what images choose.

    Returns:
      The final state.

    Raises:
      ValueError: where a field, an image, a checkpoint or the workdir cannot be used;
        names it. Where processes differ in `common_facts`; gives both values.
      OSError: where a checkpoint, or the images, cannot be read or written now.
      NonFiniteError: where the loss is no longer a number; the last good checkpoint
        is intact.
      Interrupted: after a signal that asks to stop, when the state is saved.
    """
    mesh, workdir = make_mesh(), expanded(workdir)
    say("reading the images")
    config, chosen, data = in_agreement(
        functools.partial(_open, config, mesh.size, data, workdir),
        lambda opened: common_facts(
            opened[0],
            opened[2].evidence,
            workdir=str(located(workdir)),
            evaluators=[type(evaluator).__name__ for evaluator in evaluators],
        ),
    )
    model, objective, optimizer, step, steps_per_epoch = build_training(
        config, mesh, images=data.train.size
    )
    classes = count_classes(data.train.labels) if config.evaluate.online_probe else 0
    untrained = init_train_state(
        model, objective, optimizer, config, mesh, probe_classes=classes
    )
    state = in_agreement(
        lambda: init_from(untrained, config, mesh, workdir),
        lambda state: (
            {"weights": digest_of_json(digests(state.params))}
            if config.model.init_from
            else {}
        ),
    )
    feed = Feed(config, data.train, mesh, labels=config.evaluate.online_probe)
    # What is kept holds from any folder; what was said so far is as it was typed.
    config = absolute_paths(config)
    run = Run(config, model, objective, mesh, data)
    knn = OnlineKnn(run)
    built_in = (OnlineGallery(run), knn, OnlineProbe(run), OnlineChoices(run))
    evaluators = [*(own for own in built_in if own.possible), *evaluators]
    with own_workdir(config, workdir, identity=data.identity, allow=allow) as (
        changes,
        keep_workdir,
    ):
        bad_files = BadFiles(workdir, data)
        checkpoints = Checkpoints(
            workdir, keep=config.checkpoint.keep, before_save=keep_workdir
        )
        with (
            contextlib.closing(bad_files),
            contextlib.closing(checkpoints),
            contextlib.closing(feed.batches),
        ):
            baseline = _baseline(knn, untrained, state, workdir)
            clock = Clock()
            if checkpoints.latest_step is not None:
                state, totals = checkpoints.restore(state, feed.batches)
                clock = Clock(**totals)
                _check_not_beyond(int(state.step), config, steps_per_epoch)
            # Only now that nothing was refused does the workdir belong to this config.
            record_run(config, workdir, data.identity)
            deep = note_on_range(config.data, data.train)
            own = notes(config, data.train.size)
            remarks = [*changes, chosen, *data.notes, deep, *own]
            with stop_written(workdir):
                loop = Loop(
                    run,
                    workdir,
                    evaluators=evaluators,
                    feed=feed,
                    checkpoints=checkpoints,
                    bad_files=bad_files,
                    clock=clock,
                    steps_per_epoch=steps_per_epoch,
                    first_step=int(state.step),
                )
                loop.begin(baseline, list(filter(None, remarks)))
                state = loop.run(step, state)
        summarize(config, workdir, baseline=baseline, clock=clock, feed=feed)
    return state


def _open(
    config: ml_collections.ConfigDict, devices: int, given: Any, workdir: str
) -> tuple[ml_collections.ConfigDict, str, Data]:
    """Returns the config with every field chosen, what was in words, and the images."""
    if given is not None:
        config = named_python(config)
    config, chosen = choose_from_data(
        config, devices=devices, given=given, workdir=workdir
    )
    check_config(config, devices=devices)
    check_loggers(config.log.to)
    data = open_data(config.data, given)
    check_against_data(config, data.train.size)
    config, ordered = choose_order(config, images=data.train.size)
    return config, "; ".join(filter(None, (chosen, ordered))), data


def _check_not_beyond(step: int, config, steps_per_epoch: int) -> None:
    total = config.epochs * steps_per_epoch
    if step > total:
        raise ValueError(
            f"the run is at step {step} of the {total} that epochs={config.epochs} are "
            f"with {steps_per_epoch} steps each; use more epochs, or another --workdir"
        )


def _baseline(
    knn: OnlineKnn, untrained: TrainState, start: TrainState, workdir: str
) -> dict[str, float]:
    """Returns kNN on what the run starts from, measured once a run."""
    known = from_first(
        lambda: next(
            (line for line in read_metrics(workdir) if "knn_untrained" in line), {}
        )
    )
    if known:
        return {name: value for name, value in known.items() if name != "step"}
    if knn.possible:
        say("measuring kNN before training")
    return knn.baseline(untrained, start)
