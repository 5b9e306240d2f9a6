"""Loggers: what a run writes is there, and goes on in the same run after a restart."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from kept_logger import KeptLogger

from snclr_jax.run.loggers import LOGGERS, check_loggers
from snclr_jax.run.metrics import MetricWriter, read_metrics

PICTURE = np.full((8, 9, 3), 7, np.uint8)
SETTINGS = {"seed": 3, "optim": {"name": "lars", "none": None}}
# What a run that was killed after step 3, and continued from step 2, writes.
WRITTEN = [(0, 5.0), (1, 4.0), (2, 3.0), (3, 2.0), (3, 2.0), (4, 1.0)]


def write(workdir: Path, name: str, *, first_step: int, steps) -> None:
    writer = MetricWriter(workdir, first_step=first_step, to=[name], settings=SETTINGS)
    for step in steps:
        writer.write(step, {"loss": 5.0 - step})
    writer.write_image(steps[-1], "gallery", PICTURE)
    writer.close()


def killed_and_continued(workdir: Path, name: str) -> str:
    """Returns what the run is called at the logger."""
    workdir.mkdir()
    write(workdir, name, first_step=0, steps=[0, 1, 2, 3])
    ids = json.loads((workdir / "loggers.json").read_text())
    write(workdir, name, first_step=2, steps=[3, 4])
    assert json.loads((workdir / "loggers.json").read_text()) == ids
    assert ids.keys() == {name}
    return ids[name]


@pytest.fixture
def kept(monkeypatch):
    monkeypatch.setitem(LOGGERS, "kept", KeptLogger)
    monkeypatch.setattr(KeptLogger, "opened", [])
    return KeptLogger


def test_a_continued_run_is_the_same_one(tmp_path, kept):
    assert killed_and_continued(tmp_path / "mine", "kept") == "named by the service"
    first, second = kept.opened
    assert (first.run.id, second.run.id) == ("", "named by the service")
    assert (first.run.first_step, second.run.first_step) == (0, 2)
    assert first.run.name == "mine" and first.run.settings == SETTINGS
    numbers = [(step, numbers["loss"]) for step, numbers in first.numbers]
    assert numbers == WRITTEN[:4] and first.images == [(3, "gallery", (8, 9, 3))]
    assert first.closed and second.closed


def test_without_loggers_there_is_metrics_jsonl_alone(tmp_path):
    MetricWriter(tmp_path, first_step=0, to=()).close()
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


@pytest.mark.parametrize("refused", ["write", "write_image", "close"])
def test_a_service_that_fails_does_not_end_the_run_and_is_said_once(
    tmp_path, kept, monkeypatch, capsys, refused
):
    monkeypatch.setattr(kept, "refused", refused)
    writer = MetricWriter(tmp_path, first_step=0, to=["kept", "tensorboard"])
    for step in (1, 2):
        writer.write(step, {"loss": 1.0})
        writer.write_image(step, "gallery", PICTURE)
    writer.close()
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2]
    assert capsys.readouterr().out == (
        "log.to 'kept' fails: the service is gone; training goes on without it, and "
        "the same command opens it again\n"
    )


def test_a_new_run_that_cannot_be_opened_is_refused_and_one_that_goes_on_is_not(
    tmp_path, kept, monkeypatch, capsys
):
    with monkeypatch.context() as patched:
        patched.setattr(kept, "refused", "open")
        with pytest.raises(
            ValueError, match="log.to 'kept' cannot be opened: the serv"
        ):
            MetricWriter(tmp_path, first_step=0, to=["kept"])
    MetricWriter(tmp_path, first_step=0, to=["kept"]).close()
    ids = (tmp_path / "loggers.json").read_text()
    monkeypatch.setattr(kept, "refused", "open")
    MetricWriter(tmp_path, first_step=1, to=["kept"]).close()
    assert (
        capsys.readouterr().out.count("log.to 'kept' fails: the service is gone") == 1
    )
    assert (tmp_path / "loggers.json").read_text() == ids


@pytest.mark.parametrize("content", ["{", "null"])
def test_a_damaged_list_of_names_is_named(tmp_path, content):
    (tmp_path / "loggers.json").write_text(content)
    with pytest.raises(ValueError, match="loggers.json is damaged.*remove it"):
        MetricWriter(tmp_path, first_step=0, to=["tensorboard"])


def test_what_is_unknown_or_not_installed_is_refused(kept, monkeypatch, tmp_path):
    check_loggers(["tensorboard", "kept"])
    with pytest.raises(ValueError, match="log.to 'tensorboard,wandb' is unknown; use"):
        check_loggers(["tensorboard,wandb"])
    needs = r"log.to 'kept' needs .* not installed; use pip install .snclr_jax\[kept\]"
    monkeypatch.setattr(kept, "library", "no_library")
    with pytest.raises(ValueError, match=needs):
        check_loggers(["kept"])
    # As wandb leaves a folder of its name.
    (tmp_path / "no_library").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=needs):
        check_loggers(["kept"])


def test_wandb_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    name = killed_and_continued(tmp_path / "mine", "wandb")
    folders = sorted((tmp_path / "mine" / "wandb").glob(f"offline-run-*-{name}"))
    history, configs = [], set()
    for folder in folders:
        (image,) = folder.rglob("*.png")
        assert image.name.startswith("gallery")
        for record in wandb_records(folder / f"run-{name}.wandb"):
            configs |= {item.key for item in record.run.config.update}
            values = {
                "/".join(item.nested_key) or item.key: item.value_json
                for item in record.history.item
            }
            if "loss" in values:
                history.append((int(values["step"]), float(values["loss"])))
    assert len(folders) == 2 and history == WRITTEN
    assert {"seed", "optim"} <= configs


def wandb_records(path: Path) -> list:
    """Returns the records of a file of an offline run: pieces in blocks of 32 KiB."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, place, piece, records = path.read_bytes(), 7, b"", []
    while place < len(content):
        if (left := 2**15 - place % 2**15) < 7:
            place += left
            continue
        # 4 bytes of checksum, 2 of length, 1 that is 1 or 4 where a record ends.
        length, kind = (
            int.from_bytes(content[place + 4 : place + 6], "little"),
            place + 6,
        )
        piece += content[place + 7 : place + 7 + length]
        if content[kind] in (1, 4):
            records.append(Record.FromString(piece))
            piece = b""
        place += 7 + length
    return records


