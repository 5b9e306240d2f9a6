"""One page about a run: whole, escaped, without a network, and looked at."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import re
import shutil
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import tiny
from browser import browse, needs_browser
from full_disk import full_disk
from PIL import Image
from saved import CLOCK, batches, filled_queue
from tensorboardX.proto.event_pb2 import Event

from snclr_jax.data import Data, Split, open_data
from snclr_jax.encoder.stored import open_encoder
from snclr_jax.evaluate.memory import choices
from snclr_jax.evaluate.memory.networks import Search, open_networks
from snclr_jax.evaluate.online import OnlineChoices, Run
from snclr_jax.objectives.snclr import SNCLR
from snclr_jax.queue.settings import QueueSettings
from snclr_jax.report import measure, neighbor_sections, sections
from snclr_jax.report import run as run_module
from snclr_jax.report.online import OnlineGallery
from snclr_jax.report.run import report
from snclr_jax.run.checkpoint import Checkpoints
from snclr_jax.run.metrics import MetricWriter
from snclr_jax.run.workdir import record_run
from snclr_jax.visualize import style

LINES = [
    {"step": 0, "knn_untrained": 31.25, "knn_raw_pixels": 12.5, "majority": 10.5},
    {"step": 50, "loss": 2.5, "images_per_second": 1234.0, "positiveness_mean": 0.25},
    {"step": 50, "knn": 40.75, "knn_balanced": 39.5},
    {"step": 60, "loss": 2.25, "images_per_second": 1236.0, "positiveness_mean": 0.25},
    {"step": 60, "knn": 43.75, "knn_balanced": 41.5},
]
EVIL = "<script>alert(1)</script>"
RECORD = {
    "what": "linear",
    "encoder": "trained",
    "network": "online",
    "step": 60,
    "fingerprint": "0",
    "data": EVIL,
    "metrics": {
        "top1": 71.125,
        "small": 0.0123,
        "uniformity": -1.5,
        "majority": 10.75,
    },
}
BAD = [
    {"split": "train", "index": i, "name": f"train/{i}.png", "reason": EVIL}
    for i in range(12)
]


class Page(HTMLParser):
    """Tags in order, what they load, and the text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.loaded, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.loaded += [v for k, v in attributes if k in ("src", "srcset", "href")]

    def handle_data(self, data):
        self.text += f" {data} "


def save(workdir, lines, *, filled=True, **fields):
    """Leaves what a run leaves, without training."""
    mesh = run_module.make_mesh()
    config = tiny.config(**fields)
    _, _, state = tiny.build(config, mesh)
    if filled:
        queue = filled_queue(np.random.default_rng(0), config, mesh, step=60)
        state = state.replace(objective=queue, step=state.step + 60)
    record_run(config, workdir)
    with contextlib.closing(Checkpoints(workdir, keep=1)) as checkpoints:
        checkpoints.save(state, batches(), CLOCK, config)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (workdir / "metrics.jsonl").write_text(text)
    return config, state


