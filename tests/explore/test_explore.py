"""`snclr explore` and `snclr similar`: files, a page, and what a click in it does."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import re
from html import escape, unescape
from types import SimpleNamespace

import numpy as np
import pytest
from browser import browse, needs_browser
from PIL import Image
from saved import save_run
from snclr_jax.configs import evaluate as settings_file

from snclr_jax.data import Data, Split, open_data
from snclr_jax.data.decode import UnreadableImage
from snclr_jax.evaluate.subject import Subject
from snclr_jax.explore import images as images_module
from snclr_jax.explore import page as page_module
from snclr_jax.explore.findings import NEAREST, find_out
from snclr_jax.explore.images import Images, _extract, _folder, _read, open_images, unit
from snclr_jax.explore.run import explore
from snclr_jax.explore.similar import similar
from snclr_jax.visualize.project import project

IMAGES = 400  # of `few_digits`


def settings(**fields):
    chosen = settings_file.get_config("debug")
    chosen.explore.update(subset=7, clusters=5, threshold=0.999)
    chosen.explore.update(fields)
    return chosen


@pytest.fixture(scope="module")
def run(tmp_path_factory, few_digits, mesh_of):
    """A run, its config, and the page about its images, some of which are mapped."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images_module, "make_mesh", lambda: mesh_of(1))
        patch.setattr(page_module, "MAP_IMAGES", 40)
        workdir = tmp_path_factory.mktemp("runs") / "a <b>run</b>"
        _, config = save_run(workdir, mesh_of(1))
        yield workdir, config, explore(workdir, settings())


def table(run, name):
    with open(run[0] / "explore" / f"{name}.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def features(run):
    with np.load(run[0] / "explore" / "features.npz") as file:
        return unit(file["features"])


def shown(run):
    """What the page holds for its script."""
    text = run[2].read_text()
    (data,) = re.findall(
        '<script id="data" type="application/json">(.*?)</script>', text
    )
    return json.loads(data)


def test_tables_are_of_all_images(run):
    lines = table(run, "images")
    names = [line["image"] for line in lines]
    assert len(set(names)) == IMAGES
    assert names[0] == "digits/train/0" and names[-1] == "digits/test/99"
    assert [line["split"] for line in lines] == ["train"] * 300 + ["test"] * 100
    cosine = features(run) @ features(run).T
    np.fill_diagonal(cosine, -1)
    for row in (0, 150, 399):
        nearest = names.index(lines[row]["nearest"])
        assert cosine[row, nearest] == pytest.approx(cosine[row].max(), abs=1e-6)
        coverage = np.sort(cosine[row])[-NEAREST:].mean()
        assert float(lines[row]["coverage"]) == pytest.approx(coverage, abs=1e-5)
    clusters = table(run, "clusters")
    assert sum(int(line["images"]) for line in clusters) == IMAGES
    assert len(clusters) == 5 and clusters[0]["most_typical"] in names
    outliers = table(run, "outliers")
    assert [float(line["coverage"]) for line in outliers] == sorted(
        float(line["coverage"]) for line in lines
    )
    chosen = (run[0] / "explore" / "subset.txt").read_text().splitlines()
    assert len(set(chosen)) == 7 and set(chosen) <= set(names)
    pairs = table(run, "duplicates")
    alike = np.argwhere(np.triu(cosine, 1) >= 0.999)
    of_tables = {(line["image"], line["other"]) for line in pairs}
    assert of_tables <= {(names[a], names[b]) for a, b in alike}


def test_the_page_needs_nothing_else_and_runs_one_script(run):
    text = run[2].read_text()
    assert run[2] == run[0] / "explore" / "explore.html"
    assert text.count("<script>") == 1 and "http:" not in text and "https:" not in text
    (script,) = re.findall("<script>(.*?)</script>", text, re.S)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert "default-src 'none'; img-src data:;" in text
    assert f"script-src 'sha256-{digest}'" in text
    assert "a &lt;b&gt;run&lt;/b&gt;" in text and "<b>run" not in text
    assert "as it was asked for" in text


def test_every_picture_of_the_page_has_its_nearest(run):
    data, lines = shown(run), {line["image"]: line for line in table(run, "images")}
    drawn = len(data["maps"]["PCA"]["points"])
    assert 40 <= drawn < data["pictures"] <= len(data["names"]) <= IMAGES
    assert len(data["nearest"]) == data["pictures"]
    for name, near, cluster in zip(
        data["names"], data["nearest"], data["cluster"], strict=False
    ):
        assert data["names"][near[0][0]] == lines[name]["nearest"]
        assert near[0][1] == pytest.approx(float(lines[name]["similarity"]), abs=1e-4)
        assert cluster == int(lines[name]["cluster"])
    # What is near to a point of the map has a picture.
    assert all(
        e < data["pictures"] for near in data["nearest"][:drawn] for e, _ in near
    )
    listed = re.findall('class="tile" data-entry="([0-9]+)"', run[2].read_text())
    assert listed and all(int(entry) < drawn for entry in listed)


def test_features_are_kept_for_the_same_encoder_and_images(run, monkeypatch):
    workdir, config, _ = run
    first = open_images(workdir, settings())
    assert first.names == [line["image"] for line in table(run, "images")]
    data = open_data(config.data)
    np.testing.assert_array_equal(first.read(np.array([301, 2, 300])), [
        data.test.images()[1], data.train.images()[2], data.test.images()[0]
    ])  # fmt: skip
    monkeypatch.setattr(Subject, "features", None)  # would be called
    np.testing.assert_array_equal(open_images(workdir, settings()).unit, features(run))
    file = workdir / "explore" / "features.npz"
    with np.load(file) as kept:
        facts = json.loads(kept["metadata"].item())
    assert facts["fingerprint"] == first.encoder.fingerprint
    for name in ("fingerprint", "images", "data"):
        assert _read(file, {name: facts[name]}) is not None
        assert _read(file, {name: "another"}) is None
    assert _read(workdir / "none.npz", {}) is None
    cut = workdir / "cut.npz"
    cut.write_bytes(file.read_bytes()[:-40])
    assert _read(cut, {}) is None


def test_an_image_is_most_like_itself(run, tmp_path):
    workdir, config, _ = run
    picture = tmp_path / "three <3>.png"
    Image.fromarray(open_data(config.data).test.images()[3]).save(picture)
    text = similar([picture, picture], workdir, settings(), n=4)
    first, line, *rest, page = text.splitlines()
    assert first == str(picture) and line == "  1.0000  digits/test/3"
    assert len(rest) == 3 + 1 + 4 and page == str(workdir / "explore" / "similar.html")
    values = [float(line.split()[0]) for line in rest[:3]]
    assert values == sorted(values, reverse=True)
    text = (workdir / "explore" / "similar.html").read_text()
    assert text.count("<img ") == 2 * 5 and "<script" not in text and "<3>" not in text


@pytest.mark.parametrize(
    ("queries", "message"),
    [
        ([], "no image is named; use snclr similar IMAGE"),
        (["none.png"], "there is no image file none.png; check its path"),
    ],
)
def test_images_that_are_not_there_are_refused_first(queries, message):
    with pytest.raises(ValueError, match=message):
        similar(queries, "nowhere", settings())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"clusters": 4}, "explore.clusters is 4; use 1 to 3, the number of images"),
        ({"clusters": 0}, "explore.clusters is 0; use 1 to 3, the number of images"),
        ({"subset": 0}, "explore.subset is 0; use 1 or more"),
        ({"threshold": 1.5}, "explore.threshold is 1.5; use a cosine up to 1"),
        ({"threshold": 0.0}, "explore.threshold is 0.0; use a cosine up to 1"),
    ],
)
def test_a_setting_out_of_its_range_is_named(fields, message):
    three = SimpleNamespace(unit=np.eye(3, dtype=np.float32))
    with pytest.raises(ValueError, match=re.escape(message)):
        find_out(three, settings(**({"clusters": None} | fields)))


