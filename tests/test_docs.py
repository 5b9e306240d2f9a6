"""The documentation names fields, commands, files and metrics that exist; it builds."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import itertools
import math
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from absl import flags
from annotated_types import Ge
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from snclr_jax.configs import base
from snclr_jax.configs import evaluate as evaluation_settings
from snclr_jax.configs.published import PUBLISHED
from test_import_line import LINE

from snclr_jax import main
from snclr_jax.devices.mesh import AXIS
from snclr_jax.evaluate.evaluations import EVALUATIONS
from snclr_jax.evaluate.results import GOOD
from snclr_jax.objectives import OBJECTIVES
from snclr_jax.objectives.snclr_plain import (
    info_nce,
    positiveness,
    soft_neighbor_loss,
)
from snclr_jax.settings.check import check_config
from snclr_jax.step.objective import Now, Objective, Seen

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
README = ROOT / "README.md"
# The README is read like a page; its links start at the root.
TEXT = {page.name: page.read_text() for page in (*PAGES, README)}
SOURCES = "\n".join(
    path.read_text()
    for folder in ("snclr_jax", "configs")
    for path in sorted((ROOT / folder).rglob("*.py"))
)
CONFIGS = {"base": base, "evaluate": evaluation_settings}
# Commands whose flags --config.FIELD are those of configs/evaluate.py.
EVALUATING = ("evaluate", "explore", "features", "segment", "similar")
# Names in backticks that are the reader's or another project's.
OF_OTHERS = (
    "my_photos",
    "bgr_to_rgb",
    "mask_rcnn_snclr.py",
    "my_objective.py",
    "my_recipe.py",
)
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)

pages = pytest.mark.parametrize("page", [*PAGES, README], ids=lambda page: page.name)


def load_hooks():
    spec = importlib.util.spec_from_file_location("docs_hooks", DOCS / "hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


hooks = load_hooks()


def fields_of(config, prefix=""):
    """Returns every field of a config by its dotted name, sections included."""
    found = {}
    for name, value in config.items():
        found[prefix + name] = value
        if hasattr(value, "items"):
            found |= fields_of(value, f"{prefix}{name}.")
    return found


FIELDS = {name: fields_of(module.get_config()) for name, module in CONFIGS.items()}
# The base has one objective; pages and commands set the fields of any.
for _name, _class in OBJECTIVES.items():
    FIELDS["base"] = fields_of(_class.section(_name), "objective.") | FIELDS["base"]


def commands_of(text):
    """Yields the words of every `snclr` command in fences and in backticks."""
    for fence in FENCE.findall(text):
        for line in fence.replace("\\\n", " ").split("\n"):
            for part in line.split("&&"):
                if re.match(r"\s*(\S*/)?snclr ", part):
                    yield shlex.split(part, comments=True)
    for inline in re.findall(r"`(snclr [^`]+)`", FENCE.sub("", text)):
        yield shlex.split(inline)


def check_command(words):
    _, name, *arguments = words
    if name == "--help":
        return
    assert name in {*main.COMMANDS, "recipes"}, f"snclr {name} is no command"
    fields = FIELDS["evaluate" if name in EVALUATING else "base"]
    for argument in arguments:
        flag, _, value = argument.partition("=")
        if not flag.startswith("--"):
            continue
        if flag == "--config":
            check_recipe(value)
        elif flag.startswith("--config."):
            field = flag.removeprefix("--config.")
            assert field in fields or field == "FIELD", f"no field {field}"
        else:
            assert flag.removeprefix("--") in flags.FLAGS, f"no flag {flag}"


def check_recipe(value):
    """Loads a recipe, by its name or its path; FILE and others' files are left out."""
    file, _, variant = value.partition(":")
    name = file.removeprefix("configs/").removesuffix(".py")
    if file.startswith("configs/") or re.fullmatch(r"[a-z]\w*", file):
        importlib.import_module(f"snclr_jax.configs.{name}").get_config(variant)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_field_is_explained_with_its_default(name):
    page = hooks.on_page_markdown(f"<!-- fields of configs/{name}.py -->")
    leaves = {
        field: value
        for field, value in FIELDS[name].items()
        if not hasattr(value, "items")
        # Those of an objective stand in its own file.
        and (not field.startswith("objective.") or field == "objective.name")
    }
    check_reference(page, leaves)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_field_of_an_objective_is_explained_with_its_default(name):
    fields = fields_of(OBJECTIVES[name].section(name), "objective.")
    del fields["objective.name"]
    # Objectives share names of fields, and each has its own tables.
    tables = hooks.objectives_reference().split(f"### {name}: ")[1:]
    page = "\n".join(table.partition("\n### ")[0] for table in tables)
    leaves = {f: v for f, v in fields.items() if not hasattr(v, "items")}
    check_reference(page, leaves)


