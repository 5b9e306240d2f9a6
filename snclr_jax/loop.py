"""The loop over steps, and what happens on the way: metrics, saving, evaluations."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Sequence
from typing import cast

import jax
import numpy as np

from snclr_jax.data.bad_files import FILE as BAD_FILES
from snclr_jax.data.bad_files import BadFiles
from snclr_jax.data.feed import Feed
from snclr_jax.devices.agreement import in_agreement
from snclr_jax.devices.processes import from_first
from snclr_jax.devices.stop_requests import Interrupted, StopRequests
from snclr_jax.evaluate.online import Evaluator, Run
from snclr_jax.report.summary import accuracies, in_sentence
from snclr_jax.run.checkpoint import Checkpoints
from snclr_jax.run.metrics import (
    Clock,
    MetricWriter,
    PendingMetrics,
    Progress,
    read_metrics,
    say,
)
from snclr_jax.run.workdir import as_json
from snclr_jax.step.state import TrainState
from snclr_jax.step.train_step import several_steps
from snclr_jax.step.views import Batch

EVALUATED = "evaluation_seconds"


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
        self.writer = MetricWriter(
            workdir,
            first_step=first_step,
            to=config.log.to,
            settings=as_json(config),
        )

    def run(self, step_function: Callable, state: TrainState) -> TrainState:
        """Takes every step from `first_step` on, and saves the last state."""
        with contextlib.closing(self.writer):
            if self._lacks_evaluation():
                self._evaluate(self.first_step, state)
            if self.first_step == self.total_steps:
                return state
            step = self.first_step
            steps = self._steps_of_call(step)
            batch = self.feed.next(steps=steps)
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
            for sentence in accuracies(baseline):
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
            say(f"step {step}: {in_sentence(numbers)}")
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
