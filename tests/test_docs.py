"""The documentation names fields, commands, files and metrics that exist; it builds."""

from __future__ import annotations

import importlib
import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags
from snclr_jax.configs import base
from snclr_jax.configs import evaluate as evaluation_settings

from snclr_jax import main

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
TEXT = {page.name: page.read_text() for page in PAGES}
SOURCES = "\n".join(
    path.read_text()
    for folder in ("snclr_jax", "configs")
    for path in sorted((ROOT / folder).rglob("*.py"))
)
CONFIGS = {"base": base, "evaluate": evaluation_settings}
# Commands whose flags --config.FIELD are those of configs/evaluate.py.
EVALUATING = ("evaluate", "features")
# Names in backticks that are the reader's or another project's.
OF_OTHERS = ("my_photos", "bgr_to_rgb", "mask_rcnn_snclr.py")
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


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
    assert name in main.COMMANDS, f"snclr {name} is no command"
    fields = FIELDS["evaluate" if name in EVALUATING else "base"]
    for argument in arguments:
        flag, _, value = argument.partition("=")
        if not flag.startswith("--"):
            continue
        if flag == "--config":
            check_config(value)
        elif flag.startswith("--config."):
            field = flag.removeprefix("--config.")
            assert field in fields or field == "FIELD", f"no field {field}"
        else:
            assert flag.removeprefix("--") in flags.FLAGS, f"no flag {flag}"


def check_config(value):
    file, _, variant = value.partition(":")
    if file.startswith("configs/"):
        name = file.removeprefix("configs/").removesuffix(".py")
        importlib.import_module(f"snclr_jax.configs.{name}").get_config(variant)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_field_is_explained_with_its_default(name):
    page = hooks.on_page_markdown(f"<!-- fields of configs/{name}.py -->")
    rows = dict(
        re.fullmatch(r"\| `([\w.]+)` \| (.+) \|", line).groups()
        for line in page.splitlines()
        if line.startswith("| `")
    )
    leaves = {f: v for f, v in FIELDS[name].items() if not hasattr(v, "items")}
    assert set(rows) == set(leaves)
    for field, value in leaves.items():
        _, default, explanation = rows[field].split(" | ", 2)
        assert default == f"`{value!r}`", field
        assert len(explanation.split()) > 0, f"{field} has no comment in configs/"


def test_reference_stands_on_its_page():
    found = hooks.MARKER.findall(TEXT["configuration.md"])
    assert found == list(CONFIGS)


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
    fence = "```bash\ny && x/snclr train --config=configs/digits.py \\\n --a\n```"
    assert list(commands_of(f"{fence}\n`snclr compare A`")) == [
        ["x/snclr", "train", "--config=configs/digits.py", "--a"],
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
    with pytest.raises(ModuleNotFoundError):
        check_command("snclr train --config=configs/none.py".split())
    with pytest.raises(ValueError):
        check_command("snclr train --config=configs/digits.py:none".split())


@pages
def test_fields_in_backticks_exist(page):
    known = FIELDS["base"].keys() | FIELDS["evaluate"].keys()
    sections = {field.split(".")[0] for field in known if "." in field}
    for text in re.findall(r"`([^`\n]+)`", FENCE.sub("", TEXT[page.name])):
        field = re.match(r"(?:--config\.)?([a-z_]\w*(?:\.\w+)+)", text)
        if field and field[1].split(".")[0] in sections:
            if not field[1].endswith((".py", ".json", ".jsonl")):
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
            assert (DOCS / link.partition("#")[0]).is_file(), f"{link} does not exist"


def test_every_metric_is_explained():
    written = re.findall(r'(?:metrics|means)\["(\w+)"\] =', SOURCES)
    steps = (ROOT / "snclr_jax" / "train_step.py").read_text()
    described = (ROOT / "snclr_jax" / "describe.py").read_text()
    for source in (steps, described):
        block = re.search(r"\n( +)metrics = \{\n(.*?)\n\1\}", source, re.DOTALL)[2]
        written += re.findall(r'^ +"(\w+)":', block, re.MULTILINE)
    assert len(set(written)) > 15
    for name in written:
        assert f"`{name}`" in TEXT["watching.md"], f"{name} is not explained"


def test_every_evaluation_is_explained():
    from snclr_jax.evaluate.evaluations import EVALUATIONS

    rows = re.findall(r"^\| `(\w+)`( \*)? \|", TEXT["evaluation.md"], re.MULTILINE)
    assert {name for name, _ in rows} >= set(EVALUATIONS)
    starred = {name for name, star in rows if star}
    assert starred == {name for name, each in EVALUATIONS.items() if each.needs_test}


def test_collapsed_losses_are_those_of_the_page():
    import math

    import jax.numpy as jnp

    from snclr_jax.objectives.snclr_plain import positiveness, soft_neighbor_loss

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
    assert "<code>queue.exclude_same_image</code>" in settings
    reference = (tmp_path / "api" / "index.html").read_text()
    for name in ("losses.soft_neighbor_loss", "train.train", "encoder.open_encoder"):
        assert f'id="snclr_jax.{name}"' in reference
    # The equation of a docstring is a block of its own.
    assert re.search(r"<code>w_ik = softmax_k\(", reference)
    # Offline and without trackers: no page loads anything from elsewhere.
    for page in tmp_path.rglob("*.html"):
        assert not re.search(r'(?:src|<link[^>]+href)="https?://', page.read_text())
