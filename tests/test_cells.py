"""The chapters' cells are as a command writes them."""

import nbformat
import pytest

from utils import InputError
from utils.pipeline import cells
from utils.pipeline.address import FIRST_CELL, clone_address, first_cell, repository
from utils.pipeline.cells import FOLDED, write_cells
from utils.pipeline.sequence import CHAPTERS
from utils.settings import parameters_cell


@pytest.mark.parametrize("name", CHAPTERS)
def test_the_stored_chapters_are_as_the_command_writes_them(name):
    for cell in nbformat.read(CHAPTERS[name], as_version=4).cells:
        tags = cell.metadata.get("tags", [])
        if FIRST_CELL in tags:
            assert cell.source == first_cell(clone_address(repository()))
        if "parameters" in tags:
            assert cell.source == parameters_cell(name[1]), "run: python -m utils chapters"
        assert (FOLDED.items() <= dict(cell.metadata).items()) == (
            "hide-input" in tags and "parameters" not in tags
        ), "run: python -m utils chapters"


def test_the_command_writes_what_is_declared_and_nothing_twice(tmp_path, monkeypatch):
    notebook = nbformat.v4.new_notebook(cells=[
        nbformat.v4.new_code_cell("x = 1", metadata={"tags": ["parameters", "hide-input"]}),
        nbformat.v4.new_code_cell("y = 2", metadata={"tags": ["hide-input"]}),
        nbformat.v4.new_code_cell("z = 3"),
    ])  # fmt: skip
    path = tmp_path / "04_curves.ipynb"
    nbformat.write(notebook, path)
    monkeypatch.setattr(cells, "CHAPTERS", {"04_curves": path})
    assert write_cells() == [path]
    assert write_cells() == []
    parameters, folded, shown = nbformat.read(path, as_version=4).cells
    assert parameters.source.startswith("dataset = None  # the run's pictures")
    assert "seed = None" in parameters.source
    assert folded.metadata.jupyter.source_hidden and folded.metadata.cellView == "form"
    assert "jupyter" not in parameters.metadata and "jupyter" not in shown.metadata


def test_a_chapter_that_no_parameter_is_declared_for_keeps_its_own(tmp_path, monkeypatch):
    notebook = nbformat.v4.new_notebook(cells=[
        nbformat.v4.new_code_cell("x = 1", metadata={"tags": ["parameters"]}),
    ])  # fmt: skip
    path = tmp_path / "08_mine.ipynb"
    nbformat.write(notebook, path)
    monkeypatch.setattr(cells, "CHAPTERS", {"08_mine": path})
    with pytest.raises(InputError, match=r"declared for 08_mine\. Add '8' to `chapters`"):
        write_cells()
    assert nbformat.read(path, as_version=4).cells[0].source == "x = 1"


def test_the_command_writes_the_first_cell_for_the_project_s_address(tmp_path, monkeypatch):
    tags = {"tags": [FIRST_CELL, "hide-input"]}
    path = tmp_path / "04_curves.ipynb"
    nbformat.write(
        nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("", metadata=tags)]), path
    )
    monkeypatch.setattr(cells, "CHAPTERS", {"04_curves": path})
    for repo, address in (
        ("", ""),
        ("some-one/davidnet", "https://github.com/some-one/davidnet.git"),
    ):
        monkeypatch.setattr(cells, "repository", lambda repo=repo: repo)
        assert write_cells() == [path]
        (cell,) = nbformat.read(path, as_version=4).cells
        assert cell.source == first_cell(address)
        assert f'REPOSITORY, FETCHED = "{address}", ' in cell.source
        assert ("git clone" in cell.source) == bool(address)