def check_reference(page, leaves):
    rows = dict(
        re.fullmatch(r"\| `([\w.]+)` \| (.+) \|", line).groups()
        for line in page.splitlines()
        if line.startswith("| `")
    )
    assert set(rows) == set(leaves)
    for field, value in leaves.items():
        _, default, explanation = rows[field].split(" | ", 2)
        assert default == f"`{value!r}`", field
        assert len(explanation.split()) > 0, f"{field} has no comment"


def test_reference_stands_on_its_page():
    found = hooks.MARKER.findall(TEXT["configuration.md"])
    assert found == list(CONFIGS)
    assert TEXT["configuration.md"].count(hooks.OBJECTIVES_MARKER) == 1


def test_comment_explains_what_follows_without_a_break():
    source = '''
def get_config():
    """Not an explanation."""
    config = ConfigDict()
    # One,
    # in two lines.
    config.a = 1
    config.b = 2
    # Three.
    config.c = 3

    config.part = _part()
    config.bare = 0
    return config

def _part():
    """All of it."""
    part = ConfigDict()
    part.x = 1
    # Why.
    part.y = 2
    return part
'''
    assert hooks.explanations(source) == {
        "a": "One, in two lines.",
        "b": "One, in two lines.",
        "c": "Three.",
        "part": "All of it.",
        "part.x": "All of it.",
        "part.y": "Why.",
        "bare": "",
    }


@pages
def test_commands_exist_with_their_flags(page):
    for words in commands_of(TEXT[page.name]):
        check_command(words)


def test_commands_are_found_and_wrong_ones_refused():
    fence = "```bash\ny && x/snclr train --config=digits \\\n --a\n```"
    assert list(commands_of(f"{fence}\n`snclr compare A`")) == [
        ["x/snclr", "train", "--config=digits", "--a"],
        ["snclr", "compare", "A"],
    ]
    for wrong in (
        "snclr fly",
        "snclr train --speed=2",
        "snclr train --config.objective.queue.length=2",
        "snclr train --config.knn.k=2",
        "snclr evaluate --config.objective.queue.k=2",
    ):
        with pytest.raises(AssertionError):
            check_command(wrong.split())
    for recipe in ("none", "configs/none.py"):
        with pytest.raises(ModuleNotFoundError):
            check_command(f"snclr train --config={recipe}".split())
    for recipe in ("digits:none", "configs/digits.py:none"):
        with pytest.raises(ValueError):
            check_command(f"snclr train --config={recipe}".split())
    check_command("snclr train --config=cifar10:authors,debug".split())
    check_command("snclr train --config=FILE".split())


@pages
def test_fields_in_backticks_exist(page):
    known = FIELDS["base"].keys() | FIELDS["evaluate"].keys()
    for name, objective in OBJECTIVES.items():
        known |= fields_of(objective.section(name), "objective.").keys()
    sections = {field.split(".")[0] for field in known if "." in field}
    for text in re.findall(r"`([^`\n]+)`", FENCE.sub("", TEXT[page.name])):
        field = re.match(r"(?:--config\.)?([a-z_]\w*(?:\.\w+)+)", text)
        if field and field[1].split(".")[0] in sections:
            ends = (".py", ".json", ".jsonl", ".html", ".safetensors")
            if not field[1].endswith(ends):
                assert field[1] in known, f"{field[1]} is no field of a config"


@pages
def test_files_in_backticks_exist(page):
    for text in re.findall(r"`([\w./]+\.(?:py|sh))`", TEXT[page.name]):
        found = (ROOT / text).is_file() or any(ROOT.glob(f"snclr_jax/**/{text}"))
        assert found or text in OF_OTHERS, f"{text} does not exist"


