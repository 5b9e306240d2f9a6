"""`snclr compare` on runs that were never trained."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import ttest_1samp, ttest_rel

from snclr_jax.evaluate.intervals import mean_and_interval
from snclr_jax.report.compare import compare


def make_run(
    folder: Path,
    *,
    seed: int = 0,
    k: int = 5,
    lines: list[dict] | None = None,
    records: list[dict] | None = None,
    **fields: Any,
) -> str:
    """Writes what a run leaves behind, and returns its workdir."""
    config = {"seed": seed, "objective": {"queue": {"k": k, "size": 64}}, **fields}
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    text = "".join(json.dumps(line) + "\n" for line in lines or [])
    (folder / "metrics.jsonl").write_text(text)
    if records is not None:
        content = {"version": 1, "records": records}
        (folder / "evaluation.json").write_text(json.dumps(content))
    return str(folder)


def record(value: float, **fields: Any) -> dict[str, Any]:
    defaults = {
        "what": "knn",
        "encoder": "trained",
        "network": "target",
        "step": 100,
        "fingerprint": "sha256:0",
        "data": "own",
        "settings": {"k": [20]},
        "metrics": {"knn_k20": value},
        "when": "2026-01-01T00:00:00",
    }
    return defaults | fields


def scored(folder: Path, name: str, values: list[float], **fields: Any) -> list[str]:
    """One run for each value, seeds 0, 1, ..."""
    return [
        make_run(folder / f"{name}{seed}", seed=seed, records=[record(value)], **fields)
        for seed, value in enumerate(values)
    ]


def table(text: str, title: str) -> dict[str, list[str]]:
    """The cells of a table by the label of their row; the header's label is ""."""
    (part,) = [p for p in text.split("\n\n") if p.split("\n")[0] == title]
    rows = {}
    for line in part.split("\n")[1:]:
        label = line[: len(line) - len(line.lstrip())] or line.split("  ")[0]
        cells = [cell for cell in line[len(label) :].split("  ") if cell.strip()]
        rows[label.strip()] = [cell.strip() for cell in cells]
    return rows


EVALUATION = "evaluation: mean ± half of its 95% interval"
DIFFERENCE = "evaluation: difference to A"


def test_interval_is_that_of_scipy():
    values = np.random.default_rng(0).normal(80, 3, 5)
    low, high = ttest_1samp(values, 0).confidence_interval(0.95)
    mean, half = mean_and_interval(values)
    assert (mean - half, mean + half) == pytest.approx((low, high))
    assert mean_and_interval([3.0]) == (3.0, None)


def test_seeds_are_one_group_and_their_differences_are_paired(tmp_path):
    first, second = [80.0, 82.0, 90.0], [81.0, 83.5, 91.25]
    workdirs = scored(tmp_path, "a", first) + scored(tmp_path, "b", second, k=0)
    text = compare(workdirs)
    assert table(text, "settings that differ") == {
        "": ["A", "B"],
        "objective.queue.k": ["5", "0"],
    }
    # Student's t for 2 degrees of freedom leaves 2.5% above 4.3027 (any table).
    halves = [4.3027 * np.std(v, ddof=1) / math.sqrt(3) for v in (first, second)]
    assert table(text, EVALUATION)["knn_k20"] == [
        f"84.00 ± {halves[0]:.2f}",
        f"{np.mean(second):.2f} ± {halves[1]:.2f}",
    ]
    low, high = ttest_rel(second, first).confidence_interval(0.95)
    assert table(text, DIFFERENCE) == {
        "": ["B"],
        "knn_k20": [f"+{(low + high) / 2:.2f} ± {(high - low) / 2:.2f}"],
    }
    assert (high - low) / 2 < min(halves) / 5  # what pairing is for


def test_legend_names_every_workdir(tmp_path):
    a0, b0, a1 = (
        make_run(tmp_path / "a0"),
        make_run(tmp_path / "b0", k=0),
        make_run(tmp_path / "a1", seed=1),
    )
    legend = compare([a0, b0, a1]).split("\n\n")[0]
    assert legend == f"A   seed 0  {a0}\n    seed 1  {a1}\nB   seed 0  {b0}"