def test_mlflow_in_files(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    name = killed_and_continued(tmp_path / "mine", "mlflow")
    client = mlflow.MlflowClient(tracking_uri=(tmp_path / "mine/mlruns").as_uri())
    history = client.get_metric_history(name, "loss")
    assert [(metric.step, metric.value) for metric in history] == WRITTEN
    run = client.get_run(name)
    assert run.info.run_name == "mine" and run.info.status == "FINISHED"
    assert run.data.params == {"seed": "3", "optim.name": "lars", "optim.none": "None"}
    images = [file.path for file in client.list_artifacts(name, "images")]
    assert sum("gallery" in image and image.endswith(".png") for image in images) == 2


def test_trackio_on_this_machine(tmp_path, monkeypatch):
    # Read when it is imported, which nothing else does.
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio")
    name = killed_and_continued(tmp_path / "mine", "trackio")
    with closing(sqlite3.connect(tmp_path / "trackio" / "snclr_jax.db")) as database:
        rows = database.execute("select run_name, step, metrics from metrics")
        rows = [(run, step, json.loads(metrics)) for run, step, metrics in rows]
    assert {run for run, _, _ in rows} == {name} and name.startswith("mine-")
    numbers = [(step, kept["loss"]) for _, step, kept in rows if "loss" in kept]
    assert numbers == WRITTEN
    assert [step for _, step, kept in rows if "gallery" in kept] == [3, 4]
    assert len([*(tmp_path / "trackio" / "media").rglob("*.png")]) == 2
