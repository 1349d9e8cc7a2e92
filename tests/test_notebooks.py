"""The notebooks run from end to end, and what they show is what they say."""

import importlib.util
import re
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "docs/notebooks").glob("*.ipynb"))
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@pytest.fixture(scope="module")
def make_notebooks():
    path = ROOT / "docs/make_notebooks.py"
    spec = importlib.util.spec_from_file_location("make_notebooks", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read(path):
    return nbformat.read(path, as_version=4)


def code_of(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def shown_by(notebook):
    """Of each output the words, whatever the numbers, or the kinds of picture."""
    outputs = [output for cell in code_of(notebook) for output in cell.outputs]
    return [
        re.sub(r"[-+]?\d[\d.]*(e[-+]?\d+)?", "#", output.text).split()
        if output.output_type == "stream"
        else sorted(output.data)
        for output in outputs
    ]


@pytest.mark.slow
@each
def test_runs_and_shows_what_is_committed(path, make_notebooks):
    assert shown_by(make_notebooks.execute(path)) == shown_by(read(path))


@each
def test_outputs_are_of_this_source_and_small(path, make_notebooks):
    notebook = read(path)
    assert notebook.metadata["executed"] == make_notebooks.digest_of(notebook)
    counts = [cell.execution_count for cell in code_of(notebook)]
    assert counts == list(range(1, len(counts) + 1))
    outputs = [output for cell in code_of(notebook) for output in cell.outputs]
    assert not [o for o in outputs if o.get("name") == "stderr"]
    assert {o.output_type for o in outputs} <= {"stream", "display_data"}  # no addresses
    assert path.stat().st_size < 150_000


@each
def test_one_to_three_figures_each_begins_with_what_it_shows(path):
    figures = [
        cell
        for cell in code_of(read(path))
        if any("image/png" in output.get("data", {}) for output in cell.outputs)
    ]
    assert 1 <= len(figures) <= 3
    assert all(re.match(r"# \w.{20,}", cell.source) for cell in figures)


@each
def test_stands_alone_on_colab_and_on_the_site(path):
    first, *others = [cell.source for cell in code_of(read(path))]
    assert '"google.colab" in sys.modules' in first and "%pip install" in first
    assert not re.search(r"experiments|\.venv|/home|/root|/Users", "".join(others))
    assert str(ROOT) not in "".join(others)
    assert f"notebooks/{path.stem}.md" in (ROOT / "mkdocs.yml").read_text()


def test_there_are_notebooks():
    assert len(NOTEBOOKS) == 4