def test_a_suggested_threshold_is_that_of_copies(mesh_of, rng):
    """An encoder of the mean color: a copy has it, and no other picture."""
    pictures = np.broadcast_to(
        rng.integers(0, 256, (30, 1, 1, 3), dtype=np.uint8), (30, 16, 16, 3)
    )
    train = Split(pictures.__getitem__, size=30)
    encode = lambda split: unit(split.images().mean(axis=(1, 2)) - 127.0)  # noqa: E731
    images = Images(
        {"train": train},
        encode(train).astype(np.float32),
        SimpleNamespace(features=encode),
        mesh_of(1),
        None,
        "",
    )
    found = find_out(images, settings(threshold=None))
    assert found.suggested == found.duplicates.threshold > 0.99
    assert find_out(images, settings(threshold=0.9)).suggested is None


def test_an_image_that_cannot_be_read_is_left_out(tmp_path):
    """Another one stands in its place, and would be its duplicate."""

    def load(rows):
        if 2 in rows:
            raise UnreadableImage("2.png", "cut off")
        return np.stack([np.full((4, 4, 3), 10 * row, np.uint8) for row in rows])

    splits = {
        name: Split(load, size=size, names=name, max_bad=0.5)
        for name, size in (("train", 5), ("test", 2))
    }
    encode = lambda split: split.images()[:, 0, 0].astype(np.float32)  # noqa: E731
    file, facts = tmp_path / "features.npz", {"fingerprint": "a"}
    subject = SimpleNamespace(features=encode)
    found = _extract(file, subject, Data(*splits.values(), None), facts)
    for values, rows, note in (found, _read(file, facts)):
        assert values[:, 0].tolist() == [0, 10, 30, 40, 0, 10]
        assert rows["train"].tolist() == [0, 1, 3, 4] and rows["test"].tolist() == [
            0,
            1,
        ]
        assert note.startswith("1 images were left out: 2.png cannot be decoded")
    assert _read(file, {"fingerprint": "b"}) is None


