"""The repository's public address, and where it is written to."""

import json
import shutil

import pytest

from utils import InputError
from utils.files import ROOT
from utils.pipeline.cells import repository
from utils.publish.badges import colab_badge, write_badges


@pytest.fixture
def project(tmp_path):
    """A copy of the files that hold the address."""
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    return tmp_path


def texts(project):
    files = [project / "pyproject.toml", project / "README.md"]
    return {path: path.read_text() for path in (*files, *project.glob("notebooks/*.ipynb"))}


def test_one_command_sets_the_address_everywhere(project):
    changed = write_badges("some-one/a.project", project)
    assert set(changed) == set(texts(project))
    assert repository(project) == "some-one/a.project"
    for notebook in project.glob("notebooks/*.ipynb"):
        cells = json.loads(notebook.read_text())["cells"]
        assert "".join(cells[0]["source"]).endswith(
            colab_badge("some-one/a.project", notebook.name)
        )
        assert '"https://github.com/some-one/a.project.git"' in "".join(cells[1]["source"])
        assert (project / "README.md").read_text().count(f"/notebooks/{notebook.name})]") <= 1
    assert (project / "README.md").read_text().count("colab-badge.svg") == 6


def test_a_second_address_replaces_the_first_without_a_trace(project):
    write_badges("a/b", project)
    once = texts(project)
    assert write_badges("a/b", project) == []
    write_badges("c/d", project)
    assert "a/b" not in " ".join(texts(project).values()).replace("a/badges", "")
    write_badges("a/b", project)
    assert texts(project) == once


@pytest.mark.parametrize("repo", ["", "name", "a/b/c", "https://github.com/a/b", "a/b c", "-a/b"])
def test_what_is_no_address_is_refused(project, repo):
    before = texts(project)
    with pytest.raises(InputError, match="OWNER/NAME"):
        write_badges(repo, project)
    assert texts(project) == before


def test_a_page_that_lost_its_place_is_named_and_nothing_is_written(project):
    (project / "README.md").write_text("# Nothing here\n")
    before = texts(project)
    with pytest.raises(InputError, match=r"README\.md has no place"):
        write_badges("a/b", project)
    assert texts(project) == before


def test_a_chapter_that_lost_its_first_cell_is_named_and_nothing_is_written(project):
    path = project / "notebooks" / "03_training.ipynb"
    path.write_text(path.read_text().replace('"first-cell"', '"another"'))
    before = texts(project)
    with pytest.raises(InputError, match=r"03_training\.ipynb has no place"):
        write_badges("a/b", project)
    assert texts(project) == before


def test_the_notebooks_hold_the_address_that_the_project_names():
    address = f"https://github.com/{repository()}.git" if repository() else ""
    for notebook in ROOT.glob("notebooks/*.ipynb"):
        cells = json.loads(notebook.read_text())["cells"]
        assert f'REPOSITORY, FETCHED = "{address}", ' in "".join(cells[1]["source"])
