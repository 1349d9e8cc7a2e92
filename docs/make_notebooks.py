"""Runs the notebooks and keeps what they show: `python docs/make_notebooks.py [NAME ...]`.

A notebook is one file, source and outputs: what is reviewed, linted, run and read online.
"""

import hashlib
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parent / "notebooks"


def digest_of(notebook: nbformat.NotebookNode) -> str:
    """Of its code: prose may be mended without a run."""
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return hashlib.sha256("\0".join(code).encode()).hexdigest()


def execute(path: Path) -> nbformat.NotebookNode:
    """The notebook with its outputs, from a new process; an error in a cell is raised."""
    notebook = nbformat.read(path, as_version=4)
    options = {"timeout": 1200, "record_timing": False, "coalesce_streams": True}
    NotebookClient(notebook, **options).execute(cwd=path.parent)
    # No versions, times or machines: a rerun differs where numbers do.
    notebook.metadata = {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "language_info": {"name": "python"},
        "executed": digest_of(notebook),
    }
    return notebook


if __name__ == "__main__":
    for name in sys.argv[1:] or sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb")):
        path = NOTEBOOKS / f"{name}.ipynb"
        nbformat.write(execute(path), path)
        print(path)
