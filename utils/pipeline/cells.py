"""Cells that are the same in every chapter, or follow from declarations, written by a command."""

from pathlib import Path

import nbformat

from utils.files import write_text
from utils.pipeline.sequence import NOTEBOOKS
from utils.settings import parameters_cell


def write_parameter_cells() -> list[Path]:
    """Write every chapter's parameters cell as `utils.settings` has it; return what changed."""
    changed = []
    for name, path in NOTEBOOKS.items():
        notebook = nbformat.read(path, as_version=4)
        (cell,) = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
        source = parameters_cell(name[1])
        if cell.source != source:
            cell.source = source
            write_text(path, nbformat.writes(notebook) + "\n")
            changed.append(path)
    return changed