def test_a_folder_beside_the_encoder_takes_the_files(tmp_path):
    workdir = tmp_path / "run"
    assert _folder(workdir, None) == workdir / "explore"
    assert _folder(workdir / "checkpoints" / "60", None) == workdir / "explore"
    assert _folder(tmp_path / "a.safetensors", None) == tmp_path / "a.explore"
    assert _folder(workdir, "there").name == "there"
    with pytest.raises(ValueError, match="gs://b/run is not on this machine; .*--out"):
        _folder("gs://b/run", None)


# Clicks where a picture of the map is drawn, turns the wheel there, then clicks a tile.
CLICKS = """
window.addEventListener("load", () => {
  const point = (kind, x, y, more = {}) => {
    const event = new (kind === "wheel" ? WheelEvent : PointerEvent)(kind,
      { bubbles: true, cancelable: true, ...more });
    Object.defineProperty(event, "offsetX", { value: x });
    Object.defineProperty(event, "offsetY", { value: y });
    canvas.dispatchEvent(event);
  };
  const names = () => [...document.querySelectorAll("#nearest button")]
    .map(each => each.title);
  const found = { before: names(), whole: state.zoom };
  const [x, y] = corner(5).map(each => each + shownSide() / 2);
  found.at = entryAt(x, y);
  point("pointerdown", x, y); point("pointerup", x, y);
  found.clicked = state.entry;
  found.nearest = names();
  point("wheel", x, y, { deltaY: -800 });
  found.closer = state.zoom;
  const [left, top] = corner(5).map(each => each + shownSide() / 2);
  found.stays = Math.hypot(left - x, top - y) < 1;
  point("pointerdown", x, y);
  for (const kind of ["pointermove", "pointerup"]) point(kind, x + 30, y);
  found.moved = Math.round(corner(5)[0] + shownSide() / 2 - x);
  const tile = document.querySelector(".tiles button[data-entry]");
  tile.click();
  found.tile = Number(tile.dataset.entry);
  found.chosen = state.entry;
  found.second = names();
  document.querySelector("[data-cluster]").click();
  found.cluster = state.cluster;
  const context = canvas.getContext("2d");
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height).data;
  found.drawn = pixels.some(value => value > 0);
  found.loaded = performance.getEntriesByType("resource").map(entry => entry.name)
    .filter(name => !name.startsWith("data:"));
  document.title = JSON.stringify(found);
});
"""


@needs_browser
def test_a_click_shows_the_nearest_pictures(run, tmp_path):
    # The policy allows the script of the page alone; a copy without it has one more.
    text = re.sub('<meta http-equiv="Content-Security.*?>', "", run[2].read_text())
    probe = tmp_path / "probe.html"
    probe.write_text(text.replace("</body>", f"<script>{CLICKS}</script></body>"))
    said = browse(probe, "--dump-dom")
    found = json.loads(unescape(re.search("<title>(.*?)</title>", said)[1]))
    data = shown(run)

    def nearest(entry):
        return [data["names"][other] for other, _ in data["nearest"][entry]]

    assert found["before"] == [] and found["loaded"] == [] and found["drawn"]
    # Another picture may lie over the middle of this one.
    assert found["clicked"] == found["at"] is not None
    assert found["nearest"] == nearest(found["at"]) != []
    assert found["closer"] == pytest.approx(found["whole"] * np.exp(2))
    assert found["stays"] and found["moved"] == 30
    assert found["chosen"] == found["tile"]
    assert found["second"] == nearest(found["tile"])
    assert found["cluster"] == 0


# Says which map is drawn and explained, before and after a click on the other one.
OTHER_MAP = """
window.addEventListener("load", () => {
  const axes = [...document.querySelectorAll("[data-axes]")];
  const now = () => [state.method, corner(0),
    axes.filter(each => each.checkVisibility()).map(each => each.textContent),
    document.querySelector("[data-method][aria-pressed=true]").textContent];
  const first = now();
  document.querySelector("[data-method=UMAP]").click();
  document.title = JSON.stringify([first, now()]);
});
"""


@needs_browser
def test_the_other_map_is_drawn_and_explained_after_a_click(run, tmp_path, monkeypatch):
    def mirrored(features, method, *, seed):
        points, axes = project(features, "PCA", seed=seed)
        return (points, axes) if method == "PCA" else (-points, ("UMAP 1", "UMAP 2"))

    monkeypatch.setattr(page_module, "can_umap", lambda: True)
    monkeypatch.setattr(page_module, "project", mirrored)
    html = explore(run[0], settings(), out=tmp_path).read_text()
    assert f"<title>{escape(run[0].name)}</title>" in html
    text = re.sub('<meta http-equiv="Content-Security.*?>', "", html)
    probe = tmp_path / "probe.html"
    probe.write_text(text.replace("</body>", f"<script>{OTHER_MAP}</script></body>"))
    said = browse(probe, "--dump-dom")
    first, then = json.loads(unescape(re.search("<title>(.*?)</title>", said)[1]))
    for method, (drawn, _, explained, pressed) in (("PCA", first), ("UMAP", then)):
        assert (drawn, pressed) == (method, method)
        (sentence,) = explained
        assert sentence.startswith(f"{method}: ")
    assert first[1] != then[1]