@pytest.fixture(scope="module", autouse=True)
def small(mesh_of):
    """Few images in all figures, one device: compiling takes most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "MAP_IMAGES", 60)
        patch.setattr(measure, "KNN_IMAGES", 120)
        patch.setattr(choices, "IMAGES", 20)
        patch.setattr(style, "DPI", 50)
        patch.setattr(run_module, "make_mesh", lambda: mesh_of(1))
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "a <b>run</b> & more"
    saved = save(workdir, LINES)
    content = {"version": 1, "records": [RECORD]}
    (workdir / "evaluation.json").write_text(json.dumps(content))
    lines = "".join(json.dumps(line) + "\n" for line in BAD)
    (workdir / "bad_files.jsonl").write_text(lines)
    return workdir, *saved, report(workdir)


def test_a_page_has_every_section_and_needs_nothing_else(run):
    workdir, config, _, path = run
    assert path == workdir / "report.html"
    text = path.read_text()
    page = Page(text)
    titles = re.findall("<h2>(.*?)</h2>", text)
    assert titles == [
        *("Training", "Objective", "Neighbors", "Right neighbors", "Queue"),
        *(
            "Where the encoder looks",
            "Map of the embedding",
            "Confusion",
            "Unreadable images",
            "Evaluation",
            "Settings",
        ),
        "Versions and commands",
    ]
    # Light and dark, all but those of ranks and of the queue also for phones.
    assert len(page.loaded) == 2 * (9 + 6)
    for number, source in enumerate(page.loaded):
        content = base64.b64decode(source.removeprefix("data:image/webp;base64,"))
        image = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
        dark = number % 2 == 0
        corner = image[0, 0]  # of a photo, nearly the background
        assert (corner < 60).all() if dark else (corner > 235).all()
        assert image.std() > 10
    assert "default-src 'none'" in text and "http:" not in text
    assert len(text) < 5e6
    names = sorted(each.stem for each in (workdir / "figures").iterdir())
    assert names == [
        *("activation", "confusion", "curves", "embedding", "gallery"),
        *("neighbor_ranks", "objective", "queue_age", "queue_coverage"),
    ]
    for number in ("43.75%", "31.25%", "12.50%", "60 of 93 so far", "1,235 images/s"):
        assert number in page.text, number
    assert "1,500 + 1,188 test" in page.text and "71.12" in page.text
    for said in (
        "43.75% (balanced 41.50%)",
        "10.50%",
        "kNN is measured at the online evaluations",
        "Accuracies in percent: the higher, the better. A balanced one is the mean",
    ):
        assert said in page.text, said
    right = re.search(r"training images: .*%\) right. Always.*class: .*%\)", page.text)[
        0
    ]
    assert right.count("(balanced ") == 2


def test_what_users_name_is_escaped(run):
    workdir, *_, path = run
    text = path.read_text()
    page = Page(text)
    assert not {"script", "b"} & set(page.tags)
    assert EVIL in page.text and workdir.name in page.text
    assert f"--workdir='{workdir}'" in page.text


def test_images_that_cannot_be_read_are_named(run):
    text = run[3].read_text()
    section = re.search("<h2>Unreadable images</h2>.*?<h2>", text, re.S)[0]
    listed, rest = section.split("<details>")
    assert "12 images could not be read" in section
    assert listed.count("<td>train/") == 10 and "2 more" in rest
    assert "<td>train/11.png</td>" in rest
    assert "<dt>unreadable images</dt><dd>12, see below</dd>" in text


def test_a_number_stands_beside_what_is_good(run):
    text = run[3].read_text()
    (row,) = re.findall("<tr><td>linear</td><td>uniformity</td>.*?</tr>", text)
    assert row.endswith(
        "<td>-1.50</td><td>lower; 0 where features are one point, "
        "about -4 where even</td></tr>"
    )
    assert "<td>71.12</td><td></td></tr>" in text


def test_settings_that_differ_come_first(run):
    first = re.search("<h2>Settings</h2>.*?<details>", run[3].read_text(), re.S)[0]
    assert "<td>objective.queue.size</td><td>32</td><td>4096</td>" in first
    assert "<td>batch_size</td><td>16</td><td>256</td>" in first
    assert "optim.momentum" not in first
    assert "<td>optim.momentum</td><td>0.9</td>" in run[3].read_text()


def test_networks_of_a_checkpoint_are_those_that_were_saved(run):
    workdir, _, state, _ = run
    mesh = run_module.make_mesh()
    encoder = open_encoder(workdir, mesh=mesh)
    found = open_networks(encoder, Search.of(encoder.config, mesh))
    for name in found._fields:
        jax.tree.map(
            np.testing.assert_array_equal, getattr(found, name), getattr(state, name)
        )
    assert set(found.params) == {"encoder", "projector", "predictor"}


def test_the_gallery_of_training_is_on_the_board(run, tmp_path):
    _, config, state, _ = run
    data = open_data(config.data)
    of_run = Run(config, None, SNCLR(), run_module.make_mesh(), data)
    image = OnlineGallery(of_run)(state, of_run)["gallery"]
    assert image.dtype == np.uint8 and image.std() > 20
    writer = MetricWriter(tmp_path, first_step=0, to=["tensorboard"])
    writer.write_image(7, "gallery", image)
    writer.close()
    (file,) = (tmp_path / "tensorboard").iterdir()
    content, shown = file.read_bytes(), []
    while content:
        length = int.from_bytes(content[:8], "little")
        event = Event.FromString(content[12 : 12 + length])
        shown += [(event.step, v.tag, v.image) for v in event.summary.value]
        content = content[16 + length :]
    ((step, tag, stored),) = shown
    assert (step, tag) == (7, "gallery")
    decoded = Image.open(io.BytesIO(stored.encoded_image_string))
    assert np.array_equal(np.asarray(decoded), image)
    without = SNCLR(queue=QueueSettings(k=0))
    assert not OnlineGallery(of_run._replace(objective=without)).possible


def test_numbers_of_the_evaluations_are_those_of_the_page(run):
    _, config, state, path = run
    data = open_data(config.data)
    of_run = Run(config, None, SNCLR(), run_module.make_mesh(), data)
    numbers = OnlineChoices(of_run)(state, of_run)
    assert numbers.keys() == choices.GOOD.keys()
    text = path.read_text()
    section = re.search("<h2>Right neighbors</h2>.*?<details>", text, re.S)[0]
    assert f" in {numbers['queue_weight_auc']:.1%} of all pairs (AUC" in section
    rows = dict(re.findall("<tr><td>(.*?)</td><td>(.*?)</td>", section))
    assert list(rows) == ["all", "1", "2", "3", "4"]  # K is 4
    assert rows["1"] == f"{numbers['queue_purity_rank1']:.1%}"
    assert f"the skewness is {numbers['queue_hub_skew']:.1f}, by chance" in text
    unlabelled = Split(data.train.read, size=data.train.size)
    without = of_run._replace(data=Data(unlabelled, None, None))
    assert not OnlineChoices(without).possible
    infonce = of_run._replace(objective=SNCLR(queue=QueueSettings(k=0)))
    assert not OnlineChoices(infonce).possible


def test_a_class_that_chose_nothing_is_not_in_the_table():
    html = neighbor_sections._by_class(np.array([0.5, np.nan, 0.25]), ("a", "b", EVIL))
    rows = re.findall("<tr><td>(.*?)</td><td>(.*?)</td></tr>", html)
    assert rows == [(escape(EVIL), "25.0%"), ("a", "50.0%")] and "2 classes" in html


@pytest.mark.slow
def test_a_run_without_labels_or_neighbors_says_so(tmp_path, rng):
    photos, workdir = tmp_path / "photos", tmp_path / "run"
    photos.mkdir()
    for number in range(20):
        pixels = rng.integers(0, 256, (40, 32), dtype=np.uint8)  # gray
        Image.fromarray(pixels).save(photos / f"{number}.png")
    lines = [{"step": 1, "loss": 2.0, "images_per_second": 10.0}]
    fields = dict(data__name="folder", data__path=str(photos), objective__queue__k=0)
    save(workdir, lines, filled=False, **fields)
    text = report(workdir).read_text()
    assert "finds no neighbors for its images" in text
    assert "snclr evaluate --workdir=" in text
    for absent in ("Confusion", "Objective", "Queue", "Right neighbors", "kNN"):
        assert absent not in text
    assert {each.stem for each in (workdir / "figures").iterdir()} == {
        *("activation", "curves", "embedding")
    }
    shutil.rmtree(photos)
    text = report(workdir).read_text()
    assert "images of the run cannot be read here" in text and str(photos) in text
    assert "Settings" in text and "Map of the embedding" not in text


def test_nothing_is_said_of_what_is_not_there(rng):
    """A run without labels, on a machine without UMAP."""
    lines = [{"step": 1, "loss": 2.0, "images_per_second": 10.0}]
    training, *others = sections.curves(lines, SNCLR())
    assert "kNN" not in training.text and not others
    maps = {name: (rng.normal(size=(5, 2)), ("", "")) for name in ("PCA", "t-SNE")}
    mapped = measure.EmbeddingMap(maps, None, "training", 5)
    text = sections.embedding(mapped, None).text
    assert "; t-SNE keeps neighbors" in text and "of 5 training images" in text
    some = sections.embedding(mapped._replace(images=9), None).text
    assert "Features of 5 of 9 training images" in some
    assert not any(word in text for word in ("UMAP", "kNN", "class"))
    both = mapped._replace(maps=maps | {"UMAP": maps["PCA"]})
    assert "; t-SNE and UMAP keep neighbors" in sections.embedding(both, None).text
    unevaluated = sections.evaluations([], Path("run"), online=False)
    assert unevaluated.text == "This run has not been evaluated yet."
    quality = RECORD | {"what": "quality", "metrics": {"alignment": 0.5}}
    assert (
        "ccurac" not in sections.evaluations([quality], Path("run"), online=False).text
    )


def test_without_a_test_split_no_image_votes_for_itself(rng, mesh_of):
    """Of random features and labels, one image in four would be right by chance."""
    features, labels = rng.normal(size=(200, 16)), rng.integers(0, 4, 200)
    train = Split(lambda rows: rows, size=200, labels=labels.astype(np.int32))
    subject = SimpleNamespace(features=lambda split: features[: split.size])
    config = tiny.config(evaluate__k=1)
    found = measure.classify(subject, Data(train, None, None), config, mesh_of(1))
    assert found.left_out and len(found.true) > 100
    assert 0.05 < np.mean(found.true == found.predicted) < 0.5


def test_a_report_is_of_the_network_that_is_asked_for(run, monkeypatch):
    class Asked(Exception):
        pass

    def open_encoder(path, *, network, mesh):
        raise Asked(network)

    monkeypatch.setattr(run_module, "open_encoder", open_encoder)
    with pytest.raises(Asked, match="^target$"):
        report(run[0], network="target")


@pytest.mark.parametrize("labels", [None, [-1, -1, -1], [1, 1, -1]])
def test_without_two_classes_there_is_no_confusion(labels):
    labels = labels and np.array(labels, np.int32)
    split = Split(lambda rows: rows, size=3, labels=labels)
    assert measure.classify(None, Data(split, split, None), None, None) is None


def test_a_map_needs_three_images():
    few = Split(lambda rows: rows, size=2)
    assert measure.map_embedding(None, Data(few, few, None), seed=0) is None


def test_a_run_that_has_nothing_yet_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no run"):
        report(tmp_path)
    record_run(tiny.config(), tmp_path)
    with pytest.raises(ValueError, match="metrics.jsonl has no step yet"):
        report(tmp_path)
    (tmp_path / "metrics.jsonl").write_text(json.dumps(LINES[1]) + "\n")
    with pytest.raises(ValueError, match="no whole checkpoint in"):
        report(tmp_path)


def test_a_damaged_summary_is_named(tmp_path):
    (tmp_path / "summary.json").write_text("{")
    with pytest.raises(ValueError, match="summary.json is damaged .*remove it"):
        run_module._summary(tmp_path, LINES, None, None, 0)


def test_a_file_of_a_report_that_cannot_be_written_is_named_and_stays(tmp_path):
    figures = {"curves": style.new_figure(2, 1)}
    run_module._write(tmp_path, figures, "before")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    assert len(before) == 2
    for drawn, name in ((figures, "figures/curves.png"), ({}, "report.html")):
        message = f"^{tmp_path / name} cannot be written .*too large"
        with pytest.raises(OSError, match=message), full_disk():
            run_module._write(tmp_path, drawn, "after")
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*.*")}


@pytest.mark.slow
@needs_browser
def test_a_browser_shows_the_page_in_light_and_dark(run, tmp_path):
    path, seen = run[3], {}
    for theme, scheme in (("dark", 0), ("light", 1)):
        file = tmp_path / f"{theme}.png"
        scheme = f"--blink-settings=preferredColorScheme={scheme}"
        browse(path, scheme, f"--screenshot={file}")
        seen[theme] = np.asarray(Image.open(file).convert("L"), float)
        assert seen[theme].shape == (800, 1280)
        assert seen[theme].std() > 10  # not blank
    assert seen["light"][0, 0] > 250 and seen["dark"][0, 0] < 40
    # The policy of the page forbids scripts, and a copy without it measures itself.
    probe = tmp_path / "probe.html"
    script = """<script>const root = document.documentElement;
    document.title = JSON.stringify({
      wider: root.scrollWidth - root.clientWidth,
      loaded: performance.getEntriesByType("resource")
        .map(entry => entry.name).filter(name => !name.startsWith("data:")),
      blank: [...document.images].filter(image => !image.naturalWidth).length,
      small: [...document.images].filter(image => image.clientWidth <
        0.8 * image.naturalWidth * 100 / DPI).length,
    })</script>""".replace("DPI", str(style.DPI))
    text = re.sub(
        '<meta http-equiv="Content-Security-Policy".*?>', "", path.read_text()
    )
    probe.write_text(text.replace("</body>", f"{script}</body>"))
    for width in (1280, 500):
        shown = browse(probe, "--dump-dom", width=width)
        title = re.search("<title>(.*?)</title>", shown)[1]
        found = json.loads(title.replace("&quot;", '"'))
        # Letters of a figure stay large enough to be read.
        assert found == {"wider": 0, "loaded": [], "blank": 0, "small": 0}, width
