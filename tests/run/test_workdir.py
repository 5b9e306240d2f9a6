"""A workdir belongs to one config, and to one run at a time."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import pytest
import tiny
from full_disk import full_disk
from snclr_jax.configs import digits

from snclr_jax.run.digest import digest_of_json
from snclr_jax.run.files import PACKAGES_FILE, SHOWN_FILE, STOPPED_FILE
from snclr_jax.run.packages import changed_packages
from snclr_jax.run.stopped import stop_written
from snclr_jax.run.workdir import (
    as_json,
    check_workdir,
    own_workdir,
    read_config,
    record_run,
)
from snclr_jax.run.workdir_lock import LOCK_FILE, InUse
from snclr_jax.settings.paths import absolute_paths

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
        ["neighbor age", "neighbor_age", ".0f"],
        ["neighbors of own class", "neighbor_purity", ".0%"],
    ]


def test_a_run_keeps_its_packages_and_says_which_are_others_now(tmp_path):
    record_run(tiny.config(), tmp_path)
    path = tmp_path / PACKAGES_FILE
    kept = json.loads(path.read_text())
    assert kept["jax"] == jax.__version__ and "python" in kept
    with own_workdir(tiny.config(), tmp_path) as (said, _):
        assert said == []
    path.write_text(json.dumps(kept | {"jax": "0.1", "gone": "1.0"}))
    with own_workdir(tiny.config(), tmp_path) as ((line,), _):
        assert "gone was 1.0 and is not installed" in line
        assert f"jax was 0.1 and is {jax.__version__}; install what" in line
    path.write_text(json.dumps({name: "0" for name in kept}))
    (line,) = changed_packages(tmp_path)
    assert line.count(" was 0 and is ") == len(kept) and "\n" not in line
    for damaged in ("{", "[1]"):
        path.write_text(damaged)
        assert "packages.json is damaged" in changed_packages(tmp_path)[0]


def keep_config(folder, config):
    """Writes a checkpoint's own copy of a config."""
    copy = as_json(config)
    for item, value in (("config", copy), ("digest", {"config": digest_of_json(copy)})):
        (folder / item).mkdir(parents=True)
        (folder / item / "metadata").write_text(json.dumps(value))


@pytest.mark.parametrize("name", ["run", "lr[0.1]"])
@pytest.mark.parametrize("content", ['{"batch_size": 1', "3", None])
def test_a_config_that_is_lost_is_that_of_the_newest_checkpoint_with_a_whole_copy(
    tmp_path, capsys, name, content
):
    workdir = tmp_path / name
    for step in range(3):
        config = tiny.config(objective__temperature=0.1 + step)
        keep_config(workdir / "checkpoints" / str(step), config)
    (workdir / "checkpoints" / "2" / "config" / "metadata").write_text("{")
    if content:
        (workdir / "config.json").write_text(content)
    assert check_workdir(tiny.config(objective__temperature=1.1), workdir) == []
    (line,) = capsys.readouterr().err.splitlines()
    lost = "is damaged" if content else "does not exist"
    assert f"config.json {lost}" in line and line.endswith("checkpoints/1 is read")
    with pytest.raises(ValueError, match="temperature is 0.1, the run has 1.1"):
        check_workdir(tiny.config(objective__temperature=0.1), workdir)


@pytest.mark.parametrize("content", ["{", None])
def test_checkpoints_of_an_unknown_config_are_not_continued(tmp_path, content):
    (tmp_path / "checkpoints" / "7").mkdir(parents=True)
    if content:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match="no checkpoint holds a whole copy of it; re"):
        check_workdir(tiny.config(), tmp_path)


def test_a_damaged_config_without_checkpoints_is_begun_anew_as_its_message_says(
    tmp_path,
):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="no checkpoint to lose; remove it and run"):
        check_workdir(tiny.config(), tmp_path)
    (tmp_path / "config.json").unlink()
    assert check_workdir(tiny.config(), tmp_path) == []