def test_a_single_seed_has_no_interval(tmp_path):
    workdirs = scored(tmp_path, "a", [80.0]) + scored(tmp_path, "b", [79.5], k=0)
    text = compare(workdirs, everything=True)
    assert table(text, EVALUATION)["knn_k20"] == ["80.00", "79.50"]
    assert table(text, DIFFERENCE)["knn_k20"] == ["-0.50"]


def test_different_seeds_have_no_paired_difference(tmp_path):
    workdirs = scored(tmp_path, "a", [80.0, 81.0]) + scored(tmp_path, "b", [79.5], k=0)
    assert table(compare(workdirs), DIFFERENCE)["knn_k20"] == ["-"]


def test_differences_that_cancel_are_shown_as_zero(tmp_path):
    first, second = [65.9, 63.5], [72.1, 57.3]
    assert np.mean(np.subtract(second, first)) != 0  # rounding
    text = compare(scored(tmp_path, "a", first) + scored(tmp_path, "b", second, k=0))
    assert table(text, DIFFERENCE)["knn_k20"][0].lstrip("+-").startswith("0.00 ± ")


def test_the_same_config_and_seed_again_is_another_group(tmp_path):
    workdirs = scored(tmp_path, "old", [80.0, 81.0]) + scored(
        tmp_path, "new", [82.0, 84.0]
    )
    text = compare(workdirs)
    assert "no settings differ but the seed" in text
    assert table(text, DIFFERENCE)["knn_k20"][0].startswith("+2.50 ± ")


def test_runs_that_were_not_evaluated_have_a_dash(tmp_path):
    (evaluated,) = scored(tmp_path, "a", [80.0])
    without = [make_run(tmp_path / "b"), make_run(tmp_path / "c", k=0)]
    text = compare([evaluated, *without])
    assert table(text, EVALUATION) == {
        "": ["A", "B", "C"],
        "knn_k20": ["80.00", "-", "-"],
        "at step": ["100", "-", "-"],
    }
    part = compare(
        [*scored(tmp_path, "d", [80.0, 81.0]), make_run(tmp_path / "e", seed=9)]
    )
    assert table(part, EVALUATION)["knn_k20"][0].endswith("(2/3)")
    assert "no run has been evaluated: use snclr evaluate" in compare(without)


def test_only_the_trained_encoder_and_its_latest_score_count(tmp_path):
    records = [
        record(90.0, step=200, when="2026-01-04"),
        record(91.0, step=200, when="2026-01-03"),  # of another clock
        record(50.0, step=100, when="2026-01-05"),
        record(20.0, step=0, encoder="untrained"),
        record(30.0, step=300, encoder="pixels"),
    ]
    text = compare([make_run(tmp_path / "a", records=records)])
    rows = table(text, EVALUATION)
    assert rows == {"": ["A"], "knn_k20": ["91.00"], "at step": ["200"]}


def test_other_data_networks_and_settings_are_told_apart(tmp_path):
    a = make_run(
        tmp_path / "a",
        records=[
            record(70.0, data="tfds:cifar10"),
            record(80.0),
            record(81.0, network="online"),
            record(0.0, what="linear", metrics={"accuracy": 85.0, "l2": 1e-5}),
        ],
    )
    b = make_run(tmp_path / "b", k=0, records=[record(75.0, settings={"k": [9]})])
    text = compare([a, b], everything=True)
    assert text.index(EVALUATION) < text.index("evaluation on tfds:cifar10")
    assert table(text, EVALUATION) == {
        "": ["A", "B"],
        "knn_k20 (target) *": ["80.00", "75.00"],
        "knn_k20 (online)": ["81.00", "-"],
        "linear accuracy (target)": ["85.00", "-"],
        "linear l2 (target)": ["1e-05", "-"],
        "at step": ["100", "100"],
    }
    other = table(text, "evaluation on tfds:cifar10: mean ± half of its 95% interval")
    assert other["knn_k20 (target)"] == ["70.00", "-"]
    assert "* evaluated with different settings" in text


