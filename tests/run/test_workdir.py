"""A workdir belongs to one config, and to one run at a time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

from snclr_jax.run.files import SHOWN_FILE
from snclr_jax.run.workdir import (
    check_workdir,
    own_workdir,
    read_config,
    record_run,
)

HERE = Path(__file__).parents[1]
HOLD = """
import sys, time, tiny
from snclr_jax.run.workdir import own_workdir
with own_workdir(tiny.config(), sys.argv[1]):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_workdir_belongs_to_one_config(tmp_path):
    record_run(tiny.config(), tmp_path / "run")
    assert check_workdir(tiny.config(log__every_steps=7), tmp_path / "run") == []
    with pytest.raises(
        ValueError, match="config.objective.temperature is 0.3, the run"
    ):
        check_workdir(tiny.config(objective__temperature=0.3), tmp_path / "run")


def test_what_the_objective_shows_is_kept_for_those_who_do_not_import_it(tmp_path):
    record_run(tiny.config(), tmp_path)
    shown = json.loads((tmp_path / SHOWN_FILE).read_text())
    assert shown == [
        ["age", "neighbor_age", ".0f"],
        ["purity", "neighbor_purity", ".2f"],
    ]


def test_checkpoints_without_their_config_are_not_continued(tmp_path):
    (tmp_path / "checkpoints" / "7").mkdir(parents=True)
    with pytest.raises(ValueError, match="holds checkpoints but no config.json"):
        check_workdir(tiny.config(), tmp_path)


def test_a_change_is_taken_where_its_field_or_section_is_named(tmp_path):
    record_run(tiny.config(), tmp_path)
    changed = tiny.config(objective__temperature=0.3, objective__queue__k=2)
    with pytest.raises(
        ValueError, match="objective.queue.k is 2, the run has 4"
    ) as refused:
        check_workdir(changed, tmp_path, allow=("objective.temperature",))
    assert "--allow_changes=objective.queue.k" in str(refused.value)
    assert "temperature" not in str(refused.value)
    before = tiny.config().objective.temperature
    allow = ("objective.temperature", "objective.queue")
    assert check_workdir(changed, tmp_path, allow=allow) == [
        "config.objective.queue.k was 4 and is 2 from step 0 on; every image has that "
        "many neighbors as positives",
        f"config.objective.temperature was {before} and is 0.3 from step 0 on; the "
        "loss is another one, and not to be compared with that before",
    ]
    record_run(changed, tmp_path)
    assert read_config(tmp_path)["objective"]["queue"]["k"] == 2
    assert check_workdir(changed, tmp_path) == []


def test_images_that_are_others_are_refused_or_taken_by_name(tmp_path):
    before, now = {"train": "80 images, names a"}, {"train": "50 images, names b"}
    record_run(tiny.config(), tmp_path, before)
    assert check_workdir(tiny.config(), tmp_path, identity=before) == []
    message = "data.found.train is '50 images, names b', the run has '80 .*names a'"
    with pytest.raises(ValueError, match=message) as refused:
        check_workdir(tiny.config(), tmp_path, identity=now)
    assert "--allow_changes=data.found.train" in str(refused.value)
    (taken,) = check_workdir(tiny.config(), tmp_path, identity=now, allow=("data",))
    assert "the order of the images goes on as that of these data" in taken
    record_run(tiny.config(), tmp_path, now)
    assert check_workdir(tiny.config(), tmp_path, identity=now) == []
    (tmp_path / "data.json").write_text("{")
    with pytest.raises(ValueError, match="data.json is damaged.*remove it"):
        check_workdir(tiny.config(), tmp_path, identity=now)
    (tmp_path / "data.json").unlink()
    assert check_workdir(tiny.config(), tmp_path, identity=now) == []


@pytest.mark.parametrize(
    "name",
    [
        *("model", "model.width", "optim", "optim.name"),
        *("objective", "objective.name", "objective.attention.kind"),
    ],
)
def test_what_says_which_arrays_there_are_cannot_change(tmp_path, name):
    with pytest.raises(ValueError, match=f"allow_changes={name}: .*cannot change"):
        check_workdir(tiny.config(), tmp_path, allow=(name,))
    record_run(tiny.config(), tmp_path)
    with pytest.raises(ValueError, match="embedding_dim is 8") as refused:
        check_workdir(tiny.config(model__embedding_dim=8), tmp_path)
    assert "allow_changes" not in str(refused.value)


def test_a_second_run_is_refused_until_the_first_is_gone_however_it_ends(tmp_path):
    first = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path],
        env=os.environ | {"PYTHONPATH": str(HERE)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert first.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match=f"in use .*process {first.pid} on .*stop"):
            with own_workdir(
                tiny.config(objective__queue__k=2),
                tmp_path,
                allow=("objective.queue.k",),
            ):
                pass
    finally:
        first.send_signal(signal.SIGKILL)
        first.communicate()
    for _ in range(2):
        with own_workdir(tiny.config(), tmp_path) as changes:
            assert changes == []
            with pytest.raises(ValueError, match=f"process {os.getpid()} on"):
                with own_workdir(tiny.config(), tmp_path):
                    pass


def test_a_workdir_that_cannot_be_written_to_is_named(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir(mode=0o555)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # nothing is closed to root
    try:
        with pytest.raises(ValueError, match=r"run cannot be written to: .*Permission"):
            with own_workdir(tiny.config(), folder):
                pass
    finally:
        os.seteuid(user)
