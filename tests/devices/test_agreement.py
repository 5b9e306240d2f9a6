"""Processes that are not of one run are told so, each of them, before they compute."""

from __future__ import annotations

import itertools
import json

import jax
import pytest
from jax._src import distributed

from snclr_jax.devices import agreement
from snclr_jax.devices.agreement import in_agreement, refusal
from snclr_jax.devices.processes import KINDS


def facts(**values) -> dict:
    return {"facts": values}


SAME = facts(config={"seed": 0, "data": {"path": "a"}}, code="1")
ERROR = {"error": "data.path is 'b', which is not a folder", "kind": 0}


@pytest.mark.parametrize(
    "answers, said",
    [
        ([SAME, SAME], ""),
        (
            [
                facts(config={"data": {"path": "a"}}),
                facts(config={"data": {"path": 1}}),
            ],
            "config.data.path is 'a' in process 0 and 1 in process 1.",
        ),
        (
            [facts(code="1"), facts(code="2"), facts(code="1")],
            "code is '1' in processes 0, 2 and '2' in process 1.",
        ),
        ([facts(a=1), facts()], "a is 1 in process 0 and None in process 1."),
        ([facts(a=1, b=1), facts(a=2, b=2)], "in process 1; b is 1 in process 0"),
        (
            [facts(**{f"f{i}": process for i in range(9)}) for process in range(2)],
            "; and 4 more. Start all",
        ),
        (
            [facts(a=process == 9) for process in range(10)],
            "False in processes 0, 1, 2, 3, 4 and 4 more and True in process 9",
        ),
        ([SAME, ERROR], f"process 1: {ERROR['error']}"),
        ([ERROR, ERROR], ERROR["error"]),
    ],
)
def test_a_refusal_gives_every_value_and_who_has_it(answers, said):
    whole = refusal(answers)
    assert said in whole and (said or not whole)
    assert "\n" not in whole
    if answers == [ERROR, ERROR]:  # what one process alone would say
        assert whole == said


class Service:
    """The store of `jax.distributed`, with what other processes have said in it."""

    def __init__(self, answers: dict[str, object]) -> None:
        self.values = {
            f"snclr/agreement/0/{k}": json.dumps(a) for k, a in answers.items()
        }

    def key_value_set(self, key: str, value: str) -> None:
        assert key not in self.values
        self.values[key] = value

    def blocking_key_value_get(self, key: str, milliseconds: int) -> str:
        if key not in self.values:
            raise jax.errors.JaxRuntimeError("DEADLINE_EXCEEDED: timed out")
        return self.values[key]


@pytest.fixture
def one_of_three(monkeypatch):
    """Makes this process one of three, of which the others have given answers."""

    def make(process: int, answers: dict[str, object]) -> Service:
        service = Service(answers)
        monkeypatch.setattr(jax, "process_count", lambda: 3)
        monkeypatch.setattr(jax, "process_index", lambda: process)
        monkeypatch.setattr(distributed.global_state, "client", service)
        monkeypatch.setattr(agreement, "_MEETINGS", itertools.count())
        monkeypatch.setattr(agreement, "ARRIVAL_SECONDS", 0)
        return service

    return make


def test_the_first_process_compares_and_tells_the_others(one_of_three):
    service = one_of_three(0, {"1": facts(a=1), "2": facts(a=2)})
    with pytest.raises(ValueError, match="a is 1 in processes 0, 1 and 2 in process 2"):
        in_agreement(lambda: 1, lambda a: {"a": a})
    told = json.loads(service.values["snclr/agreement/0/refusal"])
    assert told[0] == [] and told[2] == 0
    one_of_three(1, {"refusal": told})
    with pytest.raises(ValueError, match="a is 1 in processes 0, 1 and 2 in process 2"):
        in_agreement(lambda: 1, lambda a: {"a": a})
    one_of_three(1, {"refusal": [[], "", 0]})
    assert in_agreement(lambda: 1, lambda a: {"a": a}) == 1


@pytest.mark.parametrize(
    "error, heard, words",
    [
        (ValueError, ValueError, "it broke"),
        (jax.errors.JaxRuntimeError, RuntimeError, "JaxRuntimeError: it broke"),
        (OSError, OSError, "it broke"),
    ],
)
def test_what_one_process_cannot_do_ends_all_of_them(one_of_three, error, heard, words):
    """A mount that may come back refuses the others as little as this process."""

    def fail() -> None:
        raise error("it broke\nin many lines" if heard is RuntimeError else "it broke")

    told = [[], f"process 2: {words}", KINDS.index(heard)]
    service = one_of_three(2, {"refusal": told})
    with pytest.raises(error, match="^it broke") as own:
        in_agreement(fail, lambda _: {})
    assert own.type is error
    answer = json.loads(service.values["snclr/agreement/0/2"])
    service = one_of_three(0, {"1": facts(), "2": answer})
    with pytest.raises(heard, match=f"^process 2: {words}$"):
        in_agreement(lambda: None, lambda _: {})
    assert json.loads(service.values["snclr/agreement/0/refusal"]) == told
    one_of_three(1, {"refusal": told})
    with pytest.raises(heard, match=f"^process 2: {words}$"):
        in_agreement(lambda: None, lambda _: {})
    # One that is refused for good refuses all.
    one_of_three(0, {"1": ERROR, "2": answer})
    with pytest.raises(ValueError, match="process 1: data.path is 'b'"):
        in_agreement(lambda: None, lambda _: {})


def test_one_that_does_not_come_is_named_and_not_waited_for_for_ever(one_of_three):
    service = one_of_three(0, {"1": facts()})
    with pytest.raises(TimeoutError, match="^process 2 of 3 did not get as far"):
        in_agreement(lambda: None, lambda _: {})
    told = json.loads(service.values["snclr/agreement/0/refusal"])
    one_of_three(1, {"refusal": told})
    with pytest.raises(TimeoutError, match="^process 2 of 3 did not get as far"):
        in_agreement(lambda: None, lambda _: {})
    one_of_three(1, {"2": facts()})
    with pytest.raises(TimeoutError, match="^process 0 of 3 did not get as far"):
        in_agreement(lambda: None, lambda _: {})


def test_another_error_of_the_service_is_not_taken_for_absence(one_of_three):
    service = one_of_three(1, {})

    def gone(key: str, milliseconds: int) -> str:
        raise jax.errors.JaxRuntimeError("UNAVAILABLE: connection refused")

    service.blocking_key_value_get = gone
    with pytest.raises(jax.errors.JaxRuntimeError, match="UNAVAILABLE"):
        in_agreement(lambda: None, lambda _: {})
