"""The first cell of every chapter finds the project, and takes no other for it."""

import importlib
import re
import sys

import nbformat
import pytest

from helpers.notebooks import code_cells
from utils.files import ROOT
from utils.pipeline.sequence import NOTEBOOKS


def first_cell():
    """The first code cell, which is the same in every notebook, as a script that never clones."""
    sources = {code_cells(nbformat.read(p, as_version=4))[0].source for p in NOTEBOOKS.values()}
    (source,) = sources
    return re.sub(r"^    !git.*$", "    raise SystemExit('cloned')", source, flags=re.MULTILINE)


FOREIGN = {
    "nothing": {},
    "a module": {"utils.py": "mine = 1"},
    "a package": {"utils/__init__.py": "", "utils/runs.py": "", "utils/install.py": ""},
    "a folder": {"utils/notes.txt": ""},
}


@pytest.mark.parametrize("foreign", FOREIGN)
@pytest.mark.parametrize("imported", [False, True])
def test_the_first_cell_takes_no_foreign_utils_for_ours(foreign, imported, tmp_path, monkeypatch):
    place = tmp_path / "clone" / "notebooks"
    place.mkdir(parents=True)
    (tmp_path / "clone" / "utils").symlink_to(ROOT / "utils")
    for name, text in FOREIGN[foreign].items():
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_text(text)
    with monkeypatch.context() as patch:
        patch.chdir(place)
        patch.setattr(sys, "path", [str(place), *(p for p in sys.path if p != str(ROOT))])
        for name in [name for name in sys.modules if name.partition(".")[0] == "utils"]:
            patch.delitem(sys.modules, name)
        if imported and foreign != "nothing":
            importlib.import_module("utils")
        exec(first_cell(), {})
        exec(first_cell(), {})  # as when a person runs it again
        found = {importlib.import_module(name).__file__ for name in ("utils", "utils.runs")}
        for name in [name for name in sys.modules if name.partition(".")[0] == "utils"]:
            del sys.modules[name]
    assert found == {str(ROOT / "utils" / name) for name in ("__init__.py", "runs.py")}


def test_the_first_cell_fetches_the_project_where_there_is_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "meta_path", [])
    (tmp_path / "utils.py").write_text("mine = 1")
    with pytest.raises(SystemExit, match="cloned"):
        exec(
            compile("import runpy, sys\nfrom pathlib import Path\n" + first_cell(), "", "exec"), {}
        )
