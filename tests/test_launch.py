"""launch/tpu.sh does what it says, against a gcloud that stands in for the real one."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import time

import pytest
from launch_stand_ins import FLAGS, ROOT, Cloud, ok, wait_for


@pytest.fixture
def cloud(tmp_path):
    cloud = Cloud(tmp_path)
    yield cloud
    cloud.end()


def test_create_says_what_it_costs_and_needs_yes(cloud):
    refused = cloud.tpu("create", "--slices=2", "--type=v5litepod-64", "--spot")
    assert refused.returncode == 3
    assert "128 chips in 32 hosts, spot" in refused.stderr
    assert "money by the second" in refused.stderr
    assert "cloud.google.com/tpu/pricing" in refused.stderr
    assert "add --yes to create it" in refused.stderr
    assert cloud.verbs() == []


def test_create_asks_for_exactly_what_was_said_and_once(cloud):
    passed_on = [
        "--reserved",
        "--service-account=a@b",
        "--network=n",
        "--internal-ips",
        "--valid-until-duration=6h",
    ]
    said = ok(cloud.tpu("create", "--yes", "--project=p", *passed_on))
    assert "8 chips in 1 hosts, reserved" in said
    (create,) = [call for call in cloud.calls() if call[1] == "create"]
    assert create == [
        "queued-resources",
        "create",
        "snclr-run",
        "--node-id=snclr-run",
        "--accelerator-type=v5litepod-8",
        "--runtime-version=v2-alpha-tpuv5-lite",
        *passed_on,
        "--zone=us-west4-a",
        "--project=p",
    ]
    assert "exists already" in ok(cloud.tpu("create", "--yes"))
    assert cloud.verbs() == ["create"]


@pytest.mark.parametrize("status, ending", [(3, 1), (2, 2), (1, 2)])
def test_what_preflight_refuses_is_not_created(cloud, status, ending):
    (cloud.folder / "preflight").write_text(str(status))
    field = "--config.objective.queue.size=7"
    refused = cloud.tpu("create", "--yes", "--type=v5p-64", field, "--images=9")
    assert refused.returncode == ending
    assert "nothing was created" in refused.stderr
    assert cloud.verbs() == []
    assert [shlex.split(line) for line in cloud.lines("snclr.calls")] == [
        ["preflight", FLAGS[-1], field, "--topology=v5p:2x4x4", "--images=9"]
    ]


@pytest.mark.parametrize(
    "command, expected",
    {
        "create": ["preflight", "create"],
        "setup": ["archive", "scp", "ssh"],
        "run": ["ssh"],
        "resume": ["delete", "create", "archive", "scp", "ssh", "ssh"],
        "delete": ["delete"],
    }.items(),
)
def test_a_dry_run_prints_every_command_and_calls_none(cloud, command, expected):
    printed = cloud.tpu(command, "--dry-run")
    ok(printed)
    words = [shlex.split(line) for line in printed.stdout.splitlines()]
    known = {"preflight", "create", "archive", "scp", "ssh", "delete"}
    assert [next(w for w in line if w in known) for line in words] == expected
    assert cloud.calls() == [] and cloud.lines("snclr.calls") == []


def test_a_run_from_nothing_to_its_end_keeps_every_argument_whole(cloud):
    field = '--config.data.path=gs://bucket/it\'s; "$HOME" & more'
    every = (field, "--yes", "--slices=2", "--type=v5litepod-16", "--mount=sets")
    ok(cloud.tpu("resume", *every))
    assert cloud.verbs() == ["create", "scp", "ssh", "ssh"]
    (create,) = [call for call in cloud.calls() if call[1] == "create"]
    assert {"--node-count=2", "--node-prefix=snclr-run"} < set(create)
    wait_for(cloud, every, "ended 0: step 1 loss 2", times=8)
    preflight, *trained = [shlex.split(line) for line in cloud.lines("snclr.calls")]
    assert "--slices=2" in preflight
    config = [FLAGS[-1], field]
    assert trained == [["train", "--workdir=gs://bucket/a run", *config]] * 8
    installed = [line for line in cloud.lines("python3.calls") if "install" in line]
    assert sum(".[tpu]" in line for line in installed) == 8
    cached = "--cache-dir=/var/tmp/gcsfuse --file-cache-max-size-mb=[1-9][0-9]*"
    mounted = re.compile(f"gcsfuse -o ro --implicit-dirs {cached} sets /mnt/sets")
    assert len(list(filter(mounted.fullmatch, cloud.lines("mount.calls")))) == 8
    assert "the run is complete" in ok(cloud.tpu("resume", *every))
    assert cloud.verbs().count("create") == 1


def test_what_runs_is_left_alone_and_can_be_looked_at(cloud):
    (cloud.folder / "waits").touch()
    ok(cloud.tpu("resume", "--yes"))
    assert "snclr-run: ACTIVE" in wait_for(cloud, (), "running: step 1 loss 2")
    assert "runs already" in ok(cloud.tpu("resume", "--yes"))
    assert "runs already" in ok(cloud.tpu("run"))
    assert "step 1 loss 2" in ok(cloud.tpu("logs"))
    assert sum(line.startswith("train") for line in cloud.lines("snclr.calls")) == 1
    home = cloud.folder / "homes" / "snclr-run" / "0"
    worker = ["bash", home / "snclr" / "launch" / "worker.sh"]
    environment = cloud.environment() | {"HOME": str(home)}
    subprocess.run([*worker, "stop"], env=environment, check=True, timeout=30)
    assert "ended 143: saved" in ok(cloud.tpu("status"))


def test_a_preempted_run_is_created_again_and_continued(cloud):
    (cloud.folder / "waits").touch()
    ok(cloud.tpu("resume", "--yes", "--spot"))
    wait_for(cloud, (), "running")
    (cloud.folder / "preempt").touch()
    assert cloud.tpu("logs").returncode != 0
    ok(cloud.tpu("status"))
    refused = cloud.tpu("resume", "--spot")
    assert refused.returncode == 3 and "SUSPENDED" in refused.stderr
    before = len(cloud.verbs())
    ok(cloud.tpu("resume", "--yes", "--spot"))
    again = ["delete", "create", "scp", "ssh", "ssh"]
    assert cloud.verbs()[before:] == again
    assert all("--spot" in call for call in cloud.calls() if call[1] == "create")
    assert "ended 0" in wait_for(cloud, (), "ended 0")


def test_a_node_that_is_gone_counts_even_where_the_request_says_active(cloud):
    ok(cloud.tpu("resume", "--yes"))
    wait_for(cloud, (), "ended 0")
    shutil.rmtree(cloud.folder / "homes")
    assert "snclr-run: PREEMPTED" in ok(cloud.tpu("status"))


def test_watching_brings_a_preempted_run_to_its_end_and_deletes(cloud):
    (cloud.folder / "waits").touch()
    arguments = ("resume", *FLAGS, "--yes", "--spot", "--watch", "--delete-after")
    watch = subprocess.Popen(
        [cloud.checkout / "launch" / "tpu.sh", *arguments],
        env=cloud.environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    end = time.monotonic() + 30
    while not (cloud.folder / "waited").exists():
        assert time.monotonic() < end
        time.sleep(0.02)
    (cloud.folder / "preempt").touch()
    _, said = watch.communicate(timeout=60)
    assert watch.returncode == 0, said
    assert "is SUSPENDED: deleting and creating it again" in said
    assert "the run is complete: gs://bucket/a run" in said
    assert [verb for verb in cloud.verbs() if verb in ("create", "delete")] == [
        "create",
        "delete",
        "create",
        "delete",
    ]
    trained = [line for line in cloud.lines("snclr.calls") if line.startswith("train")]
    assert len(trained) == 2 and trained[0] == trained[1]
    assert not (cloud.folder / "queue.json").exists()


def test_a_failure_of_gcloud_is_not_taken_for_a_config_that_does_not_fit(cloud):
    (cloud.folder / "refuse.json").write_text(json.dumps({"create": "no quota left"}))
    failed = cloud.tpu("resume", "--yes")
    assert failed.returncode == 2
    assert "no quota left" in failed.stderr and "create failed" in failed.stderr


@pytest.mark.slow
@pytest.mark.parametrize("fails", ["train", "install"])
def test_watching_gives_up_on_what_keeps_failing(cloud, fails):
    (cloud.folder / fails).write_text("75")
    ended = cloud.tpu("resume", "--yes", "--watch")
    assert ended.returncode == 2
    assert "could not be started, 5 times in a row" in ended.stderr
    assert "still costs money" in ended.stderr
    assert cloud.verbs().count("create") == 1 and "delete" not in cloud.verbs()


def test_a_run_that_is_refused_is_not_tried_again_and_its_log_is_shown(cloud):
    (cloud.folder / "train").write_text("2")
    ended = cloud.tpu("resume", "--yes", "--watch", "--delete-after")
    assert ended.returncode == 2
    assert ended.stdout.rstrip().endswith("step 1 loss 2")
    assert "the run was refused, and would be again" in ended.stderr
    assert "snclr-run was deleted" in ended.stderr
    assert sum(line.startswith("train") for line in cloud.lines("snclr.calls")) == 1
    assert cloud.verbs().count("delete") == 1


@pytest.mark.slow
def test_a_machine_without_a_network_neither_ends_nor_deletes_a_run(cloud):
    (cloud.folder / "waits").touch()
    arguments = ("resume", *FLAGS, "--yes", "--watch", "--delete-after")
    watch = subprocess.Popen(
        [cloud.checkout / "launch" / "tpu.sh", *arguments],
        env=cloud.environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(cloud, (), "running")
    refused = json.dumps({"describe": "offline", "ssh": "offline"})
    (cloud.folder / "refuse.json").write_text(refused)
    asked = 0
    while asked < 5:
        line = watch.stderr.readline()
        assert line, "the watch ended"
        asked += "gcloud cannot describe" in line
    (cloud.folder / "refuse.json").unlink()
    (pid,) = cloud.folder.glob("homes/*/*/snclr-state/pid")
    os.killpg(int(pid.read_text()), signal.SIGTERM)  # it saves, and goes on to its end
    watch.communicate(timeout=60)
    assert watch.returncode == 0
    assert cloud.verbs().count("create") == 1 and cloud.verbs()[-1] == "delete"


def test_a_refused_deletion_at_the_end_is_tried_again(cloud):
    (cloud.folder / "refuse.json").write_text(json.dumps({"delete": "503"}))
    arguments = ("resume", *FLAGS, "--yes", "--watch", "--delete-after")
    watch = subprocess.Popen(
        ["bash", "tpu.sh", *arguments],  # called as people call it, too
        cwd=cloud.checkout / "launch",
        env=cloud.environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in watch.stderr:
        if "is not deleted and costs money" in line:
            (cloud.folder / "refuse.json").unlink(missing_ok=True)
    assert watch.wait(timeout=30) == 0
    assert not (cloud.folder / "queue.json").exists()


def test_a_node_that_gcloud_passes_over_is_no_success(cloud):
    flags = ("--yes", "--slices=2")
    (cloud.folder / "unreachable").write_text("snclr-run-1")
    for command in ("resume", "setup", "run", "status"):
        failed = cloud.tpu(command, *flags)
        assert failed.returncode == 2, command
        assert "1 of 2 workers of snclr-run answered" in failed.stderr, command


def test_setup_leaves_a_run_that_is_under_way_alone(cloud):
    (cloud.folder / "waits").touch()
    ok(cloud.tpu("resume", "--yes"))
    wait_for(cloud, (), "running")
    installed = cloud.lines("python3.calls")
    refused = cloud.tpu("setup")
    assert refused.returncode == 2 and "a run is under way" in refused.stderr
    assert cloud.lines("python3.calls") == installed


def test_a_number_that_is_another_programs_by_now_is_no_run(cloud):
    (cloud.folder / "waits").touch()
    ok(cloud.tpu("resume", "--yes"))
    wait_for(cloud, (), "running")
    (pid,) = cloud.folder.glob("homes/*/*/snclr-state/pid")
    os.killpg(int(pid.read_text()), signal.SIGKILL)
    pid.write_text(str(os.getpid()))
    assert "ended 137" in ok(cloud.tpu("status"))
    pid.unlink()


def test_delete_needs_yes_and_deletes_the_nodes_too(cloud):
    assert "does not exist" in ok(cloud.tpu("delete", "--yes"))
    ok(cloud.tpu("create", "--yes"))
    assert cloud.tpu("delete").returncode == 3
    assert cloud.verbs() == ["create"]
    ok(cloud.tpu("delete", "--yes"))
    (delete,) = [call for call in cloud.calls() if call[1] == "delete"]
    assert delete[2:] == ["snclr-run", "--force", "--quiet", "--zone=us-west4-a"]


QUEUE = "projects/p/locations/us-west4-a/queuedResources/snclr-run"
NODE = "projects/p/locations/us-west4-a/nodes/snclr-run"


@pytest.fixture
def active(cloud):
    """A cloud whose slice is there, and the file of what is refused there."""
    ok(cloud.tpu("create", "--yes"))
    (cloud.folder / "queue.json").write_text('["ACTIVE"]')
    return cloud, cloud.folder / "refuse.json"


UNAUTHORIZED = "Location us-west4-a is not found or access is unauthorized"
NOT_GONE = [
    ("create", "queued-resources", "There was a problem refreshing your auth tokens"),
    ("status", "queued-resources", "There was a problem refreshing your auth tokens"),
    ("delete", "queued-resources", f"403 {UNAUTHORIZED}."),
    ("resume", "queued-resources", f"PERMISSION_DENIED: {UNAUTHORIZED}."),
    ("delete", "queued-resources", f"PERMISSION_DENIED: on '{QUEUE}' (or not found)"),
    ("delete", "queued-resources", f"NOT_FOUND: Resource '{QUEUE}-2' was not found"),
    ("delete", "queued-resources", "NOT_FOUND: The project 'p' was not found"),
    ("resume", "tpu-vm", f"403 {UNAUTHORIZED}."),
    ("resume", "tpu-vm", f"PERMISSION_DENIED: on '{NODE}' (or it may not exist)"),
    ("resume", "tpu-vm", f"NOT_FOUND: Resource '{NODE}-2' was not found"),
]


def test_what_gcloud_says_is_passed_on_and_never_taken_for_absent(active):
    cloud, refuse = active
    for command, asked, said in NOT_GONE:
        message = f"ERROR: (gcloud.compute.tpus.{asked}.describe) {said}"
        refuse.write_text(json.dumps({asked: message}))
        failed = cloud.tpu(command, "--yes")
        assert failed.returncode == 4 and message in failed.stderr, (command, said)
    assert cloud.verbs() == ["create"]


def test_what_cannot_be_undone_waits_for_a_second_answer(active):
    cloud, refuse = active
    gone = f"ERROR: (gcloud.compute.tpus) NOT_FOUND: Resource '{NODE}' was not found"
    refuse.write_text(json.dumps({"tpu-vm": [gone]}))
    said = ok(cloud.tpu("resume", "--yes"))
    assert "snclr-run is PREEMPTED: asking again in 0.05 s" in said
    assert "delete" not in cloud.verbs() and cloud.verbs().count("create") == 1
    refuse.write_text(json.dumps({"queued-resources": [gone.replace(NODE, QUEUE)]}))
    ok(cloud.tpu("delete", "--yes"))
    assert cloud.verbs()[-1] == "delete"


def test_a_worker_that_cannot_say_its_state_is_not_taken_for_one_to_start(cloud):
    ok(cloud.tpu("resume", "--yes"))
    (worker,) = cloud.folder.glob("homes/*/*/snclr/launch/worker.sh")
    worker.write_text("exit 1  # as where its disk is full\n")
    before = cloud.verbs()
    failed = cloud.tpu("resume", "--yes")
    assert failed.returncode == 4 and "do not answer" in failed.stderr
    assert cloud.verbs() == [*before, "ssh"]


def test_a_watch_without_answers_asks_ever_more_rarely_and_says_when_it_ends(
    active, monkeypatch
):
    cloud, refuse = active
    refuse.write_text(json.dumps({"describe": "offline"}))
    monkeypatch.setenv("SILENT_POLLS", "3")
    ended = cloud.tpu("resume", "--yes", "--watch", "--delete-after")
    assert ended.returncode == 4 and cloud.verbs() == ["create"]
    assert re.findall(r"asking again in (\d+) x 0.05 s", ended.stderr) == ["1", "2"]
    last = ended.stderr.splitlines()[-1]
    assert "no answer in 3 x 0.05 s; the watch ends, and snclr-run may train on" in last
    assert "gcloud auth login, then resume" in last


def test_a_watch_leaves_no_question_of_gcloud_open(active, monkeypatch):
    cloud, refuse = active
    (cloud.folder / "asks").touch()  # as for a login that has expired
    refuse.write_text(json.dumps({"describe": "Reauthentication failed"}))
    monkeypatch.setenv("SILENT_POLLS", "1")
    watch = subprocess.Popen(
        [cloud.checkout / "launch" / "tpu.sh", "resume", *FLAGS, "--yes", "--watch"],
        env=cloud.environment(),
        stdin=subprocess.PIPE,  # a terminal at which nobody sits
        stderr=subprocess.DEVNULL,
    )
    try:
        assert watch.wait(timeout=20) == 4
    finally:
        watch.stdin.close()
        watch.wait(timeout=20)


@pytest.mark.parametrize(
    "flag, message",
    {
        "--name=My Run": "lower case",
        "--zone=": "--zone= is not a zone",
        "--network=": "--network= is not a flag",
        "--type=v5litepod-48": "v5litepod-48 is not a slice",
        "--type=v4-9": "v4-9 is not a slice",
        "--type=v2-8": "v2-8 is not known",
        "--slices=a[$(touch hacked)]": "is not a number from 1",
        "--workdir=runs/x": "must be gs://BUCKET/RUN",
        "--config=configs/none.py": "configs/none.py is not in the last commit",
        "--config=none:debug": "configs/none.py is not in the last commit",
        "--mount=gs://sets": "--mount=gs://sets is not a bucket",
        "--sport": "--sport is not a flag",
        "--delete-after": "--delete-after needs --watch",
    }.items(),
)
def test_a_wrong_flag_ends_in_one_line_and_no_call(cloud, flag, message):
    failed = cloud.tpu("create", flag)
    assert failed.returncode == 2
    assert message in failed.stderr and len(failed.stderr.splitlines()) == 1
    assert cloud.calls() == [] and not (cloud.checkout / "hacked").exists()


def test_a_recipe_is_found_by_its_name(cloud):
    ok(cloud.tpu("create", "--dry-run", "--config=imagenet_vit_s16:debug"))


def test_the_shapes_of_slices_have_as_many_chips_as_they_are_counted_with(cloud):
    text = (ROOT / "launch" / "tpu.sh").read_text()
    rows = re.findall(r"(v\w+):(\d+) \| (v\w+):(\d+)\) SHAPE=([\dx]+)", text)
    assert len(rows) == 16
    for kind, chips, other, same, shape in rows:
        axes = [int(axis) for axis in shape.split("x")]
        product = 1
        for axis in axes:
            product *= axis
        assert int(chips) == int(same) == product
        assert len(axes) == (2 if {kind, other} == {"v5e", "v6e"} else 3)
