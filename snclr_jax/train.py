"""The training loop: data in, compiled step, metrics and checkpoints out."""

from __future__ import annotations

import contextlib
import functools
import json
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

import jax
import ml_collections
import numpy as np
from etils import epath

from snclr_jax.data import Data, open_data
from snclr_jax.data.bad_files import FILE as BAD_FILES
from snclr_jax.data.bad_files import BadFiles
from snclr_jax.data.choose import choose_from_data
from snclr_jax.data.depth import note_on_range
from snclr_jax.data.feed import Feed
from snclr_jax.data.python_source import named_python
from snclr_jax.devices.agreement import in_agreement
from snclr_jax.devices.mesh import has_cudnn_attention, make_mesh
from snclr_jax.devices.processes import from_first
from snclr_jax.devices.stop_requests import Interrupted, StopRequests
from snclr_jax.encoder.init_from import init_from
from snclr_jax.evaluate.frozen.accuracy import BALANCED, in_words
from snclr_jax.evaluate.online import (
    Evaluator,
    OnlineChoices,
    OnlineKnn,
    OnlineProbe,
    Run,
)
from snclr_jax.models import build_model
from snclr_jax.report.online import OnlineGallery
from snclr_jax.run.checkpoint import Checkpoints
from snclr_jax.run.common import common_facts
from snclr_jax.run.digest import digest_of_json, digests
from snclr_jax.run.files import SUMMARY_FILE, write_whole
from snclr_jax.run.metrics import (
    Clock,
    MetricWriter,
    PendingMetrics,
    Progress,
    read_metrics,
    say,
)
from snclr_jax.run.stopped import stop_written
from snclr_jax.run.workdir import own_workdir, record_run
from snclr_jax.settings.check import check_against_data, check_config, notes
from snclr_jax.settings.objective import build_objective
from snclr_jax.settings.paths import absolute_paths, expanded, located
from snclr_jax.step.optim import learning_rate, make_optimizer
from snclr_jax.step.probe import count_classes
from snclr_jax.step.state import TrainState, init_train_state
from snclr_jax.step.train_step import make_train_step, several_steps
from snclr_jax.step.views import Batch

