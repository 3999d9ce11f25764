"""What is the same in every chapter, or follows from declarations, written by a command."""

import tomllib
from pathlib import Path

import nbformat

from utils.files import ROOT, write_text
from utils.pipeline.sequence import NOTEBOOKS
from utils.settings import parameters_cell

#: What folds a cell in JupyterLab and Notebook 7, and in Colab, as ``hide-input`` does in the book.
FOLDED = {"jupyter": {"source_hidden": True}, "cellView": "form"}
#: The tag of a chapter's first code cell.
FIRST_CELL = "first-cell"
_FIRST_CELL = """\
import sys  # This cell makes the project's own `utils` importable, wherever the project lies.
from pathlib import Path

REPOSITORY, FETCHED = "{address}", "davidnet-explained"
files = [Path(p, "utils/pipeline/first_cell.py") for p in (*Path.cwd().parents, *sys.path, FETCHED)]
{otherwise}
exec(next(filter(Path.exists, files), files[-1]).read_bytes(), dict(globals()))"""
#: Its last but one line, where the project can be fetched (``!git`` says the same), or not.
_FETCH = (
    "any(map(Path.exists, files)) or "
    'get_ipython().system("git clone --depth 1 $REPOSITORY $FETCHED")'
)
_REFUSE = (
    "assert any(map(Path.exists, files)), "
    '"Clone this project, and open this notebook in the clone."'
)


def repository(root: Path = ROOT) -> str:
    """Return OWNER/NAME of the public repository as ``pyproject.toml`` has it; empty if unset."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    return project["tool"]["davidnet-explained"]["repository"]


def first_cell(address: str) -> str:
    """Return the source of every chapter's first code cell.

    Args:
        address: what git clones the project from; empty where it is not known.
    """
    return _FIRST_CELL.format(address=address, otherwise=_FETCH if address else _REFUSE)


def first_cell_of(repo: str) -> str:
    """Return the source of every chapter's first code cell for OWNER/NAME on GitHub, or empty."""
    return first_cell(f"https://github.com/{repo}.git" if repo else "")


def write_cells() -> list[Path]:
    """Bring every chapter's cells up to date, and return the notebooks that changed.

    Parameters are as `utils.settings` declares them, and the first cell finds or fetches the
    project that ``pyproject.toml`` names. Cells with the tag ``hide-input`` are folded, but for the
    parameters: those are there to be changed.
    """
    changed = []
    for name, path in NOTEBOOKS.items():
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            tags = cell.metadata.get("tags", [])
            if FIRST_CELL in tags:
                cell.source = first_cell_of(repository())
            if "parameters" in tags:
                cell.source = parameters_cell(name[1])
            elif "hide-input" in tags:
                cell.metadata.update(FOLDED)
        text = nbformat.writes(notebook) + "\n"
        if text != path.read_text(encoding="utf-8"):
            write_text(path, text)
            changed.append(path)
    return changed
