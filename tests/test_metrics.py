"""Metrics: every step once, means over an interval, and numbers only."""

from __future__ import annotations

import jax.numpy as jnp
import pytest

from snclr_jax.metrics import (
    METRICS_FILE,
    MetricWriter,
    NonFiniteError,
    PendingMetrics,
    read_metrics,
)


def metrics(loss, **others):
    values = {"loss": loss, "gradient_norm": 1.0, "parameter_norm": 1.0} | others
    return {name: jnp.float32(value) for name, value in values.items()}


def test_an_interval_is_averaged_and_taken_once():
    pending = PendingMetrics()
    assert pending.take() is None
    for step in (1, 2, 3):
        pending.add(step, metrics(float(step)))
    step, count, means = pending.take()
    assert (step, count, means["loss"]) == (3, 3, 2.0)
    assert pending.take() is None


@pytest.mark.parametrize("name", ["loss", "gradient_norm", "parameter_norm"])
def test_the_first_step_that_is_no_number_is_named(name):
    pending = PendingMetrics()
    pending.add(7, metrics(1.0))
    pending.add(8, metrics(1.0) | {name: jnp.float32("nan")})
    pending.add(9, metrics(1.0) | {name: jnp.float32("inf")})
    with pytest.raises(NonFiniteError, match=f"step 8 is not finite.*{name} nan"):
        pending.take()


def test_a_continued_run_writes_every_step_once(tmp_path):
    writer = MetricWriter(tmp_path, first_step=0)
    for step in (0, 10, 20, 30):
        writer.write(step, {"loss": float(step)})
    writer.close()
    with (tmp_path / METRICS_FILE).open("a") as file:
        file.write('{"step": 40, "lo')  # killed while it wrote
    writer = MetricWriter(tmp_path, first_step=20)
    writer.write(30, {"loss": -1.0})
    writer.close()
    lines = [(line["step"], line["loss"]) for line in read_metrics(tmp_path)]
    assert lines == [(0, 0.0), (10, 10.0), (20, 20.0), (30, -1.0)]
    assert any((tmp_path / "tensorboard").iterdir())
