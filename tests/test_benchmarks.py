"""What a benchmark of many runs makes next follows from the folders alone."""

import json
import shutil

import comparison
import pytest
import trials
import workdirs

from snclr_jax.evaluate.results import add_record, records_path
from snclr_jax.run.files import CONFIG_FILE, METRICS_FILE, STOPPED_FILE, lock

IDENTITY = ("encoder", "network", "step", "fingerprint", "data")


@pytest.fixture(autouse=True)
def no_runs(monkeypatch, tmp_path):
    monkeypatch.setattr(workdirs, "RUNS", tmp_path)
    monkeypatch.setattr(workdirs, "FIGURES", tmp_path / "figures")


@pytest.fixture
def byol_and_info_nce(monkeypatch):
    monkeypatch.setattr(comparison, "ORDER", ["byol", "info_nce"])
    return comparison.Comparison("digits", debug=True)


def complete(compared, run, knn):
    workdir = compared.folder / run.folder
    workdir.mkdir(parents=True)
    line = {"step": 1, "loss": 1.0, "images_per_second": 320.0, "knn": knn}
    (workdir / METRICS_FILE).write_text(json.dumps(line) + "\n")
    (workdir / CONFIG_FILE).write_text(json.dumps({"batch_size": 16}))
    scores = {"top1": 2 * knn, "effective_rank": 3.0}
    for what in compared.what(run):
        record = dict.fromkeys(IDENTITY, "") | {"what": what, "metrics": scores}
        add_record(records_path(workdir), record)


def test_published_values_come_first_and_the_best_one_is_trained_with_seeds(
    byol_and_info_nce,
):
    made = []
    while following := workdirs.next_run([byol_and_info_nce]):
        made.append(following[1])
        complete(byol_and_info_nce, made[-1], knn=made[-1].value or 50.0)
    assert [run.folder for run in made] == [
        "byol-held-back-0",
        "info_nce-0.2-held-back-0",
        "info_nce-0.1-held-back-0",
        "info_nce-0.4-held-back-0",
        *(
            f"{name}-test-{seed}"
            for seed in range(3)
            for name in ("byol", "info_nce-0.4")
        ),
    ]
    assert byol_and_info_nce.figures(made[-1])["ms"] == 50.0


def test_image_sets_take_turns(byol_and_info_nce):
    omniglot = comparison.Comparison("omniglot=FOLDER", debug=True)
    for run in next(byol_and_info_nce.stages()):
        complete(byol_and_info_nce, run, knn=50.0)
    compared, run = workdirs.next_run([byol_and_info_nce, omniglot])
    assert (compared, run.folder) == (omniglot, "byol-held-back-0")


def test_a_value_that_is_not_finite_is_out_and_what_was_killed_is_continued(
    byol_and_info_nce,
):
    published, half, twice = comparison.tried("info_nce")
    complete(byol_and_info_nce, published, knn=3.0)
    complete(byol_and_info_nce, half, knn=4.0)
    killed = byol_and_info_nce.folder / twice.folder
    killed.mkdir()
    (killed / METRICS_FILE).write_text('{"step": 1, "loss": 1.0}\n')
    assert byol_and_info_nce.waits(twice)
    assert not byol_and_info_nce.final("info_nce")
    stopped = {"state": "failed", "reason": "NonFiniteError: step 2"}
    (killed / STOPPED_FILE).write_text(json.dumps(stopped))
    assert not byol_and_info_nce.waits(twice)
    assert {run.value for run in byol_and_info_nce.final("info_nce")} == {half.value}


