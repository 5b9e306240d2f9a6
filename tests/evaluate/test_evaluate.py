"""`snclr evaluate` and `features`: one encoder, the same numbers whatever the path."""

from __future__ import annotations

import json
import shutil
import tempfile

import jax
import numpy as np
import pytest
import tiny
from saved import save_random_encoder, save_run
from snclr_jax.configs import evaluate as settings_file
from tensorboard_events import scalars

import snclr_jax
import snclr_jax.evaluate.run as evaluation
from snclr_jax.data import Split, open_data
from snclr_jax.devices.mesh import make_mesh
from snclr_jax.encoder.stored import open_encoder, save_encoder
from snclr_jax.evaluate.evaluations import EVALUATIONS
from snclr_jax.evaluate.extract import extract
from snclr_jax.evaluate.frozen.knn import knn_accuracies
from snclr_jax.evaluate.results import read_records, table
from snclr_jax.evaluate.run import choose_what, evaluate, target_config
from snclr_jax.export.run import export

pytestmark = pytest.mark.usefixtures("few_digits")
FAST = ("knn", "retrieval")


def debug(**fields):
    """The settings at debug size; `section__field=value` overrides."""
    settings = settings_file.get_config("debug")
    for path, value in fields.items():
        section, name = path.split("__")
        settings[section][name] = value
    return settings


@pytest.fixture(scope="module")
def run(tmp_path_factory, few_digits):
    workdir = tmp_path_factory.mktemp("run")
    save_run(workdir, make_mesh())
    (workdir / "tensorboard").mkdir()
    return workdir


@pytest.fixture(scope="module")
def records(run):
    return evaluate(run, FAST, debug(), baselines=True)


def stored(path):
    content = json.loads(path.read_text())
    assert content["version"] == 1
    return content["records"]


@pytest.mark.parametrize(
    "call",
    [
        lambda run: evaluate(run, ["knn"], debug(knn__k=(3,)), baselines=True),
        lambda run: extract(run, run / "a.npz", debug(knn__k=(3,)), network=None),
    ],
)
def test_processes_compare_encoder_images_and_settings(run, monkeypatch, call):
    class Compared(Exception):
        pass

    def compare(compute, facts):
        computed = compute()
        if stated := facts(computed):
            raise Compared(stated)
        return computed

    monkeypatch.setattr(evaluation, "in_agreement", compare)
    with pytest.raises(Compared) as compared:
        call(run)
    (facts,) = compared.value.args
    encoder = open_encoder(run, mesh=make_mesh())
    assert facts["encoder"] == encoder.fingerprint
    assert facts["images"].keys() == {"train", "test"}
    assert facts["evaluation"]["knn"]["k"] == [3]
    assert facts.get("what", ["knn"]) == ["knn"] and facts.get("baselines", True)


def test_every_number_is_stored_with_its_settings(run, records):
    kept = stored(run / "evaluation.json")
    assert kept == json.loads(json.dumps(records))
    assert [(each["encoder"], each["what"]) for each in kept] == [
        (encoder, what)
        for encoder in ("trained", "untrained", "pixels")
        for what in FAST
    ]
    knn = kept[0]
    assert knn["settings"]["knn"] == {"k": [1, 5], "temperature": [0.07, 0.1]}
    assert knn["settings"]["data"]["name"] == "digits"
    assert (knn["network"], knn["step"], knn["data"]) == ("online", 0, "own")
    assert knn["when"].endswith("+00:00")
    assert knn["fingerprint"] == open_encoder(run, mesh=make_mesh()).fingerprint
    names = ("k1", "k1_T0.07", "k1_T0.1", "k5", "k5_T0.07", "k5_T0.1", "majority")
    assert list(knn["metrics"]) == [n + end for n in names for end in ("", "_balanced")]
    assert all(0 < value < 100 for value in knn["metrics"].values())
    assert "majority" not in kept[1]["metrics"]  # mAP is no accuracy