EVALUATED = "evaluation_seconds"
LABELS = {
    "majority": "always the most frequent class",
    "knn_raw_pixels": "kNN on raw pixels",
    "knn_untrained": "kNN on the untrained encoder",
    "knn_initial": "kNN on the encoder of model.init_from",
    "knn_trained": "kNN on the trained encoder",
}
ONLINE = {"knn": "kNN", "probe_test": "online probe"}


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
    `shown.json`, `metrics.jsonl`, `tensorboard/`, `checkpoints/`, `summary.json`, where
    images cannot be read `bad_files.jsonl`, and where it stops early `stopped.json`.

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
        functools.partial(_open, config, mesh.size, data),
        lambda opened: common_facts(
            opened[0],
            opened[2].evidence,
            workdir=str(located(workdir)),
            evaluators=[type(evaluator).__name__ for evaluator in evaluators],
        ),
    )
    steps_per_epoch = data.train.size // config.batch_size

    objective = build_objective(config)
    model = build_model(
        config.model,
        predictor=objective.predictor,
        fused_attention=has_cudnn_attention(mesh),
    )
    optimizer = make_optimizer(config, learning_rate(config, steps_per_epoch))
    step = make_train_step(
        model, objective, optimizer, config, mesh, steps_per_epoch=steps_per_epoch
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
    feed = Feed(
        config,
        data.train,
        mesh,
        labels=config.evaluate.online_probe,
        most_steps=config.steps_per_call,
    )
    # What is kept holds from any folder; what was said so far is as it was typed.
    config = absolute_paths(config)
    run = Run(config, model, objective, mesh, data)
    knn = OnlineKnn(run)
    built_in = (OnlineGallery(run), knn, OnlineProbe(run), OnlineChoices(run))
    evaluators = [*(own for own in built_in if own.possible), *evaluators]
    with own_workdir(config, workdir, identity=data.identity, allow=allow) as changes:
        bad_files = BadFiles(workdir, data)
        checkpoints = Checkpoints(workdir, keep=config.checkpoint.keep)
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
        _summarize(workdir, baseline, clock, feed)
    return state


def _open(
    config: ml_collections.ConfigDict, devices: int, given: Any
) -> tuple[ml_collections.ConfigDict, str, Data]:
    """Returns the config with every field chosen, what was in words, and the images."""
    if given is not None:
        config = named_python(config)
    config, chosen = choose_from_data(config, devices=devices, given=given)
    check_config(config, devices=devices)
    data = open_data(config.data, given)
    check_against_data(config, data.train.size)
    return config, chosen, data


class Loop:
    """The loop over steps; one method for each thing that happens on the way."""

    def __init__(
        self,
        run: Run,
        workdir: str,
        *,
        evaluators: Sequence[Evaluator],
        feed: Feed,
        checkpoints: Checkpoints,
        bad_files: BadFiles,
        clock: Clock,
        steps_per_epoch: int,
        first_step: int,
    ) -> None:
        config = run.config
        self.context, self.config, self.workdir, self.feed = run, config, workdir, feed
        self.checkpoints, self.clock, self.first_step = checkpoints, clock, first_step
        self.steps_per_epoch = steps_per_epoch
        self.total_steps = config.epochs * steps_per_epoch
        self.evaluators = [
            (_steps_between(evaluator, steps_per_epoch), evaluator)
            for evaluator in evaluators
        ]
        # What happens at multiples of these happens between two calls.
        self.intervals = (
            self.total_steps,
            config.log.every_steps,
            config.checkpoint.every_steps,
            *(every for every, _ in self.evaluators if every),
        )
        self.bad_files, self.pending = bad_files, PendingMetrics()
        self.writer = MetricWriter(workdir, first_step=first_step)

    def run(self, step_function: Callable, state: TrainState) -> TrainState:
        """Takes every step from `first_step` on, and saves the last state."""
        with contextlib.closing(self.writer):
            if self._lacks_evaluation():
                self._evaluate(self.first_step, state)
            if self.first_step == self.total_steps:
                return state
            step = self.first_step
            batch = self.feed.next(steps=self._steps_of_call(step))
            calls = self._compile(step_function, state, batch)
            self.progress = Progress(
                self.total_steps, self.first_step, self.context.objective.shown
            )
            # Only from here on is there more than what is saved.
            with (
                StopRequests(self.context.mesh) as requests,
                contextlib.closing(self.progress),
            ):
                self.clock.start()
                while step < self.total_steps:
                    steps = self._steps_of_call(step)
                    state, metrics = calls[steps](state, batch)
                    # Fetched only now that the next step is under way: no waiting.
                    if step % self.config.log.every_steps == 0:
                        self._report()
                    step += steps
                    self.pending.add(step, metrics)
                    self.progress.advance(steps)
                    self._pause(step, state, requests.after(step))
                    if step < self.total_steps:
                        steps = self._steps_of_call(step)
                        batch = self.feed.next(metrics, steps=steps)
                self.checkpoints.wait()
        return state

    def begin(self, baseline: dict[str, float], remarks: list[str]) -> None:
        """Says what is about to happen, and writes step 0."""
        device = jax.devices()[0].device_kind
        say(
            f"{self.workdir}: steps {self.first_step} to {self.total_steps} on "
            f"{jax.device_count()} x {device}"
        )
        for remark in remarks:
            say(remark)
        if self.first_step == 0 and baseline:
            self.writer.write(0, baseline)
            for sentence in _accuracies(baseline):
                say(sentence)

    def _steps_of_call(self, step: int) -> int:
        """Returns how many steps the call after a step takes: all, or a single one.

        All where nothing is due before the last of them.
        """
        left = min(every - step % every for every in self.intervals)
        most = self.config.steps_per_call
        return most if most <= left else 1

    def _compile(
        self, step_function, state: TrainState, batch: Batch
    ) -> dict[int, Callable]:
        """Returns the compiled calls by their number of steps, for all that come."""
        say("compiling the training step; this may take a minute")

        def compiled() -> dict[int, Callable]:
            step, calls = self.first_step, {}
            kinds = {1, self.config.steps_per_call}
            while step < self.total_steps and calls.keys() != kinds:
                steps = self._steps_of_call(step)
                if steps not in calls:
                    call = step_function if steps == 1 else several_steps(step_function)
                    call = cast(jax.stages.Wrapped, call)
                    shaped = self.feed.shaped(batch, steps=steps)
                    calls[steps] = call.lower(state, shaped).compile()
                step += steps
            return calls

        started = time.perf_counter()
        # One that compiles for longer is waited for here: a collective gives up sooner.
        calls = in_agreement(compiled, lambda _: {})
        seconds = time.perf_counter() - started
        say(f"compiled the training step in {seconds:.0f} s")
        return calls

    def _pause(self, step: int, state: TrainState, stop_signal: int) -> None:
        """Saves, and stops or evaluates, where one of them is due after this step."""
        evaluates, last = bool(self._due(step)), step == self.total_steps
        stops = stop_signal and not last
        due = step % self.config.checkpoint.every_steps == 0
        if not (evaluates or stops or due or last):
            return
        # Also the check that what is about to be saved is finite.
        self._report()
        # The lines up to a checkpoint belong to it: a continuation keeps them.
        self.writer.flush()
        # Before an evaluation, which may take longer than a machine that goes has.
        self.checkpoints.save(
            state, self.feed.batches, self.clock.totals(), self.config
        )
        if stops:
            self.checkpoints.wait()
            say(
                f"stopped by {signal.Signals(stop_signal).name} and saved step {step} "
                f"in {self.workdir}; the same command continues from there"
            )
            raise Interrupted(stop_signal)
        if evaluates:
            self._evaluate(step, state)
        self.clock.start()

    def _due(self, step: int) -> list[Evaluator]:
        """Returns the evaluators that a step is for; the last step is for all."""
        last = step == self.total_steps
        return [
            evaluator
            for every, evaluator in self.evaluators
            if last or (every and step % every == 0)
        ]

    def _evaluate(self, step: int, state: TrainState) -> None:
        started, numbers = time.perf_counter(), {}
        for evaluator in self._due(step):
            for name, value in evaluator(state, self.context).items():
                if isinstance(value, np.ndarray):
                    self.writer.write_image(step, name, value)
                elif value is not None:
                    numbers[name] = float(value)
        seconds = time.perf_counter() - started
        # In one line and after all of them: it says that none is lacking.
        self.writer.write(step, numbers | {EVALUATED: seconds})
        if numbers:
            say(f"step {step}: {_said(numbers)}")
        self.writer.flush()

    def _lacks_evaluation(self) -> bool:
        """Whether the run ended between a checkpoint and the evaluation after it."""
        step = self.first_step
        if step == 0 or not self._due(step):
            return False

        def lacks() -> bool:
            lines = read_metrics(self.workdir)
            return not any(line["step"] == step and EVALUATED in line for line in lines)

        return from_first(lacks)

    def _report(self) -> None:
        taken = self.pending.take()
        if taken is None:
            return
        step, steps, means = taken
        images, waited = steps * self.config.batch_size, self.feed.take_waited()
        seconds = self.clock.lap(images, waited)
        means["images_per_second"] = images / seconds
        # What the whole run takes follows from it, see run/watch.py.
        means["epoch"] = step / self.steps_per_epoch
        if not self.feed.resident:
            means["data_wait"] = waited / seconds
        new = self.bad_files.update()
        if self.bad_files.count:
            means["bad_images"] = self.bad_files.count
        self.writer.write(step, means)
        if new:
            say(
                f"{new} images cannot be read and are replaced by others; see "
                f"{self.workdir}/{BAD_FILES}"
            )
        self.progress.show(step, means)


def _steps_between(evaluator: Evaluator, steps_per_epoch: int) -> int:
    """Returns the interval of an evaluator in steps; 0 is the last step alone."""
    every: dict[str, int] = {
        name: getattr(evaluator, name) * steps
        for name, steps in (("every_steps", 1), ("every_epochs", steps_per_epoch))
        if hasattr(evaluator, name)
    }
    if len(every) != 1:
        raise ValueError(
            f"evaluator {evaluator!r} has to have either every_steps or every_epochs, "
            "an integer; 0 is the last step alone"
        )
    return next(iter(every.values()))


def _said(numbers: dict[str, float]) -> str:
    return ", ".join(
        f"{ONLINE[name]} {in_words(numbers, name)}"
        if name in ONLINE
        else f"{name} {value:.4g}"
        for name, value in numbers.items()
        # A balanced accuracy is in the words of its accuracy.
        if name.removesuffix(BALANCED) not in ONLINE.keys() - {name}
    )


def _accuracies(numbers: dict[str, float]) -> list[str]:
    return [
        f"{label}: {in_words(numbers, name)}"
        for name, label in LABELS.items()
        if name in numbers
    ]


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


def _summarize(
    workdir: str, baseline: dict[str, float], clock: Clock, feed: Feed
) -> None:
    """Writes and prints `summary.json`: accuracies in percent, and the time."""
    if jax.process_index() != 0:
        return
    scores = [line for line in read_metrics(workdir) if "knn" in line]
    summary = dict(baseline)
    for name, value in scores[-1].items() if scores else ():
        if name.startswith("knn"):
            summary[name.replace("knn", "knn_trained")] = value
    summary["train_seconds"] = round(clock.train_seconds, 1)
    seconds = max(clock.train_seconds, 1e-9)
    summary["images_per_second"] = round(clock.images / seconds)
    if not feed.resident:
        summary["data_wait"] = round(clock.waited / seconds, 4)
    path = epath.Path(workdir) / SUMMARY_FILE
    write_whole(path, json.dumps(summary, indent=2) + "\n")
    say(_sentence(summary))


def _sentence(summary: dict[str, float]) -> str:
    lines = _accuracies(summary)
    lines.append(
        f"trained for {summary['train_seconds']:.0f} s "
        f"at {summary['images_per_second']} images/s"
    )
    if "data_wait" in summary:
        lines.append(f"waited for data {summary['data_wait']:.0%} of that time")
    return "\n".join(lines)