@pages
def test_names_in_backticks_exist(page):
    prose = FENCE.sub("", TEXT[page.name])
    for name in re.findall(r"`([a-z]+(?:_[a-z0-9]+)+)`", prose):
        assert name in OF_OTHERS or re.search(rf"\b{name}\b", SOURCES), f"no {name}"


@pages
def test_links_lead_somewhere(page):
    prose = FENCE.sub("", TEXT[page.name])
    for link in re.findall(r"\]\(([^)]+)\)", prose):
        if not link.startswith(("http", "#")):
            file = page.parent / link.partition("#")[0]
            assert file.exists(), f"{link} does not exist"


def test_every_metric_is_explained():
    written = re.findall(r'(?:metrics|means)\["(\w+)"\] =', SOURCES)
    step = (ROOT / "snclr_jax" / "step" / "train_step.py").read_text()
    for block in re.findall(r"metrics \|?= \{(.*?)\}", step, re.DOTALL):
        written += re.findall(r'"(\w+)":', block)
    for path in (ROOT / "snclr_jax" / "objectives").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name == "metrics":
                keys = (each.keys for each in ast.walk(node) if type(each) is ast.Dict)
                written += [k.value for k in itertools.chain(*keys) if k]
    assert len(set(written)) > 15
    for name in written:
        assert f"`{name}`" in TEXT["watching.md"], f"{name} is not explained"


def test_every_evaluation_is_explained():
    rows = re.findall(r"^\| `(\w+)`( \*)? \|", TEXT["evaluation.md"], re.MULTILINE)
    assert {name for name, _ in rows} >= set(EVALUATIONS)
    starred = {name for name, star in rows if star}
    assert starred == {name for name, each in EVALUATIONS.items() if each.needs_test}


def test_pages_say_of_every_number_what_is_good():
    rows = dict(
        re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \|", TEXT["evaluation.md"], re.M)
    )
    assert {name: rows[name] for name in GOOD} == GOOD


def test_collapsed_losses_are_those_of_the_page():
    b, k = 6, 3
    one = jnp.zeros((b, 4)).at[:, 0].set(1.0)
    keys = jnp.broadcast_to(one[:, None], (b, k, 4))
    expected = {
        "paper": math.log(b * (k + 1)) - math.log(2),
        "soft_cross_entropy": 2 * math.log(b * (k + 1)),
    }
    for form, value in expected.items():
        loss = soft_neighbor_loss(
            one, one, keys, positiveness(one, keys), temperature=0.2, form=form
        )
        assert loss == pytest.approx(value, rel=1e-5)


@pytest.fixture
def my_recipe(tmp_path, monkeypatch):
    """Writes the two files of docs/your_objective.md, and returns the recipe."""
    objective, recipe, watched = code_of("your_objective.md")
    sources = {"my_objective": f"{objective}\n{watched}", "my_recipe": recipe}
    for name, source in sources.items():
        (tmp_path / f"{name}.py").write_text(source)
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    return importlib.import_module("my_recipe")


def code_of(page):
    return re.findall(r"^```python\n(.*?)^```$", TEXT[page], re.M | re.S)


def test_example_of_an_objective_trains(my_recipe, mesh_of):
    config = my_recipe.get_config("debug")
    check_config(config, devices=8)
    config.objective.name = "my_objective:Watched"
    check_config(config, devices=8)
    _, step, state = tiny.build(config, mesh_of(8))
    before = jax.device_get(state.params)
    state, metrics = step(state, tiny.batch(config, mesh_of(8)))
    assert math.isfinite(metrics["loss"])
    assert 0 <= metrics["target_hits"] <= 1
    assert jax.tree.leaves(state.objective) == []
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), before, state.params)
    assert set(moved) == {"encoder", "projector", "predictor"}
    assert all(map(any, (jax.tree.leaves(moved[name]) for name in moved)))


@pytest.mark.parametrize("devices", [1, 8])
def test_example_of_an_objective_is_the_loss_without_neighbors(
    my_recipe, mesh_of, rng, devices
):
    objective = my_recipe.InfoNCE(temperature=0.3)
    rows = rng.normal(size=(3, 2, 16, 8)).astype("float32")
    rows /= np.linalg.norm(rows, axis=-1, keepdims=True)
    mesh = mesh_of(devices)
    now = Now(jnp.int32(0), 10, mesh)
    rows = jax.device_put(rows, NamedSharding(mesh, P(None, None, AXIS)))
    seen = Seen(*rows, image_id=jnp.arange(16))
    loss, _ = jax.jit(lambda seen: objective.loss({}, (), seen, now))(seen)
    z, t = seen.prediction, seen.target
    directions = (
        info_nce(z[view], t[other], temperature=0.3) for view, other in ((0, 1), (1, 0))
    )
    assert loss == pytest.approx(float(sum(directions)) / 2, rel=1e-5)