def curve(steps: range, slope: float) -> list[dict[str, float]]:
    return [
        {"step": step, "loss": slope * step, "images_per_second": 10.0 * step}
        for step in steps
    ]


def test_curves_are_means_at_ten_common_steps(tmp_path):
    text = compare(
        [
            make_run(tmp_path / "a0", lines=curve(range(10, 410, 10), 0.1)),
            make_run(tmp_path / "a1", seed=1, lines=curve(range(10, 310, 10), 0.2)),
            make_run(tmp_path / "b", k=0, lines=curve(range(20, 500, 20), 1.0)),
            make_run(tmp_path / "c", k=1),
        ],
        everything=True,
    )
    rows = table(text, "loss")
    assert rows.pop("") == ["A", "B", "C"]
    assert rows.pop("last @step") == ["45.0000 @300", "480.0000 @480", "-"]
    steps = [int(label.removeprefix("step ")) for label in rows]
    assert len(steps) == 10 and (steps[0], steps[-1]) == (20, 300)
    assert all(step % 20 == 0 for step in steps)
    assert np.ptp(np.diff(steps)) <= 20
    for step, cells in zip(steps, rows.values(), strict=True):
        assert cells == [f"{0.15 * step:.4f}", f"{step:.4f}", "-"]
    # The mean of two seeds' medians, 2050 and 1550, and of their last losses.
    assert table(text, "training") == {
        "": ["A", "B", "C"],
        "images/s": ["1800", "2500", "-"],
        "loss": ["50.0000", "480.0000", "-"],
    }


def test_knn_of_training_has_its_own_table(tmp_path):
    lines = [
        {"step": 0, "knn_untrained": 9.0, "majority": 60.0},
        {"step": 5, "knn": 61.234, "knn_balanced": 41.5},
    ]
    text = compare([make_run(tmp_path / "a", lines=lines)], everything=True)
    rows = table(text, "kNN accuracy in training, %")
    assert rows == {"": ["A"], "step 5": ["61.23"]}
    rows = table(text, "balanced kNN accuracy in training, %")
    assert rows == {"": ["A"], "step 5": ["41.50"]}
    rows = table(text, "always the most frequent class, %")
    assert rows == {"": ["A"], "step 0": ["60.00"]}
    assert "\nloss\n" not in text


def of_objective(folder: Path, name: str, speed: float, **fields: Any) -> str:
    """A whole run: 120 steps in three lines, kNN, two evaluations of many numbers."""
    lines = [
        {"step": step, "loss": 1.0, "images_per_second": speed} for step in (50, 100)
    ]
    lines += [
        {"step": 120, "loss": 0.5, "images_per_second": 2 * speed},
        {"step": 120, "knn": 61.234, "knn_balanced": 60.5},
    ]
    numbers = {"_balanced": 70.0} | {f"_{number}": 1.0 for number in range(20)}
    records = [
        record(
            0.0,
            what=what,
            metrics={what: 71.5} | {what + k: v for k, v in numbers.items()},
        )
        for what in ("knn", "linear")
    ]
    objective = {"name": name, "temperature": len(name) / 100, **fields}
    return make_run(
        folder,
        batch_size=64,
        lines=lines,
        records=records,
        optim={f"field{number}": name for number in range(20)},
        objective=objective,
    )


