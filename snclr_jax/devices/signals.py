"""Signals that ask a process to stop; without JAX, which takes seconds to load."""

from __future__ import annotations

import os
import signal
import threading

# Ctrl-C, a closed terminal, and what schedulers, launchers and limits of CPU time send
# before they kill.
SIGNALS = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGXCPU,
)

# What a program says that saves nothing at its end: what is on disk is whole.
ENDED = "stopped; the same command continues"


def heeded() -> list[signal.Signals]:
    """Returns those that this process does not ignore, as nohup has SIGHUP ignored."""
    return [each for each in SIGNALS if signal.getsignal(each) is not signal.SIG_IGN]


def end_at_once() -> None:
    """Lets each of them end the process with one line and the status 128 + signal.

    For the whole time of a program, but where others handle them: what is on disk is
    whole at any moment, as for SIGKILL. Nothing is raised: the main thread may be
    compiling, which hears of no signal for minutes, and an exception in the middle of
    it, or a clean exit with its threads at work, may crash.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)
    for each in heeded():
        signal.signal(each, _left_to_the_thread)
    threading.Thread(target=_end_when_asked, args=(reader,), daemon=True).start()


def say_at_once(text: str) -> None:
    """Writes a line to stderr, also in the middle of the writing of another."""
    try:
        bar = "\n" if os.isatty(2) else ""  # perhaps, in the line that the cursor is in
        os.write(2, f"{bar}snclr: {text}\n".encode())
    except OSError:  # such as that of a terminal that was closed
        pass


def _left_to_the_thread(number: int, frame) -> None:
    """What tells `_end_when_asked` that a signal is handled by nobody else."""


def _end_when_asked(reader: int) -> None:
    while True:
        (number,) = os.read(reader, 1)
        if signal.getsignal(number) is _left_to_the_thread:
            say_at_once(ENDED)
            os._exit(128 + number)
