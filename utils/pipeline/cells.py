"""What is the same in every chapter, or follows from declarations, written by a command."""

from pathlib import Path

import nbformat

from utils import InputError
from utils.files import write_text
from utils.pipeline.address import FIRST_CELL, clone_address, first_cell, repository
from utils.pipeline.sequence import CHAPTERS
from utils.settings import parameters_cell

#: What folds a cell in JupyterLab and Notebook 7, and in Colab, as ``hide-input`` does in the book.
FOLDED = {"jupyter": {"source_hidden": True}, "cellView": "form"}


def write_cells() -> list[Path]:
    """Bring every chapter's cells up to date, and return the notebooks that changed.

    Parameters are as `utils.settings` declares them, and the first cell finds or fetches the
    project that ``pyproject.toml`` names. Cells with the tag ``hide-input`` are folded, but for the
    parameters: those are there to be changed.

    Raises:
        InputError: no parameter is declared for a chapter, whose own would be lost.
    """
    changed = []
    for name, path in CHAPTERS.items():
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            tags = cell.metadata.get("tags", [])
            if FIRST_CELL in tags:
                cell.source = first_cell(clone_address(repository()))
            if "parameters" in tags:
                cell.source = _declared(name)
            elif "hide-input" in tags:
                cell.metadata.update(FOLDED)
        text = nbformat.writes(notebook) + "\n"
        if text != path.read_text(encoding="utf-8"):
            write_text(path, text)
            changed.append(path)
    return changed


def _declared(name: str) -> str:
    """Return the source of a chapter's parameters, by the name of its notebook."""
    if source := parameters_cell(name[1]):
        return source
    raise InputError(
        f"No parameter is declared for {name}. Add {name[1]!r} to `chapters` of those that it "
        "takes, in utils/settings.py."
    )
