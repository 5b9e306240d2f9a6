"""The notebooks run whole, contain what they printed, and name nothing of a machine."""

import os
import re
from pathlib import Path

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "notebooks"
# Parameters at the size of a test; every one is set in the notebook's own cell.
SMALL = {
    "quickstart": dict(PICTURES=1, EPOCHS=2),
    "your_own_images": dict(PICTURES=16, EPOCHS=2),
    "change_the_loss": dict(PICTURES=1, EPOCHS=2),
    "neighbors_explorer": dict(PICTURES=1, EPOCHS=2, K=5, IMAGES=100),
}
MOST_BYTES = 800_000

every_notebook = pytest.mark.parametrize("name", SMALL)


def read(name):
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def parameters(notebook):
    """Returns the cell of the parameters, and their values."""
    (cell,) = (
        cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())
    )
    values = {}
    exec(cell.source, values)
    return cell, {name: value for name, value in values.items() if name.isupper()}


def texts(cell):
    """Returns everything a cell wrote, pictures left out."""
    for output in cell.outputs:
        yield output.get("text", "")
        yield output.get("data", {}).get("text/plain", "")


def test_these_are_all_notebooks():
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(SMALL)


@every_notebook
def test_cells_are_python_and_were_run_in_their_order(name):
    notebook = read(name)
    nbformat.validate(notebook)
    cells = code_cells(notebook)
    for cell in cells:
        # It would hide errors too, from readers and from these tests.
        assert not cell.source.startswith("%%capture")
        compile(TransformerManager().transform_cell(cell.source), name, "exec")
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))


@every_notebook
def test_outputs_are_there_and_show_no_error_and_no_machine(name):
    notebook = read(name)
    outputs = [each for cell in code_cells(notebook) for each in cell.outputs]
    assert any("image/png" in each.get("data", {}) for each in outputs)
    # No warnings either: they would teach that they are normal.
    assert not [
        each
        for each in outputs
        if each.output_type == "error" or each.get("name") == "stderr"
    ]
    text = "\n".join(text for cell in code_cells(notebook) for text in texts(cell))
    assert not re.search(r"(?<![\w.])/(work|home|root|tmp|Users|content)\b", text)
    assert (FOLDER / f"{name}.ipynb").stat().st_size < MOST_BYTES


@every_notebook
def test_a_reader_finds_the_badge_the_package_and_the_parameters(name):
    notebook = read(name)
    install, first = code_cells(notebook)[:2]
    repository = re.search('REPOSITORY = "(.+)"', install.source)[1]
    assert f"/github/{repository}/blob/main/notebooks/{name}.ipynb" in (
        notebook.cells[0].source
    )
    assert "github.com/{REPOSITORY}" in install.source
    assert not install.outputs  # where the package is installed, nothing happens
    cell, known = parameters(notebook)
    assert cell is first
    assert set(SMALL[name]) < set(known)
    assert not Path(known["WORKDIR"]).is_absolute()
    assert all(SMALL[name][each] < known[each] for each in SMALL[name])


@pytest.mark.slow
@every_notebook
def test_runs_whole_at_small_size(name, tmp_path):
    notebook = read(name)
    cell, _ = parameters(notebook)
    small = "\n".join(f"{key} = {value!r}" for key, value in SMALL[name].items())
    place = notebook.cells.index(cell) + 1
    notebook.cells.insert(place, nbformat.v4.new_code_cell(small))
    committed = {cell["id"]: cell for cell in code_cells(read(name))}
    environment = os.environ | {
        # One device, as most readers have, and programs that are compiled fast.
        "XLA_FLAGS": "--xla_backend_optimization_level=0",
    }
    NotebookClient(
        notebook, timeout=600, resources={"metadata": {"path": tmp_path}}
    ).execute(env=environment)
    for cell in code_cells(notebook):
        if cell["id"] in committed:
            assert kinds(cell) == kinds(committed[cell["id"]]), cell.source


def kinds(cell):
    """Returns what sorts of output a cell has."""
    return {
        form
        for output in cell.outputs
        for form in output.get("data", {output.get("name", output.output_type): ""})
    }
