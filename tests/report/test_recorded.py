"""What was recorded of a recipe is said of that recipe alone, and is what was run."""

from __future__ import annotations

import importlib
import json
import math
import statistics
from pathlib import Path
from types import SimpleNamespace

import pytest
from scipy import stats

from snclr_jax.report.recorded import RECORDED, recorded
from snclr_jax.report.summary import summarize
from snclr_jax.run.metrics import Clock

FIGURES = Path(__file__).parents[2] / "benchmarks" / "figures"
every_record = pytest.mark.parametrize(
    "record", RECORDED, ids=lambda each: f"{each.recipe}:{each.variants}"
)


def config_of(record):
    module = importlib.import_module(f"snclr_jax.configs.{record.recipe}")
    return module.get_config(record.variants)


@every_record
def test_a_run_of_the_recipe_says_what_was_recorded(record):
    config = config_of(record)
    said = recorded(config)
    assert said == (
        f"recorded on {record.images}, {record.seeds} seeds: {record.neighbors}% with "
        f"soft neighbors, {record.none}% without (K = 0)"
    )
    # What a run chooses itself, and what moves no score but as a seed does.
    config.data.order, config.seed, config.log.every_steps = "random", 7, 10
    assert recorded(config) == said


@every_record
@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 3},
        {"objective.queue.k": 0},
        {"evaluate.k": 1},
        {"augment.view1.flip": 0.5},
    ],
)
def test_a_run_of_other_settings_says_nothing(record, change):
    config = config_of(record)
    config.update_from_flattened_dict(change)
    assert recorded(config) == ""


@every_record
def test_what_is_recorded_is_of_the_runs_that_are_kept(record):
    lines = (FIGURES / f"neighbors-{record.recipe}.jsonl").read_text().splitlines()
    knn = {line["run"]: line["knn"] for line in map(json.loads, lines)}
    loss = record.variants.replace("_", "-") or "snclr--paper"
    # Both are DCL then.
    none = loss.replace("memory", "soft")
    epochs = config_of(record).epochs
    for runs_of, said in (
        (f"found-{loss}", record.neighbors),
        (f"none--K---0--{none}", record.none),
    ):
        runs = [f"{runs_of}-{epochs}-{seed}" for seed in range(record.seeds)]
        values = [knn[run] for run in runs]
        deviation = statistics.stdev(values) / math.sqrt(len(values))
        half = stats.t.ppf(0.975, len(values) - 1) * deviation
        assert said == f"{statistics.mean(values):.1f} ± {half:.1f}"


def test_it_is_the_last_line_of_a_run(tmp_path, capsys):
    config = config_of(RECORDED[1])
    feed = SimpleNamespace(resident=True)
    for epochs in (config.epochs, 3):
        config.epochs = epochs
        summarize(config, str(tmp_path), baseline={}, clock=Clock(), feed=feed)
        *_, last = capsys.readouterr().out.splitlines()
        assert last == (recorded(config) or "trained for 0 s at 0 images/s")
    assert last.startswith("trained")


def test_a_summary_has_the_last_evaluation(tmp_path):
    lines = [
        {"step": 10, "knn": 50.0, "knn_balanced": 40.0},
        {"step": 20, "knn": 60.0, "knn_balanced": 41.0},
        {"step": 30, "knn": 55.0, "knn_balanced": 42.0},
        {"step": 30, "evaluation_seconds": 1.0},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "metrics.jsonl").write_text(text)
    summarize(
        config_of(RECORDED[1]),
        str(tmp_path),
        baseline={"knn_untrained": 20.0},
        clock=Clock(train_seconds=4.0, images=1000, waited=1.0),
        feed=SimpleNamespace(resident=False),
    )
    assert json.loads((tmp_path / "summary.json").read_text()) == {
        "knn_untrained": 20.0,
        "knn_trained": 55.0,
        "knn_trained_balanced": 42.0,
        "train_seconds": 4.0,
        "images_per_second": 250,
        "data_wait": 0.25,
    }
