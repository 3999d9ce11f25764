"""The repository's public address, and where it is written to."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest
import yaml

from utils import InputError, cli
from utils.cli import main
from utils.files import ROOT
from utils.pipeline.address import clone_address, repository
from utils.publish import badges
from utils.publish.badges import COLAB, address_to_write, colab_badge, write_badges

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
LONGEST = f"{'o' * 39}/{'n' * 100}"


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
        assert colab_badge("some-one/a.project", notebook.name) in "".join(cells[0]["source"])
        assert '"https://github.com/some-one/a.project.git"' in "".join(cells[1]["source"])
        assert (project / "README.md").read_text().count(f"/notebooks/{notebook.name})]") <= 1
    readme = (project / "README.md").read_text()
    assert readme.count("colab-badge.svg") == 7
    assert "git clone https://github.com/some-one/a.project.git davidnet-explained" in readme
    assert "ADDRESS" not in readme


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
    for notebook in ROOT.glob("notebooks/*.ipynb"):
        cells = json.loads(notebook.read_text())["cells"]
        assert f'"{clone_address(repository())}",' in "".join(cells[1]["source"])


def test_every_chapter_leads_to_the_next_in_colab(project):
    """Where a link to the file beside it leads nowhere."""
    write_badges("a/b", project)
    notebooks = sorted(project.glob("notebooks/*.ipynb"))
    for notebook, following in zip(notebooks, [*notebooks[1:], notebooks[0]], strict=True):
        title = "".join(json.loads(notebook.read_text())["cells"][0]["source"])
        links = re.findall(r"\]\(([^()\s]+/github/[^()\s]+)\)", title)
        assert links == [
            f"{COLAB}/github/a/b/blob/main/notebooks/{name}"
            for name in (notebook.name, following.name)
        ]


def test_who_goes_to_colab_is_told_that_its_machines_keep_nothing(project):
    """Chapter 4 would train anew there, and a training that was cut off begin again."""
    pages = [project / "README.md", *project.glob("notebooks/*.ipynb")]
    assert not any("Google Drive" in page.read_text() for page in pages)
    write_badges("a/b", project)
    assert all(page.read_text().count(badges.ON_DRIVE) == 1 for page in pages)


def test_with_the_longest_name_that_there_is_the_notebooks_pass_lint(project):
    write_badges(LONGEST, project)
    shutil.copytree(ROOT / "utils", project / "utils")  # ruff sorts imports by what is its own
    for command in (["check"], ["format", "--check"]):
        subprocess.run([sys.executable, "-m", "ruff", *command, "."], cwd=project, check=True)


def test_a_workflow_on_github_knows_the_address_by_itself(monkeypatch):
    monkeypatch.setenv("GITHUB_REPOSITORY", "a/b")
    assert address_to_write(None) == "a/b"
    assert address_to_write("c/d") == "c/d" and address_to_write("") == ""
    monkeypatch.delenv("GITHUB_REPOSITORY")
    with pytest.raises(InputError, match="Give --repo OWNER/NAME"):
        address_to_write(None)


def test_the_command_says_what_it_wrote_and_when_there_is_nothing_to_do(
    project, monkeypatch, capsys
):
    monkeypatch.setenv("GITHUB_REPOSITORY", "a/b")
    monkeypatch.setattr(badges.write_badges, "__defaults__", (project,))
    main(["badges"])
    assert capsys.readouterr().out.count("written: ") == len(texts(project))
    main(["badges"])
    assert capsys.readouterr().out == "Nothing to change: the address is a/b already.\n"


# The workflows


def steps(workflow):
    for job in yaml.safe_load(workflow.read_text())["jobs"].values():
        yield from job["steps"]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_call_what_there_is_and_put_nothing_into_a_shell(workflow):
    for step in steps(workflow):
        assert re.fullmatch(r"actions/[a-z-]+@v\d+", step.get("uses", "actions/x@v1"))
        script = step.get("run", "")
        assert "${{" not in script, "a name that somebody chose would be run"
        for command in re.findall(r"python -m utils (.*)", script):
            cli._parser().parse_args(shlex.split(command))
        for target in re.findall(r"make ([a-z]+)$", script, re.MULTILINE):
            assert f"\n{target}:" in (ROOT / "Makefile").read_text()


def git(folder, *arguments):
    command = ["git", "-c", "user.name=x", "-c", "user.email=x", *arguments]
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.mark.slow
def test_the_workflow_commits_the_address_once_and_needs_nothing_installed(project, tmp_path):
    shutil.copytree(ROOT / "utils", project / "utils", ignore=shutil.ignore_patterns("__pycache__"))
    (project / ".gitignore").write_text("__pycache__/\n/public/\n/bin/\n")
    git(project, "init", "--bare", "--initial-branch=main", "public")
    git(project, "init", "--initial-branch=main")
    git(project, "remote", "add", "origin", str(project / "public"))
    git(project, "add", ".")
    git(project, "commit", "-m", "all")
    git(project, "push", "--set-upstream", "origin", "main")
    (tmp_path / "bin").mkdir()
    bare = tmp_path / "bin" / "python"  # the standard library alone
    bare.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -S -E "$@"\n')
    bare.chmod(0o755)
    workflow = ROOT / ".github" / "workflows" / "address.yml"
    for repo, commits in (("a/b", 2), ("a/b", 2), (LONGEST, 3)):
        environment = os.environ | {"GITHUB_REPOSITORY": repo}
        environment["PATH"] = f"{tmp_path / 'bin'}{os.pathsep}{environment['PATH']}"
        for step in steps(workflow):
            if script := step.get("run"):
                command = ["bash", "-e", "-c", script]  # as GitHub calls it
                subprocess.run(command, cwd=project, env=environment, check=True)
        assert repository(project) == repo
        assert len(git(project / "public", "log", "--format=%h", "main").splitlines()) == commits
        assert git(project, "status", "--porcelain") == ""


def test_the_workflow_that_commits_may_and_is_called_by_a_push_to_main():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "address.yml").read_text())
    assert workflow["permissions"] == {"contents": "write"}
    assert workflow[True] == {"push": {"branches": ["main"]}}  # YAML takes `on` for a truth value