def test_what_is_kept_of_complete_runs_does_for_their_folders(byol_and_info_nce):
    compared = comparison.Comparison("digits", debug=False)
    published, half, twice = comparison.tried("info_nce")
    test = half._replace(scored_on=comparison.TEST, seed=1)
    for run, knn in ((published, 3.0), (half, 4.123456789), (test, 50.0)):
        complete(compared, run, knn=knn)
    failed = compared.folder / twice.folder
    failed.mkdir()
    stopped = {"state": "failed", "reason": "NonFiniteError: step 2"}
    (failed / STOPPED_FILE).write_text(json.dumps(stopped))
    elsewhere = comparison.Run("byol", None)
    compared.refused.add(elsewhere)
    compared.keep()
    shutil.rmtree(compared.folder)
    later = comparison.Comparison("digits", debug=False)
    assert later.figures(half)["knn"] == 4.12346
    scores = {"knn": 50.0, "linear": 100.0, "effective_rank": 3.0, "ms": 50.0}
    assert later.figures(test) == scores
    assert later.failed(twice) and not later.failed(half)
    assert later.waits(elsewhere) and later.waits(test._replace(seed=2))
    assert [run.seed for run in later.final("info_nce")] == [0, 1, 2]
    complete(later, elsewhere, knn=30.0)
    later.keep()
    shutil.rmtree(later.folder)
    last = comparison.Comparison("digits", debug=False)
    assert last.figures(elsewhere)["knn"] == 30.0
    assert last.figures(test)["linear"] == 100.0


def test_seeds_are_scored_on_test_images_and_choices_on_held_back_ones(
    byol_and_info_nce,
):
    run = comparison.Run("info_nce", 0.4, seed=2)
    config = byol_and_info_nce.config(run)
    assert (config.objective.temperature, config.seed) == (0.4, 2)
    assert config.data.holdback
    last = byol_and_info_nce.config(run._replace(scored_on=comparison.TEST))
    assert not last.data.holdback


def test_tries_are_shorter_than_seeds_with_the_same_share_of_warm_up(monkeypatch):
    monkeypatch.setattr(comparison, "ORDER", ["byol", "info_nce"])
    omniglot = comparison.Comparison("omniglot=FOLDER", debug=False)
    tries = omniglot.config(comparison.Run("snclr", 0.4))
    seeds = omniglot.config(comparison.Run("snclr", 0.4, scored_on=comparison.TEST))
    for config, epochs in ((tries, 8), (seeds, 20)):
        assert config.epochs == epochs
        assert config.optim.warmup_epochs == pytest.approx(0.05 * epochs)
        assert config.objective.neighbor_warmup_epochs == pytest.approx(0.2 * epochs)
    assert omniglot.left() == {8: 4, 20: 6}


def test_the_best_of_the_first_trials_is_trained_whole_before_the_others_are_tried(
    monkeypatch,
):
    some = dict(list(trials.TRIALS.items())[:4])
    monkeypatch.setattr(trials, "TRIALS", some)
    knn = dict(zip(some, [70.0, 80.0, 75.0, 85.0], strict=True))
    compared = trials.Trials("cifar10_resnet18=FOLDER", debug=False)
    made = []
    while following := workdirs.next_run([compared]):
        made.append(run := following[1])
        # K = 0 is far ahead, and chooses nothing.
        complete(compared, run, knn=knn[run.name] if run.neighbors else 99.0)
    first, second, third, last = some
    order = [(first, 0), (second, 0), (third, 0), (second, 1), (last, 0), (last, 1)]
    assert made == [
        trials.Trial(name, neighbors, bool(whole))
        for name, whole in order
        for neighbors in (True, False)
    ]
    tried, without, whole = map(compared.config, (made[2], made[3], made[6]))
    assert (tried.epochs, tried.data.holdback, tried.optim.name) == (20, 5000, "sgd")
    assert (tried.objective.queue.k, without.objective.queue.k) == (5, 0)
    assert (whole.epochs, whole.data.holdback) == (200, 0)
    assert (whole.evaluate.every_epochs, whole.optim.name) == (50, "sgd")
    assert compared.left().total() == 0


def test_a_run_of_another_process_is_left_alone(byol_and_info_nce, capsys):
    run = comparison.Run("byol", None)
    workdir = byol_and_info_nce.folder / run.folder
    workdir.mkdir(parents=True)
    with open(workdir / "log.txt", "a") as log:
        lock(log)
        byol_and_info_nce.carry_out(run)
    assert not byol_and_info_nce.waits(run)
    assert [path.name for path in workdir.iterdir()] == ["log.txt"]
    assert "byol-held-back-0: another process has it" in capsys.readouterr().out
