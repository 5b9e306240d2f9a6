"""Requests to stop: a signal to any process, heard by all of them at the same step."""

from __future__ import annotations

import signal
import threading

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from snclr_jax.devices.mesh import place_batch, replicated
from snclr_jax.devices.signals import heeded, say_at_once

# Steps between two questions to the other processes, or more where a call takes more; a
# request is heard after at most twice as many.
ASK_STEPS = 4
# Whoever sends one of these again is in a hurry. The others come again by themselves:
# SIGHUP from the terminal and from its shell, SIGXCPU every second.
URGENT = (signal.SIGINT, signal.SIGTERM)


class Interrupted(SystemExit):
    """The run was asked to stop, has saved its state and can be continued.

    Args:
      signal: what asked for it; the exit status is 128 more.
    """

    def __init__(self, signal: int) -> None:
        super().__init__(128 + signal)
        self.signal = signal


class StopRequests:
    """Collects `SIGNALS`; a second SIGINT or SIGTERM does what it did before.

    Many processes save together, so they have to stop after the same step, whoever got
    the signal. Every `ASK_STEPS` steps the devices compute the largest signal of all
    processes, in the queue behind the step; it is read when the next question is asked,
    so that nobody waits. A process on its own asks nobody.

    Used as a context; the handlers of before are back after it.

    Args:
      mesh: the devices of all processes.
    """

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self._received = 0
        self._handlers: dict = {}
        self._asked: jax.Array | None = None
        self._asked_after = 0
        self._largest = jax.jit(jnp.max, out_shardings=replicated(mesh))

    def __enter__(self) -> StopRequests:
        # Python handles signals in its main thread alone.
        if threading.current_thread() is threading.main_thread():
            self._handlers = {
                number: signal.signal(number, self._receive) for number in heeded()
            }
        return self

    def __exit__(self, *error) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def after(self, step: int) -> int:
        """Returns the signal to stop for after a step, the same everywhere; 0 for none.

        Args:
          step: each process asks once after every call, of one step or several.
        """
        if jax.process_count() == 1:
            return self._received
        if step // ASK_STEPS == self._asked_after // ASK_STEPS:
            return 0
        self._asked_after = step
        answer, self._asked = self._asked, self._ask()
        return 0 if answer is None else int(answer)

    def _ask(self) -> jax.Array:
        here = np.full(len(self._mesh.local_devices), self._received, np.int32)
        return self._largest(place_batch(here, self._mesh))

    def _receive(self, number: int, frame) -> None:
        del frame
        if self._received:
            if number in URGENT:
                signal.signal(number, self._handlers[number])
                signal.raise_signal(number)
            return
        self._received = number
        if jax.process_index() == 0:
            say_at_once(
                f"{signal.Signals(number).name}: the run saves and stops; a second "
                "Ctrl-C or SIGTERM ends it at once, without saving"
            )
