"""Signals: a run that is asked to stop hears each, and other programs end at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import jax
import pytest
from command import ROOT

from snclr_jax.devices.mesh import make_mesh
from snclr_jax.devices.signals import SIGNALS
from snclr_jax.devices.stop_requests import ASK_STEPS, StopRequests

NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
NUMBERS = [signal.Signals[name] for name in NAMES]
named = pytest.mark.parametrize("number", NUMBERS, ids=NAMES)


@pytest.fixture(autouse=True)
def not_ignored():
    """Tests may run under nohup, or in the background: so would the programs here."""
    before = {number: signal.getsignal(number) for number in NUMBERS}
    for number, handler in before.items():
        if handler is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@named
def test_each_asks_for_a_stop_and_is_acknowledged_at_once(number, capfd):
    assert number in SIGNALS  # or it would end the tests
    before = signal.getsignal(number)
    with StopRequests(make_mesh()) as requests:
        assert requests.after(1) == 0
        signal.raise_signal(number)
        assert f"snclr: {number.name}: the run saves and" in capfd.readouterr().err
        assert requests.after(2) == number
    assert signal.getsignal(number) == before


@named
def test_a_second_one_ends_it_where_its_sender_is_in_a_hurry(number):
    """SIGHUP comes from the terminal and from its shell, SIGXCPU every second."""
    ended = []
    before = signal.signal(number, lambda *_: ended.append(number))
    try:
        with StopRequests(make_mesh()) as requests:
            signal.raise_signal(number)
            assert not ended
            signal.raise_signal(number)
            urgent = number in (signal.SIGINT, signal.SIGTERM)
            assert ended == [number] * urgent
            assert requests.after(1) == number
    finally:
        signal.signal(number, before)


def test_what_nohup_has_ignored_stays_so():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequests(make_mesh()) as requests:
            signal.raise_signal(signal.SIGHUP)
            assert requests.after(1) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_signal_to_another_process_is_heard_everywhere_at_once(monkeypatch):
    """Processes that ask at the same steps hear the same, whoever got the signal."""
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    requests = StopRequests(make_mesh())
    largest = requests._largest
    # As if the last device were that of a process that got SIGTERM before step 4.
    requests._largest = lambda flags: largest(flags.at[-1].set(signal.SIGTERM))
    heard = {step: requests.after(step) for step in range(1, 2 * ASK_STEPS + 2)}
    assert {step: number for step, number in heard.items() if number} == {
        2 * ASK_STEPS: signal.SIGTERM
    }


def test_calls_of_several_steps_ask_too(monkeypatch):
    """Two at a time and from an odd step on: no call ends at a multiple of 4."""
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    requests = StopRequests(make_mesh())
    largest = requests._largest
    requests._largest = lambda flags: largest(flags.at[-1].set(signal.SIGTERM))
    heard = [requests.after(step) for step in range(103, 113, 2)]
    assert heard == [0, signal.SIGTERM, 0, signal.SIGTERM, 0]


# Busy as a compiler is: its main thread hears of a signal when all is done.
BUSY = """
import hashlib
from snclr_jax.devices.signals import end_at_once
end_at_once()
print("busy", flush=True)
hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
"""
# A signal that is handled otherwise, as by `StopRequests`.
HANDLED = """
import signal, time
from snclr_jax.devices.signals import SIGNALS, end_at_once
end_at_once()
for number in SIGNALS:
    signal.signal(number, lambda *_: None)
    signal.raise_signal(number)
time.sleep(0.2)
print("goes on")
"""


def python(code: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_busy_program_ends_at_once_with_one_line():
    programs = {number: python(BUSY) for number in NUMBERS}
    try:
        for number, program in programs.items():
            assert program.stdout.readline() == "busy\n"
            program.send_signal(number)
            _, errors = program.communicate(timeout=10)
            assert errors == "snclr: stopped; the same command continues\n"
            assert program.returncode == 128 + number
    finally:
        for program in programs.values():
            program.kill()


def test_a_signal_that_is_handled_otherwise_ends_nothing():
    said, errors = python(HANDLED).communicate(timeout=20)
    assert (said, errors) == ("goes on\n", "")
