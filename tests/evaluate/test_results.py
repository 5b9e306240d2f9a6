"""The records of evaluations: one of each thing, and the newest last."""

from __future__ import annotations

from etils import epath

from snclr_jax.evaluate.results import IDENTITY, add_record, read_records


def record(what: str, value: float, when: str) -> dict:
    same = dict.fromkeys(IDENTITY, "same")
    return same | {"what": what, "metrics": {"top1": value}, "when": when}


def test_the_newest_record_is_the_last_whatever_the_clock_says(tmp_path):
    path = epath.Path(tmp_path) / "evaluation.json"
    for added in (
        record("knn", 1.0, "2026-10-25T02:40:00"),
        record("linear", 2.0, "2026-10-25T02:50:00"),
        record("knn", 3.0, "2026-10-25T01:10:00+00:00"),  # after daylight saving
    ):
        add_record(path, added)
    kept = [(each["what"], each["metrics"]["top1"]) for each in read_records(path)]
    assert kept == [("linear", 2.0), ("knn", 3.0)]
