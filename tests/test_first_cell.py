"""The first cell of every chapter finds the project, and takes no other for it."""

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest

from helpers.notebooks import code_cells
from utils.files import ROOT
from utils.pipeline.address import first_cell as cell_for
from utils.pipeline.sequence import CHAPTERS


def first_cell(address=None):
    """The first code cell, which is the same in every notebook; or as it is for another address."""
    sources = {code_cells(nbformat.read(p, as_version=4))[0].source for p in CHAPTERS.values()}
    (source,) = sources
    return source if address is None else cell_for(address)


@pytest.mark.parametrize("address", [None, "", "https://github.com/some-one/davidnet.git"])
def test_the_first_cell_has_six_lines_in_the_house_style(address, tmp_path):
    lines = [line for line in first_cell(address).splitlines() if line.strip()]
    assert len(lines) <= 6
    script = tmp_path / "cell.py"
    script.write_text(first_cell(address) + "\n")
    ruff = [sys.executable, "-m", "ruff", "format", "--check", "--config", ROOT / "pyproject.toml"]
    subprocess.run([*ruff, script], check=True, capture_output=True)


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


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """A folder with a foreign module, in which this project is neither around nor installed."""
    monkeypatch.chdir(tmp_path)
    kept = [p for p in sys.path if not Path(p, "utils/pipeline").exists()]
    monkeypatch.setattr(sys, "path", ["", *kept])
    (tmp_path / "utils.py").write_text("mine = 1")
    return tmp_path


def test_the_first_cell_fetches_the_project_where_there_is_none(nowhere):
    commands = []
    names = {"get_ipython": lambda: SimpleNamespace(system=commands.append)}
    with pytest.raises(FileNotFoundError, match=r"davidnet-explained.utils"):
        exec(first_cell("https://somewhere"), names)
    assert commands == ["git clone --depth 1 $REPOSITORY $FETCHED"]
    assert (names["REPOSITORY"], names["FETCHED"]) == ("https://somewhere", "davidnet-explained")


def test_nothing_goes_on_where_fetching_was_stopped(nowhere):
    def stopped(command):
        raise SystemExit("cloned")

    with pytest.raises(SystemExit, match="cloned"):
        exec(
            first_cell("https://somewhere"),
            {"get_ipython": lambda: SimpleNamespace(system=stopped)},
        )


def test_without_an_address_the_first_cell_says_what_to_do_and_fetches_nothing(nowhere):
    assert "clone --" not in first_cell("")
    with pytest.raises(AssertionError) as error:
        exec(first_cell(""), {})
    assert str(error.value) == "Clone this project, and open this notebook in the clone."


def test_what_was_fetched_is_found_again(nowhere):
    (nowhere / "davidnet-explained" / "utils" / "pipeline").mkdir(parents=True)
    said = "raise SystemExit('this one')"
    (nowhere / "davidnet-explained/utils/pipeline/first_cell.py").write_text(said)
    for address in ("", "https://somewhere"):
        with pytest.raises(SystemExit, match="this one"):
            exec(first_cell(address), {})


LOOK = """
import json, sys
exec(sys.argv[1], {})
import utils.runs
print(json.dumps([utils.__file__, utils.runs.__file__]))
"""


@pytest.mark.parametrize("foreign", FOREIGN)
def test_the_first_cell_finds_the_project_where_pip_installed_it(foreign, tmp_path):
    """Plainly, not as a link to a clone; a foreign module lies beside the notebook."""
    installed, here = tmp_path / "site-packages", tmp_path / "here"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "utils", installed / "utils", ignore=ignored)
    here.mkdir()
    for name, text in FOREIGN[foreign].items():
        (here / name).parent.mkdir(exist_ok=True)
        (here / name).write_text(text)
    environment = os.environ | {"PYTHONPATH": str(installed)}
    command = [sys.executable, "-c", LOOK, first_cell()]
    found = subprocess.run(command, cwd=here, env=environment, check=True, capture_output=True)
    names = ("__init__.py", "runs.py")
    assert json.loads(found.stdout) == [str(installed / "utils" / name) for name in names]


@pytest.mark.parametrize("folder", ["", "notebooks", "notebooks/mine/deeper"])
def test_the_first_cell_finds_the_clone_that_it_is_run_in(folder, tmp_path):
    clone = tmp_path / "clone"
    (clone / folder).mkdir(parents=True, exist_ok=True)
    shutil.copytree(ROOT / "utils", clone / "utils", ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-c", LOOK, first_cell()]
    found = subprocess.run(command, cwd=clone / folder, check=True, capture_output=True)
    assert json.loads(found.stdout)[0] == str(clone / "utils" / "__init__.py")