def test_objective_of_the_readme_is_one_direction_of_infonce(rng):
    (code,) = (each for each in code_of("README.md") if each.startswith("@dataclass"))
    names = dict(dataclass=dataclass, Annotated=Annotated, ClassVar=ClassVar)
    names |= dict(Objective=Objective, Ge=Ge, jax=jax, jnp=jnp)
    exec(code, names)
    rows = rng.normal(size=(3, 2, 8, 4))
    rows /= np.linalg.norm(rows, axis=-1, keepdims=True)
    seen = Seen(*jnp.asarray(rows), image_id=jnp.arange(8))
    loss, _ = names["InfoNCE"]().loss({}, (), seen, None)
    expected = info_nce(seen.prediction[0], seen.target[1], temperature=0.2)
    assert loss == pytest.approx(float(expected), rel=1e-5)


def test_a_recipe_with_an_objective_that_is_left_unpublished_is_otherwise_its_own():
    names = {}
    exec(code_of("recipes.md")[-1], names)
    got, own = names["get_config"](), names["cifar10"].get_config()
    assert got.objective.name == "nnclr"
    for config in (got, own):
        with config.unlocked():
            del config.objective
    assert got == own


def test_every_published_setting_stands_in_the_table_of_its_figures():
    lines = TEXT["recipes.md"].splitlines()
    head = next(line for line in lines if line.startswith("| objective | `"))
    names = [each.strip(" `") for each in head.split("|")[2:-1]]
    at, cells = lines.index(head) + 2, {name: set() for name in names}
    while lines[at].startswith("| `"):
        objective, *row = [each.strip(" `") for each in lines[at].split("|")[1:-1]]
        for name, cell in zip(names, row, strict=True):
            if cell:
                cells[name].add(objective)
        at += 1
    assert cells == {name: set(PUBLISHED[name]) for name in names}


def test_every_objective_is_in_the_api_and_on_its_page():
    for name, cls in OBJECTIVES.items():
        assert re.search(rf"members: \[.*\b{cls.__name__}\b", TEXT["api_objectives.md"])
        assert name == "snclr" or f"\n## {name}\n" in TEXT["objectives.md"], name


def test_architecture_shows_the_line_of_folders():
    assert LINE in re.sub(r"\s+", " ", TEXT["architecture.md"])


def test_every_page_is_in_the_navigation():
    listed = re.findall(r"\b(\w+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.M)
    assert sorted(listed) == [page.name for page in PAGES]


def test_site_builds_strictly(tmp_path):
    pytest.importorskip("mkdocs", reason="the site needs the docs extra")
    pytest.importorskip("mkdocstrings", reason="the site needs the docs extra")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", tmp_path]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=300)
    for page in PAGES:
        folder = "" if page.stem == "index" else page.stem
        assert (tmp_path / folder / "index.html").is_file()
    settings = (tmp_path / "configuration" / "index.html").read_text()
    for field in (
        "batch_size",
        "objective.queue.exclude_same_image",
        "finetune.layer_decay",
    ):
        assert f"<code>{field}</code>" in settings
    for page, name in (
        ("api", "train.train"),
        ("api", "encoder.stored.open_encoder"),
        ("api_objectives", "step.objective.Objective"),
        ("api_objectives", "objectives.snclr_plain.soft_neighbor_loss"),
        ("api_step", "step.train_step.make_train_step"),
        ("api_scores", "visualize.curves.curves"),
    ):
        reference = (tmp_path / page / "index.html").read_text()
        assert f'id="snclr_jax.{name}"' in reference
    # The equation of a docstring is a block of its own.
    objectives = (tmp_path / "api_objectives" / "index.html").read_text()
    assert re.search(r"<code>w_ik = softmax_k\(", objectives)
    # Offline and without trackers: no page loads anything from elsewhere.
    for page in tmp_path.rglob("*.html"):
        assert not re.search(r'(?:src|<link[^>]+href)="https?://', page.read_text())
