"""The live view of running jobs, from files that are written as a run writes them."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import threading
import time

import pytest

from snclr_jax.run import watch
from snclr_jax.run.watch import sparkline

CONFIG = {"batch_size": 100, "epochs": 4}
SHOWN = [["purity", "neighbor_purity", ".2f"], ["age", "neighbor_age", ".0f"]]
STEPS = 400  # 100 in each epoch


def start(workdir, shown=SHOWN):
    workdir.mkdir(parents=True)
    (workdir / "config.json").write_text(json.dumps(CONFIG))
    (workdir / "shown.json").write_text(json.dumps(shown))
    return workdir


def write(workdir, *lines):
    with (workdir / "metrics.jsonl").open("a") as file:
        file.write("".join(json.dumps(line) + "\n" for line in lines))


def line(step, loss, **more):
    speed = {"images_per_second": 500.0, "epoch": step / (STEPS // CONFIG["epochs"])}
    return {"step": step, "loss": loss, **speed, **more}


def look(workdir, after=0.0):
    """Returns the row of a run, `after` seconds from now."""
    return watch.WatchedRun(str(workdir)).read(time.time() + after)


def test_it_starts_without_jax():
    code = "import sys, snclr_jax.run.watch; sys.exit('jax' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_run_from_its_start_to_its_end(tmp_path):
    run = watch.WatchedRun(str(tmp_path / "run"))
    now = time.time()
    assert run.read(now).state == "no run yet"

    workdir = start(tmp_path / "run")
    row = run.read(now + 50)
    assert row.state == "starting" and 45 < row.since < 55
    assert row.cells == {"step": "0"}

    start_of_run = {"majority": 60.0, "knn_untrained_balanced": 21.2}
    write(workdir, {"step": 0, "knn_raw_pixels": 16.6, "knn_untrained": 32.66})
    assert run.read(now).state == "starting"
    assert run.read(now).cells["kNN %"] == "32.7 →"
    assert {"balanced %", "majority %"}.isdisjoint(run.read(now).cells)
    write(workdir, {"step": 0} | start_of_run)

    write(workdir, line(50, 6.0, neighbor_purity=0.1, neighbor_age=4.3))
    write(workdir, line(100, 5.5, neighbor_purity=0.678, neighbor_age=16.5))
    write(workdir, {"step": 100, "knn": 72.05, "knn_balanced": 41.5})
    row = run.read(now)
    assert row.state == "running" and row.since is None
    assert row.cells == {
        "step": "100/400 25%",
        "left": "1 min",  # 300 steps of 100 images at 500 images/s
        "loss": "5.500 █▁",
        "images/s": "500",
        "kNN %": "32.7 → 72.0",
        "balanced %": "21.2 → 41.5",
        "majority %": "60.0",
        "purity": "0.68",
        "age": "16",
    }

    for step in (50, 100):
        (workdir / "checkpoints" / str(step)).mkdir(parents=True)
    (workdir / "checkpoints" / "150.orbax-checkpoint-tmp").mkdir()
    write(workdir, line(400, 1.0))
    (workdir / "summary.json").write_text("{}")
    linear = {"top1": 89.394, "top1_balanced": 71, "top5": 99, "majority": 60}
    records = [
        {"encoder": kind, "what": what, "data": data, "when": when, "metrics": found}
        for kind, what, data, when, found in (
            ("trained", "knn", "own", "2026-11-26T10:00:01", {"k1": 81}),
            # The newest, whatever the clocks and zones of then were.
            ("trained", "linear", "own", "2026-11-26T09:00:02+00:00", linear),
            ("trained", "knn", "name=folder", "2026-11-26T10:00:03", {"k1": 7}),
            ("untrained", "linear", "own", "2026-11-26T10:00:03", {"top1": 50}),
        )
    ]
    (workdir / "evaluation.json").write_text(json.dumps({"records": records}))
    row = run.read(now)
    assert row.state == "finished" and "left" not in row.cells
    assert row.cells["step"] == "400/400 100%"
    assert row.cells["checkpoint"] == "100"
    said = "linear top1 89.39 (balanced 71.00, majority 60.00)"
    assert row.cells["evaluation"] == said


def test_silence_is_told_from_the_pace_of_the_run(tmp_path):
    quick = start(tmp_path / "quick")
    write(quick, line(50, 2.0), line(100, 2.0))  # every 10 s
    assert look(quick, after=50).state == "running"
    row = look(quick, after=200)
    assert row.state == "silent" and "left" not in row.cells
    assert row.columns()["state"] == "silent for 3 min"

    slow = start(tmp_path / "slow")
    write(slow, line(50, 2.0) | {"images_per_second": 50.0})  # every 100 s
    assert look(slow, after=200).state == "running"
    assert look(slow, after=310).state == "silent"


@pytest.mark.parametrize("state", ["stopped", "failed"])
def test_a_run_that_wrote_down_why_it_stopped_is_neither_running_nor_silent(
    tmp_path, state
):
    workdir = start(tmp_path / "run")
    write(workdir, line(50, 2.0), line(100, 2.0))
    stop = workdir / "stopped.json"
    stop.write_text(json.dumps({"state": state, "reason": "SIGTERM"}))
    row = look(workdir, after=200)
    assert row.columns()["state"] == f"{state} for 3 min" and "left" not in row.cells
    assert row.cells["reason"] == "SIGTERM"
    write(workdir, line(400, 1.0))
    (workdir / "summary.json").write_text("{}")
    assert look(workdir).state == "finished"
    for text in ("{", "[]", "{}"):
        stop.write_text(text)
        (workdir / "summary.json").unlink(missing_ok=True)
        row = look(workdir)
        assert row.state == "damaged" and "stopped.json" in row.cells["reason"]


def test_old_summary_does_not_finish_a_run_that_began_again(tmp_path):
    workdir = start(tmp_path / "run")
    (workdir / "summary.json").write_text("{}")
    write(workdir, line(50, 2.0))
    assert look(workdir).state == "running"


def test_total_is_unknown_without_an_epoch(tmp_path):
    workdir = start(tmp_path / "run")
    write(workdir, {"step": 50, "loss": 2.0, "images_per_second": 500.0})
    cells = look(workdir).cells
    assert cells["step"] == "50" and "left" not in cells


def test_a_line_without_its_end_is_read_when_it_is_whole(tmp_path):
    path = tmp_path / "metrics.jsonl"
    tail = watch.MetricsTail(path)
    assert tail.read()[0] == []
    path.write_text('{"step": 1}\n{"ste')
    assert tail.read()[0] == [{"step": 1}]
    with path.open("a") as file:
        file.write('p": 2}\nnot json\n[3]\n{"step": 4, "loss": NaN, "name": "x"}\n')
    assert tail.read()[0] == [{"step": 1}, {"step": 2}, {"step": 4}]


def test_only_what_is_new_is_read(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n')
    tail = watch.MetricsTail(path)
    tail.read()
    # The first line is not looked at again, so nothing is seen of its change.
    path.write_text('{"step": 7}\n{"step": 2}\n{"step": 3}\n')
    assert [each["step"] for each in tail.read()[0]] == [1, 2, 3]


@pytest.mark.parametrize("after", [[1], [1, 5, 6, 7], []])
def test_a_continued_run_is_read_again(tmp_path, after):
    path = tmp_path / "metrics.jsonl"
    write(tmp_path, {"step": 1}, {"step": 2}, {"step": 3})
    tail = watch.MetricsTail(path)
    tail.read()
    path.write_text("".join(json.dumps({"step": step}) + "\n" for step in after))
    assert [each["step"] for each in tail.read()[0]] == after


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"batch_size": 1}', "null", '"text"']
)
def test_damaged_config_is_said_in_its_row(tmp_path, text):
    workdir = start(tmp_path / "run")
    (workdir / "config.json").write_text(text)
    row = look(workdir)
    assert row.state == "damaged"
    assert "config.json" in row.cells["reason"]


def test_an_earlier_run_does_not_say_what_its_objective_shows(tmp_path):
    workdir = start(tmp_path / "run")
    write(workdir, line(50, 2.0, neighbor_age=4.0))
    assert look(workdir).cells["age"] == "4"
    (workdir / "shown.json").write_text("{")
    assert "shown.json" in look(workdir).cells["reason"]
    (workdir / "shown.json").unlink()
    row = look(workdir)
    assert row.state == "running" and "age" not in row.cells


def test_columns_of_several_objectives_are_united_in_order(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "200")
    names = ("a", "b", "[c]")
    for name, labels in zip(names, ("xy", "zx", "w"), strict=True):
        workdir = start(tmp_path / name, [[each, each, ".1f"] for each in labels])
        (workdir / "checkpoints" / "50").mkdir(parents=True)
        write(workdir, line(50, 2.0, x=1.0, y=2.0, z=3.0))
    monkeypatch.chdir(tmp_path)
    watch.watch(names, once=True)
    header, *rows = capsys.readouterr().out.splitlines()
    # None of them has w, and a name in brackets is no markup.
    assert header.split()[-5:] == ["images/s", "x", "y", "z", "checkpoint"]
    assert [row.split()[-4:] for row in rows] == [
        ["500", "1.0", "2.0", "50"],
        ["500", "1.0", "3.0", "50"],
        ["2.000", "▁", "500", "50"],
    ]
    assert rows[1].index("3.0") == header.index("z") and rows[2].startswith("[c] ")


def test_damaged_evaluation_is_said_in_its_cell(tmp_path):
    workdir = start(tmp_path / "run")
    for text in ("{", "[]", '{"records": [{}]}', "{}"):
        (workdir / "evaluation.json").write_text(text)
        assert look(workdir).cells["evaluation"] == "evaluation.json cannot be read"
    # None of the run itself.
    (workdir / "evaluation.json").write_text('{"records": []}')
    assert "evaluation" not in look(workdir).cells


def test_a_workdir_that_is_a_file_is_said_in_its_row(tmp_path):
    (tmp_path / "file").write_text("")
    assert look(tmp_path / "file").state == "damaged"


def test_one_line_for_each_run_on_a_wide_terminal(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    for number in range(3):
        workdir = start(tmp_path / f"run{number}")
        write(workdir, line(50, 9.0), line(100, 2.0 + number))
    start(tmp_path / "bad").joinpath("config.json").write_text("{")
    watch.watch(["run0", "run1", "none", "bad", "run2"], once=True)
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split()[:6] == ["run", "state", "step", "left", "loss", "images/s"]
    assert [row.split()[0] for row in rows] == ["run0", "run1", "none", "bad", "run2"]
    assert "2.000 █▁" in rows[0] and "4.000 █▁" in rows[4]
    assert rows[2].strip().endswith("no run yet")
    assert "damaged" in rows[3]
    # Columns stand below their names.
    assert rows[0].index("2.000") == rows[4].index("4.000") == header.index("loss")


@pytest.mark.parametrize("width", [20, 40, 80])
def test_width_is_respected_and_no_column_is_lost(tmp_path, capsys, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        write(start(tmp_path / name), line(50, 2.0, neighbor_purity=0.5, knn=70.0))
    watch.watch(["a", "b"], once=True)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width
    names = " ".join(each for each in lines if each.startswith("run")).split()
    assert set(names) - {"run", "%"} == {
        *("state", "step", "left", "loss", "kNN", "images/s", "purity"),
    }
    assert [each[0] for each in lines if not each.startswith("run")] == list(
        "ab" * names.count("run")
    )


def test_long_names_keep_their_end(tmp_path):
    row = look(tmp_path / "x" / ("y" * 60) / "seed-3")
    assert len(row.name) == watch.NAME and row.name.endswith("/seed-3")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_locale_without_unicode_gets_plain_signs(tmp_path, monkeypatch, encoding):
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.chdir(tmp_path)
    workdir = start(tmp_path / "läuft\udcff")
    write(workdir, {"step": 0, "knn_untrained": 32.66})
    write(workdir, line(50, 9.0, knn=72.0), line(100, 2.0))
    (workdir / "stopped.json").write_text('{"state": "failed", "reason": "\u2260"}')
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding))
    watch.watch([workdir.name], once=True)
    sys.stdout.flush()
    said = written.getvalue().decode(encoding)
    name = "l\\xe4uft" if encoding == "ascii" else "läuft"
    assert f"{name}\\udcff" in said and "2.000 #_" in said and "32.7 -> 72.0" in said
    assert "\\u2260" in said


def test_output_that_is_no_terminal_gets_what_changed(tmp_path, capsys):
    workdir = start(tmp_path / "run")
    write(workdir, line(50, 2.0))
    looks = []

    def go_on(seconds):
        looks.append(seconds)
        if len(looks) == 3:
            write(workdir, line(400, 1.0))
        if len(looks) == 5:
            (workdir / "summary.json").write_text("{}")
        assert len(looks) < 9, "the view has to end with the run"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "sleep", go_on)
        watch.watch([str(workdir)], every=0.5)
    out = capsys.readouterr().out
    assert looks == [0.5] * 5
    assert [out.count(text) for text in ("50/400", "400/400", "finished")] == [1, 2, 1]
    assert "\x1b" not in out


def test_control_c_ends_it(tmp_path):
    workdir = start(tmp_path / "run")
    code = (
        "from snclr_jax.run.watch import watch; import sys;"
        "watch(sys.argv[1:], every=0.05); print('ended')"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(workdir)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline().startswith("run")
    threading.Timer(0.2, process.send_signal, [2]).start()
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 0 and out.endswith("ended\n")


def test_nothing_to_look_at_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no workdir is named"):
        watch.watch([])
    with pytest.raises(ValueError, match="no run in .*nowhere; check --workdir"):
        watch.watch([str(tmp_path / "nowhere")], once=True)


def test_sparkline_has_the_shape_of_the_curve():
    assert sparkline([1, 2, 3, 4, 5, 6, 7, 8], 8) == "▁▂▃▄▅▆▇█"
    assert sparkline([8, 0, 4, 4], 2) == "▁▁"
    assert sparkline([0, 0, 2, 2, 1, 1, 1], 3) == "▁█▅"
    assert sparkline([3.0], 8) == "▁"
    assert len(sparkline(list(range(1000)), 12)) == 12


def test_a_terminal_is_drawn_over_and_never_beyond_its_height(
    tmp_path, capsys, monkeypatch
):
    for name, value in {
        "FORCE_COLOR": "1",
        "TERM": "xterm",
        "COLUMNS": "80",
        "LINES": "4",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(watch, "STYLES", {"running": "yellow"})
    monkeypatch.chdir(tmp_path)
    names = [f"run{number}" for number in range(9)]
    for name in names:
        write(start(tmp_path / name), line(50, 2.0))
    looks = []

    def go_on(_):
        looks.append(capsys.readouterr().out)
        if len(looks) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", go_on)
    watch.watch(names)
    first, second = looks
    last = capsys.readouterr().out
    assert "run1" in first and "..." in first and "run2" not in first
    assert "\x1b[33mrun0" in first
    # Up over three lines from the fourth, and each of them cleared.
    assert first.count("\x1b[1A") == 0 and second.count("\x1b[1A") == 3
    assert second.count("\x1b[2K") == 4 and "run1" in second
    # At the end nothing is cut off.
    assert all(name in last for name in names)
