"""Whether all processes have the same before them, before they compute together."""

from __future__ import annotations

import contextlib
import itertools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import jax
from jax._src import distributed  # its client has no public name

from snclr_jax.devices.processes import KINDS, told

# One machine may need minutes to list a large folder that another has at hand. Nothing
# else gives up meanwhile: that begins with the first collective, where Gloo waits 30 s.
ARRIVAL_SECONDS = 600
POLL_MILLISECONDS = 1000  # a wait in one piece would keep Ctrl-C waiting, too
_SHOWN = 5  # differences that a refusal names
_MEETINGS = itertools.count()

T = TypeVar("T")
Answer = Mapping[str, Any]


def in_agreement(
    compute: Callable[[], T], facts: Callable[[T], Mapping[str, Any]]
) -> T:
    """Returns what `compute` does, where every process then states the same facts.

    Processes that differ would train on together, each on something else, or wait for
    one another for ever. They compare through the service by which they found each
    other: no device has computed anything yet. All of them call it, as often.

    Args:
      compute: what may fail on one machine alone, such as opening the images.
      facts: of what it returned: what JSON can hold, by name, in sections or not.

    Raises:
      ValueError: on every process, where a fact differs, with its values; where
        `compute` raises it on one of them.
      RuntimeError: on every other process, where it raises anything else on one.
      OSError: on every process, where `compute` raises nothing else on any: it may
        pass, and then the others are not refused either.
      TimeoutError: on every process, where one does not come within
        `ARRIVAL_SECONDS`.
    """
    if jax.process_count() == 1:
        return compute()
    try:
        result = compute()
        answer = {"facts": facts(result)}
    except Exception as error:
        # The others hear of it, and all end together.
        with contextlib.suppress(*KINDS):
            _meet(told(error))
        raise
    _meet(answer)
    return result


def refusal(answers: Sequence[Answer]) -> str:
    """Returns why processes cannot go on together; "" where they can.

    Args:
      answers: of every process, in their order: {"facts": ...} or what `told` returns.
    """
    errors = _by_value(
        {p: answer["error"] for p, answer in enumerate(answers) if "error" in answer}
    )
    if len(errors) == 1 and all("error" in answer for answer in answers):
        return next(iter(errors))
    if errors:
        return "; ".join(f"{_named(of)}: {error}" for error, of in errors.items())
    facts = [_flat(answer["facts"]) for answer in answers]
    differing = {}
    for name in dict.fromkeys(name for own in facts for name in own):
        values = _by_value({p: repr(own.get(name)) for p, own in enumerate(facts)})
        if len(values) > 1:
            differing[name] = values
    if not differing:
        return ""
    said = [
        f"{name} is "
        + " and ".join(f"{value} in {_named(of)}" for value, of in values.items())
        for name, values in itertools.islice(differing.items(), _SHOWN)
    ]
    more = len(differing) - len(said)
    said += [f"and {more} more"] if more else []
    return (
        f"the processes differ: {'; '.join(said)}. Start all of them with the same "
        "command, code, packages, images and files of the run"
    )


def _meet(answer: Answer) -> None:
    """Gives this process's answer, and raises the refusal, which process 0 finds."""
    client: Any = distributed.global_state.client  # there where processes are several
    key = f"snclr/agreement/{next(_MEETINGS)}"
    process, processes = jax.process_index(), jax.process_count()
    client.key_value_set(f"{key}/{process}", json.dumps(answer))
    if process:
        # Process 0 may come last, and then waits for others.
        end = time.monotonic() + 2 * ARRIVAL_SECONDS
        found = _wait_for(client, f"{key}/refusal", end)
        absent, refused, kind = json.loads(found) if found else ([0], "", 0)
        _raise(absent, refused, kind)
        return
    end = time.monotonic() + ARRIVAL_SECONDS
    given = [_wait_for(client, f"{key}/{other}", end) for other in range(processes)]
    absent = [other for other, answer in enumerate(given) if answer is None]
    answers = [json.loads(own) for own in given if own]
    refused = "" if absent else refusal(answers)
    # Facts that differ are refused.
    kind = min((own["kind"] for own in answers if "error" in own), default=0)
    client.key_value_set(f"{key}/refusal", json.dumps([absent, refused, kind]))
    _raise(absent, refused, kind)


def _wait_for(client: Any, key: str, end: float) -> str | None:
    """Returns a value that another process sets; None where it does not until `end`."""
    while True:
        last = time.monotonic() > end
        try:
            return client.blocking_key_value_get(key, POLL_MILLISECONDS)
        except jax.errors.JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise
        if last:
            return None


def _raise(absent: Sequence[int], refused: str, kind: int) -> None:
    if absent:
        raise TimeoutError(
            f"{_named(absent)} of {jax.process_count()} did not get as far as the "
            f"others within {ARRIVAL_SECONDS // 60} minutes; see what is printed "
            "there, end what is left, and start all processes again"
        )
    if refused:
        raise KINDS[kind](refused)


def _by_value(values: Mapping[int, str]) -> dict[str, list[int]]:
    """Returns which processes have each value."""
    of: dict[str, list[int]] = {}
    for process, value in values.items():
        of.setdefault(value, []).append(process)
    return of


def _named(processes: Sequence[int]) -> str:
    """Says which processes these are: all of a few, and how many there are of many."""
    first = ", ".join(map(str, processes[:_SHOWN]))
    more = len(processes) - _SHOWN
    rest = f" and {more} more" if more > 0 else ""
    return f"process{'es' if len(processes) > 1 else ''} {first}{rest}"


def _flat(facts: Any, name: str = "") -> dict[str, Any]:
    """Returns the facts by their full names, such as config.data.path."""
    if not isinstance(facts, Mapping):
        return {name: facts}
    start = f"{name}." if name else ""
    return {
        full: value
        for part, inner in facts.items()
        for full, value in _flat(inner, f"{start}{part}").items()
    }