def test_accuracies_are_those_of_the_features(run, records):
    mesh = make_mesh()
    encoder = open_encoder(run, mesh=mesh)
    data = open_data(encoder.config.data)
    mean, std = np.array(encoder.config.data.mean), np.array(encoder.config.data.std)
    encode = jax.jit(encoder.model.encode)
    features = [
        encode(encoder.params, encoder.batch_stats, (split.images() / 255 - mean) / std)
        for split in data[:2]
    ]
    expected = knn_accuracies(
        *(features[0], data.train.labels, features[1], data.test.labels),
        k=(5,),
        temperature=(0.1,),
        mesh=mesh,
    )
    found = [records[0]["metrics"][f"k5_T0.1{end}"] for end in ("", "_balanced")]
    assert found == pytest.approx(list(expected[5, 0.1]), abs=0.2)


def test_metrics_of_the_trained_encoder_are_on_the_board(run, records):
    shown = scalars(run / "tensorboard")
    for record in records[: len(FAST)]:
        for name, value in record["metrics"].items():
            tag = f"evaluation/{record['what']}/online/{name}"
            assert shown[tag] == [(0, pytest.approx(value))]
    assert len(shown) == sum(len(each["metrics"]) for each in records[: len(FAST)])


def test_a_second_call_replaces_what_it_measures_again(run, records, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(run, workdir)
    before = stored(workdir / "evaluation.json")
    (again,) = evaluate(workdir, ["knn"], debug(knn__k=(3,)))
    after = stored(workdir / "evaluation.json")
    assert after[:-1] == before[1:]  # the newest stands last
    assert after[-1] == json.loads(json.dumps(again)) != before[0]
    (same,) = evaluate(workdir, ["knn"], debug())
    assert same["metrics"] == before[0]["metrics"]


def test_a_checkpoint_and_a_file_give_the_same_numbers(run, records, tmp_path, capsys):
    file = tmp_path / "encoder.safetensors"
    save_encoder(file, open_encoder(run, mesh=make_mesh()))
    for path in (run / "checkpoints" / "0", file):
        (record,) = evaluate(path, ["knn"], debug())
        assert record["metrics"] == records[0]["metrics"]
        assert record["fingerprint"] == records[0]["fingerprint"]
        printed = capsys.readouterr().out
        assert record["fingerprint"][:16] in printed and "knn k5_T0.07" in printed
    assert len(stored(tmp_path / "encoder.evaluation.json")) == 1
    (target,) = evaluate(run, ["knn"], debug(), network="target")
    assert target["network"] == "target"
    assert target["fingerprint"] != records[0]["fingerprint"]


def test_other_images_are_a_transfer(run, records, folder):
    settings = debug(data__name="folder", data__path=str(folder))
    knn, retrieval = evaluate(run, ["knn", "retrieval"], settings)
    assert knn["data"] == f"name=folder,path={folder}"
    assert knn["settings"]["data"]["path"] == str(folder)
    assert retrieval["details"] == {"queries": 6, "left_out": 0}
    assert {each["data"] for each in stored(run / "evaluation.json")} > {"own"}


def test_one_split_is_compared_with_itself(run, tmp_path, folder):
    shutil.rmtree(folder / "test")
    settings = debug(data__name="folder", data__path=str(folder))
    _, retrieval = evaluate(run, ["knn", "retrieval"], settings)
    assert retrieval["details"]["queries"] == 12
    with pytest.raises(ValueError, match="fewshot needs a labelled test.*holdback"):
        evaluate(run, ["knn", "fewshot"], settings)
    settings.data.holdback = 4
    _, retrieval = evaluate(run, ["knn", "retrieval"], settings)
    assert retrieval["details"]["queries"] == 4


def test_quality_needs_no_labels_and_is_the_default_without(
    run, tmp_path, folder, capsys
):
    for part in sorted((folder / "train").rglob("*.*")):
        shutil.copy(part, tmp_path / f"{part.parent.name}{part.name}")
    flat = tmp_path / "flat"
    flat.mkdir()
    for part in tmp_path.glob("*.*"):
        part.rename(flat / part.name)
    settings = debug(data__name="folder", data__path=str(flat))
    (record,) = evaluate(run, ["quality"], settings)
    assert set(record["metrics"]) == {
        *("alignment", "uniformity", "effective_rank", "feature_std")
    }
    with pytest.raises(ValueError, match="knn needs labels.*--what=quality.*data.path"):
        evaluate(run, ["knn"], settings)
    capsys.readouterr()
    (default,) = evaluate(run, None, settings)
    assert default["metrics"] == record["metrics"]
    said = "measured: quality; knn and linear need labels, and the training images have"
    assert said in capsys.readouterr().out


def test_quality_looks_at_the_queue_of_its_own_run(run):
    trained, untrained = evaluate(run, ["quality"], debug(), baselines=True)
    metrics = trained["metrics"]
    assert metrics.keys() - untrained["metrics"].keys() == {"queue_fill"}
    assert 0 < metrics["neighbor_purity"] < 1
    assert metrics["queue_fill"] == 0  # nothing was pushed before step 0
    assert 0 < metrics["alignment"] < 2 and metrics["effective_rank"] > 1


def test_the_untrained_encoder_has_fresh_weights(run, tmp_path):
    """Those of the run at step 0, and not what is called trained beside it."""
    path = tmp_path / "encoder.safetensors"
    random = save_random_encoder(path, "patchnet", make_mesh())
    records = evaluate(path, ["knn"], debug(), baselines=True)
    fresh = open_encoder(run, network="online", mesh=make_mesh()).fingerprint
    prints = [record["fingerprint"] for record in records[:2]]
    assert prints == [random.fingerprint, fresh]
    assert records[0]["metrics"] != records[1]["metrics"]


def test_another_set_starts_from_its_own_splits():
    config = tiny.config(data__holdback=100, data__test_split="val", data__pages="all")
    config.data.update(train_split="half", image_column="png", label_column="cls")
    data = target_config(config, debug(data__name="folder").data)[0].data
    assert (data.train_split, data.test_split, data.holdback) == ("train", "test", 0)
    assert data.image_column is data.label_column is data.pages is None
    kept, _ = target_config(config, debug().data)
    assert (kept.data.holdback, kept.data.test_split) == (100, "val")


def test_other_images_are_told_apart_by_where_they_lie(tmp_path, monkeypatch):
    origins = set()
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        monkeypatch.chdir(tmp_path / folder)
        new = debug(data__name="folder", data__path="photos").data
        config, origin = target_config(tiny.config(), new)
        assert config.data.path == "photos"  # messages say what was typed
        assert origin == f"name=folder,path={tmp_path}/{folder}/photos"
        origins.add(origin)
    assert len(origins) == 2


def test_a_folder_that_takes_no_scores_is_refused_before_any_work(
    tmp_path, monkeypatch
):
    def refuse(dir):
        raise OSError(13, "Permission denied", str(dir))

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    # Nor is it said that there is no run: that would be work.
    with pytest.raises(ValueError, match=r"cannot be written to \(Permission denied"):
        evaluate(str(tmp_path), ["knn"], debug())


def test_files_are_refused_for_images_that_are_in_none():
    for name, value in (("path", "photos"), ("test_split", "val")):
        new = debug(**{f"data__{name}": value}).data
        with pytest.raises(ValueError, match=f"data.{name} '{value}' is not read"):
            target_config(tiny.config(), new)


def test_what_is_evaluated_by_default_is_what_the_labels_suffice_for():
    one, two = (
        Split(lambda rows: rows, size=3, labels=np.array(labels, np.int32))
        for labels in ([1, 1, 1], [0, 1, 1])
    )
    assert choose_what(None, two, two) == (["knn", "linear"], "")
    assert choose_what(None, two, None) == (
        ["knn"],
        "measured: knn; linear needs a labelled test split",
    )
    chosen, said = choose_what(None, one, one)
    assert chosen == ["quality"] and "need two classes or more, and all 3" in said
    assert choose_what(None, None, None)[0] == ["quality"]
    with pytest.raises(ValueError, match="knn needs two classes.*use --what=quality"):
        choose_what(["quality", "knn"], one, one)
    for splits in ((one, one), (None, None)):
        assert choose_what(["quality"], *splits) == (["quality"], "")


def test_a_table_has_the_balanced_accuracy_beside_the_accuracy():
    metrics = {"k1": 91.25, "k1_balanced": 60.0, "majority": 90.0}
    records = [
        {"what": "knn", "encoder": "trained", "metrics": metrics},
        {"what": "quality", "encoder": "trained", "metrics": {"margin": 0.5}},
        {"what": "knn", "encoder": "pixels", "metrics": {"k1": 90.0}},
    ]
    assert table(records).splitlines() == [
        "                   trained    balanced      pixels",
        "knn k1               91.25       60.00       90.00",
        "knn majority         90.00",
        "quality margin        0.50",
    ]


def test_what_cannot_be_measured_or_kept_is_refused_first(run, tmp_path):
    with pytest.raises(ValueError, match="--what=knn,logits is not known; use one"):
        evaluate(run, ["knn", "logits"], debug())
    with pytest.raises(ValueError, match="does not exist"):
        evaluate(tmp_path / "nothing", ["knn"], debug())
    old = tmp_path / "evaluation.json"
    old.write_text('{"knn": 84.2}')
    with pytest.raises(ValueError, match="evaluation.json is damaged, or of another"):
        evaluate(tmp_path, ["knn"], debug())
    assert old.read_text() == '{"knn": 84.2}'


def test_features_of_all_images_come_in_one_file(run, tmp_path):
    out = tmp_path / "features.npz"
    extract(run, out, debug(), network=None)
    with np.load(out, allow_pickle=False) as file:
        found = dict(file)
    encoder = open_encoder(run, mesh=make_mesh())
    data = open_data(encoder.config.data)
    count = data.train.size + data.test.size
    assert found["features"].shape == (count, encoder.model.feature_dim)
    assert found["split"].tolist().count("test") == data.test.size
    np.testing.assert_array_equal(
        found["labels"], np.concatenate([data.train.labels, data.test.labels])
    )
    assert found["image_id"][data.train.size] == data.test.names([0])[0]
    about = json.loads(found["metadata"].item())
    assert about["fingerprint"] == encoder.fingerprint
    test = found["split"] == "test"
    again = knn_accuracies(
        *(found["features"][~test], found["labels"][~test]),
        *(found["features"][test], found["labels"][test]),
        k=(5,),
        temperature=(0.1,),
        mesh=make_mesh(),
    )
    (record,) = evaluate(run, ["knn"], debug())
    assert record["metrics"]["k5_T0.1"] == again[5, 0.1].top1


@pytest.mark.parametrize("network", ["online", "target"])
def test_every_command_takes_the_network_that_the_run_names(tmp_path, network):
    """Its vectors and fingerprint are the same, so the card finds its scores."""
    workdir, mesh = tmp_path / "run", make_mesh()
    _, config = save_run(workdir, mesh, evaluate__network=network)
    file, out = tmp_path / "features.npz", tmp_path / "encoder.safetensors"
    (record,) = evaluate(workdir, ["knn"], debug())
    extract(workdir, file, debug(), network=None)
    export(workdir, out, records=read_records(workdir / "evaluation.json"))
    loaded, exported = (snclr_jax.load_encoder(path) for path in (workdir, out))

    with np.load(file, allow_pickle=False) as found:
        features, about = found["features"][:5], json.loads(found["metadata"].item())
    images = open_data(config.data).train.images()[:5]
    np.testing.assert_allclose(loaded(images), features, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(exported(images), loaded(images))
    other = {"online": "target", "target": "online"}[network]
    others = snclr_jax.load_encoder(workdir, network=other)(images)
    assert np.abs(others - features).max() > 0.1

    for each in (loaded.encoder, exported.encoder):
        assert (each.network, each.fingerprint) == (network, record["fingerprint"])
    assert about["fingerprint"] == record["fingerprint"]
    card = (tmp_path / f"{out.name}.md").read_text()
    assert f"| knn | own | k1 | {record['metrics']['k1']:.4g} |" in card


@pytest.mark.slow
@pytest.mark.parametrize("name", ["patchnet", "vit_ti", "resnet18"])
def test_everything_can_be_asked_for_at_once(tmp_path, name):
    width = {"vit_ti": 12, "resnet18": 4}.get(name)
    depth = None if name == "resnet18" else 1
    fields = dict(model__name=name, model__width=width, model__depth=depth)
    save_run(tmp_path, make_mesh(), **fields)
    records = evaluate(tmp_path, list(EVALUATIONS), debug(), baselines=True)
    assert len(records) == 2 * len(EVALUATIONS) + 4
    for record in records:
        assert all(np.isfinite(list(record["metrics"].values())))
    assert len(stored(tmp_path / "evaluation.json")) == len(records)