def test_a_run_whose_paths_were_kept_as_typed_is_continued(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    record_run(tiny.config(data__path="photos"), "run")
    now = absolute_paths(tiny.config(data__path="./photos"))
    assert check_workdir(now, "run") == []
    with pytest.raises(ValueError, match="/pictures', the run has '/.*/photos'"):
        check_workdir(absolute_paths(tiny.config(data__path="pictures")), "run")


def test_a_run_from_before_channels_could_be_chosen_is_continued(tmp_path):
    record_run(tiny.config(), tmp_path)
    before = read_config(tmp_path)
    del before["data"]["channels"]
    (tmp_path / "config.json").write_text(json.dumps(before))
    assert check_workdir(tiny.config(), tmp_path) == []
    with pytest.raises(ValueError, match=r"data\.channels is 5, the run has 3"):
        check_workdir(tiny.config(data__channels=5), tmp_path)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_where_there_are_no_locks_a_run_goes_on_and_says_so(
    tmp_path, monkeypatch, number
):
    def flock(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with own_workdir(tiny.config(), tmp_path) as ((line,), _):
        assert line.startswith(f"{tmp_path}: its file system has no locks (")
        assert line.endswith("start no second run in it")
    number = errno.EIO  # says nothing about locks
    with pytest.raises(OSError, match="cannot be written to: .*Input/output"):
        with own_workdir(tiny.config(), tmp_path):
            pass


def test_a_name_that_loses_arrays_is_refused_before_anything_is_made(tmp_path):
    with pytest.raises(ValueError, match=r"because of the \\ in its name; rename"):
        with own_workdir(tiny.config(), tmp_path / "a\\b"):
            pass
    assert not list(tmp_path.iterdir())


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


def test_more_epochs_are_taken_with_the_warm_ups_that_follow_them(tmp_path):
    config = digits.get_config()
    record_run(config, tmp_path)
    config.epochs = 30
    with pytest.raises(ValueError, match="optim.warmup_epochs is 2.0, the run has 1.0"):
        check_workdir(config, tmp_path, allow=("seed",))
    said = check_workdir(config, tmp_path, allow=("epochs",))
    assert [line.split()[0] for line in said] == [
        "config.epochs",
        "config.objective.neighbor_warmup_epochs",
        "config.optim.warmup_epochs",
    ]


def test_more_epochs_are_taken_with_all_that_happens_at_an_epoch(tmp_path):
    config = digits.get_config("swav")
    record_run(config, tmp_path)
    config.epochs = 30
    said = check_workdir(config, tmp_path, allow=("epochs",))
    assert [line.split()[0] for line in said] == [
        "config.epochs",
        "config.objective.freeze_epochs",
        "config.objective.queue_from_epoch",
        "config.optim.warmup_epochs",
    ]


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
    (tmp_path / "data.json").write_text("[]")
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
    with pytest.raises(ValueError, match="=objective.queue.rnk names no field"):
        check_workdir(tiny.config(), tmp_path, allow=("seed", "objective.queue.rnk"))
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
        with own_workdir(tiny.config(), tmp_path) as (changes, _):
            assert changes == []
            with pytest.raises(ValueError, match=f"process {os.getpid()} on"):
                with own_workdir(tiny.config(), tmp_path):
                    pass


def test_a_lock_whose_file_was_removed_is_taken_again_or_lost_to_another_run(tmp_path):
    with own_workdir(tiny.config(), tmp_path) as (_, keep):
        for _ in range(2):
            (tmp_path / LOCK_FILE).unlink()
            keep()
            with pytest.raises(ValueError, match=f"in use .*process {os.getpid()} on"):
                with own_workdir(tiny.config(), tmp_path):
                    pass
        (tmp_path / LOCK_FILE).unlink()
        with own_workdir(tiny.config(), tmp_path):
            with pytest.raises(InUse, match=f"process {os.getpid()} on"):
                with stop_written(tmp_path):
                    keep()
        # What tells a stop is the other run's.
        assert not (tmp_path / STOPPED_FILE).exists()


def test_a_lock_that_a_full_disk_cuts_is_named_with_its_workdir(tmp_path):
    message = rf"^--workdir={tmp_path} cannot be written to: .*too large"
    with pytest.raises(OSError, match=message), full_disk():
        with own_workdir(tiny.config(), tmp_path):
            pass
    with own_workdir(tiny.config(), tmp_path) as (_, keep):
        (tmp_path / LOCK_FILE).unlink()
        message = f"^{tmp_path / LOCK_FILE} cannot be written"
        with pytest.raises(OSError, match=message), full_disk():
            keep()


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