def test_runs_of_two_objectives_are_compared_on_one_screen(tmp_path):
    workdirs = [
        of_objective(tmp_path / "a", "snclr", 640.0, attention={"kind": "cosine"}),
        of_objective(tmp_path / "b", "nnclr", 320.0, decoupled=False),
        of_objective(tmp_path / "c", "byol", 320.0),
    ]
    text = compare(workdirs[:2])
    assert len(text.splitlines()) <= 30 and max(map(len, text.splitlines())) <= 100
    # 100 steps of 64 images at 640 a second, and 20 at 1280.
    assert table(text, "training") == {
        "": ["A", "B"],
        "objective": ["snclr", "nnclr"],
        "images seen": ["7,680", "7,680"],
        "training time": ["11 s", "22 s"],
        "images/s": ["640", "320"],
        "kNN, %": ["61.23", "61.23"],
        "balanced kNN, %": ["60.50", "60.50"],
    }
    assert "settings that differ: 23; snclr compare --all shows them" in text
    assert len(table(text, "settings that differ")) == 1 + 5 + 1
    assert table(text, EVALUATION) == {
        "": ["A", "B"],
        "knn": ["71.50", "71.50"],
        "knn_balanced": ["70.00", "70.00"],
        "linear": ["71.50", "71.50"],
        "linear_balanced": ["70.00", "70.00"],
        "at step": ["100", "100"],
    }
    # A field that one of the objectives has alone says nothing of the other.
    fields = table(compare(workdirs), "settings that differ")
    assert fields["objective.temperature"] == ["0.05", "0.05", "0.04"]
    assert "decoupled" not in text and "attention" not in text
    # The losses of one objective can be compared, those of several cannot.
    assert "loss" not in text
    assert table(compare(workdirs[:1]), "training")["loss"] == ["0.5000"]


def test_settings_that_say_most_come_first(tmp_path):
    workdirs = [
        make_run(
            tmp_path / name,
            augment={"local": {f"field{n}": name for n in range(9)}},
            data={"name": name, "image_size": len(name)},
            lines=[],
        )
        for name in ("digits", "digit_pairs")
    ]
    shown = list(table(compare(workdirs), "settings that differ"))
    assert shown[1:4] == ["data.name", "data.image_size", "augment.local.field0"]


def test_everything_has_all_settings_curves_and_numbers(tmp_path):
    workdirs = [
        of_objective(tmp_path / "a", "snclr", 640.0, attention={"kind": "cosine"}),
        of_objective(tmp_path / "b", "nnclr", 320.0, decoupled=False),
    ]
    text = compare(workdirs, everything=True)
    fields = table(text, "settings that differ")
    assert len(fields) == 1 + 23
    assert fields["objective.attention.kind"] == ["cosine", "-"]
    assert fields["objective.name"] == ["snclr", "nnclr"]
    assert table(text, "loss")["step 100"] == ["1.0000", "1.0000"]
    assert table(text, EVALUATION)["linear_19"] == ["1.00", "1.00"]
    assert table(text, DIFFERENCE)["linear"] == ["+0.00"]
    assert "--all" not in text


def test_four_groups_fit_into_100_columns(tmp_path):
    workdirs = []
    for i in range(4):
        long = {
            "a_section": {
                "a_very_long_name_of_a_field_of_it": {"path": "/x" * 40 + str(i)}
            }
        }
        values = [12345.678 * i, 12.0]
        workdirs += scored(tmp_path, f"run{i}-", values, k=i, **long)
    text = compare(workdirs)
    tables = text[text.index("settings that differ") :]
    assert max(map(len, tables.split("\n"))) <= 100
    assert tables.count("/x/x") >= 4 and "path" in tables


def test_impossible_comparisons_are_refused(tmp_path):
    with pytest.raises(ValueError, match="name one or more"):
        compare([])
    good = make_run(tmp_path / "good")
    with pytest.raises(ValueError, match="good/ is named more than once"):
        compare([good + "/", good])
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        ValueError, match=r"empty/config\.json does not exist, so .*empty holds no run"
    ):
        compare([good, str(tmp_path / "empty")])
    bad = make_run(tmp_path / "bad")
    (tmp_path / "bad" / "config.json").write_text('{"seed": ')
    with pytest.raises(ValueError, match=r"bad/config\.json is damaged"):
        compare([good, bad])


@pytest.mark.parametrize("content", ['{"records": [', "[]", '{"knn": 80.0}'])
def test_a_damaged_or_old_evaluation_is_named(tmp_path, content):
    run = make_run(tmp_path / "a")
    (tmp_path / "a" / "evaluation.json").write_text(content)
    with pytest.raises(
        ValueError, match=r"a/evaluation\.json is damaged, or of another"
    ):
        compare([run])
