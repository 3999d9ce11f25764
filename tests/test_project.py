"""The project's own files agree with each other."""

import ast
import doctest
import importlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import EntryPoint, packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from utils import cli
from utils.files import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


EXTRAS = PROJECT["optional-dependencies"]


def declared(*extras: str) -> dict[str, Requirement]:
    """What the project needs, and what these extras of it need; without any, all of them do."""
    listed = [*PROJECT["dependencies"]]
    listed += (line for extra in extras or EXTRAS for line in EXTRAS[extra])
    return {canonicalize_name(r.name): r for r in map(Requirement, listed)}


def sources(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


@cache
def distributions() -> dict[str, list[str]]:
    """Which packages bring what can be imported."""
    return packages_distributions()


#: Modules whose tests lie in another file than their own, and why.
TESTED_ELSEWHERE = {
    "utils/__main__.py": ("test_cli", "the command line is called through it"),
    "utils/data/epochs.py": ("test_classifier", "the schedule is made for what an epoch shows"),
    "utils/explain/trained_model.py": ("test_predict", "picture files are predicted with it"),
    "utils/models/network.py": ("test_davidnet", "each network says what it takes"),
    "utils/models/weights.py": ("test_trained", "it reads what training wrote"),
    **{
        f"utils/plots/{path.name}": ("test_plots", "all figures are drawn and looked at alike")
        for path in sources("utils/plots")
    },
    **{
        f"space/{name}.py": ("test_space_page", "it shows in a browser")
        for name in ("app", "explorer", "gate", "plain")
    },
    "space/lean.py": ("test_space", "it shows in what the page imports"),
    "space/settings.py": ("test_view", "a link's settings are what the page says"),
}


def libraries(path: Path) -> Iterator[str]:
    """Yield what a file imports from elsewhere, wherever in it: the first part of each name."""
    own = {path.stem for path in sources("space")} | {"helpers", "utils"}
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module]
        yield from {name.partition(".")[0] for name in names} - sys.stdlib_module_names - own


def pinned(name: str) -> dict[str, str]:
    """The versions that a list gives, by package."""
    lines = (ROOT / name).read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.+!-]+", line) for line in pins)
    return {canonicalize_name(name): version for name, version in (p.split("==") for p in pins)}


def test_every_dependency_is_pinned_to_a_version_it_allows():
    pins = pinned("constraints.txt")
    for name, requirement in declared().items():
        assert name in pins, f"{name} is missing from constraints.txt"
        assert requirement.specifier.contains(pins[name]), f"{name} {pins[name]}"


def test_every_dependency_has_a_reason():
    text = (ROOT / "pyproject.toml").read_text()
    for name in declared():
        assert re.search(rf'^ +"{name}\b.*",  +# \w+', text, re.MULTILINE | re.IGNORECASE), name


def test_what_was_asked_for_is_there():
    named = "jupyter torch torchvision pytorch-lightning torchmetrics grad-cam matplotlib seaborn"
    assert {*named.split(), "papermill"} <= set(declared())


def test_conda_installs_the_project_itself_under_the_constraints():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["name"] == PROJECT["name"]
    python, pip_itself, pip = environment["dependencies"]
    assert python.removeprefix("python") == PROJECT["requires-python"]
    assert pip_itself == "pip"
    assert pip == {"pip": ["-c constraints.txt", "-e .[dev,export,space]"]}


def test_lock_files_name_no_place_to_download_from():
    for name in ("constraints.txt", "environment.yml", "pyproject.toml"):
        assert "://" not in (ROOT / name).read_text()


def test_the_makefile_installs_under_the_constraints():
    text = (ROOT / "Makefile").read_text()
    assert "--constraint constraints.txt --editable '.[dev,export,space]'" in text
    for target in ("run", "test", "check", "lint", "lab", "docs", "clean", "help"):
        assert re.search(rf"^{target}:.*## \w+", text, re.MULTILINE), target


def test_jupyter_begins_at_the_chapters_and_shows_the_whole_clone():
    """They send a learner to recipes, pages and executed copies, which lie outside their folder."""
    (begun,) = re.findall(r"^\t\$\(BIN\)/jupyter lab(.*)$", (ROOT / "Makefile").read_text(), re.M)
    assert begun == " --ServerApp.preferred_dir=notebooks"


@pytest.mark.parametrize(
    ("folder", "needs"),
    [
        ("utils", declared("export", "heic", "space")),
        ("space", pinned("space/requirements.txt")),
        ("tests", declared()),
    ],
    ids=("utils", "space", "tests"),
)
def test_what_is_imported_is_declared(folder, needs):
    for path in sources(folder):
        for library in libraries(path):
            brought_by = {canonicalize_name(name) for name in distributions().get(library, ())}
            assert brought_by & set(needs), f"{path.relative_to(ROOT)} imports {library}"


def test_a_notebook_in_colab_keeps_its_ipython():
    assert declared()["ipython"].specifier.contains("7.34.0")  # another would need a new kernel


def test_every_module_has_its_tests():
    tests = {path.stem for path in sources("tests")}
    modules = {str(p.relative_to(ROOT)): p for p in (*sources("utils"), *sources("space"))}
    for name, path in modules.items():
        if path.stem == "__init__" and not ast.parse(path.read_text()).body[1:]:
            continue  # it only says what belongs in the package
        own = f"test_{path.parent.name if path.stem == '__init__' else path.stem}"
        assert TESTED_ELSEWHERE.get(name, (own,))[0] in tests, f"{name} has no {own}.py"
    assert TESTED_ELSEWHERE.keys() <= modules.keys()


@pytest.mark.parametrize(
    "module",
    [path for path in sources("utils") if ">>> " in path.read_text()],
    ids=lambda p: p.stem,
)
def test_examples_in_docstrings_are_true(module):
    name = ".".join(module.relative_to(ROOT).with_suffix("").parts)
    failed, tried = doctest.testmod(importlib.import_module(name.removesuffix(".__init__")))
    assert tried and not failed  # what differed is printed


def test_what_says_that_it_needs_no_torch_is_imported_without():
    """All at once, in a process of its own, where importing torch fails."""
    paths = [path for path in sources("utils") if "Needs no torch" in path.read_text()]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths]
    assert {"utils.settings", "utils.data.pictures"} <= {*names}
    script = "import sys; sys.modules.update(torch=None); import " + ", ".join(names)
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_no_test_imports_another():
    taken = re.compile(r"\b(?:from|import)\s+(?:tests\.)?(?:test_|conftest)")
    for path in sources("tests"):
        assert not taken.search(path.read_text()), path.name  # scripts in it included


PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("*/README.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_between_pages_leads_to_a_file(page):
    """As GitHub shows them; those of the book as Sphinx shows them are tested with the book."""
    for target in re.findall(r"\]\(([^()\s]+)\)", page.read_text()):
        address = target.partition("#")[0]
        is_elsewhere = address.startswith("https://")
        assert not address or is_elsewhere or (page.parent / address).is_file(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_picture_is_described_to_who_cannot_see_it(page):
    for text in re.findall(r"!\[([^\]]*)\]\([^)]*\.png\)", page.read_text()):
        assert len(text.split()) >= 5


def test_the_book_begins_with_a_picture_of_what_it_is_about():
    assert "_misclassified.png)" in (ROOT / "docs" / "index.md").read_text().partition("## ")[0]


def test_the_console_script_is_the_command_line():
    ((name, value),) = PROJECT["scripts"].items()
    assert name == "davidnet"
    assert EntryPoint(name, value, "console_scripts").load() is cli.main


def test_an_editable_install_puts_the_clone_on_the_path():
    """Chapters look for the project there; setuptools may otherwise put a finder in its place."""
    with open(ROOT / "pyproject.toml", "rb") as file:
        assert tomllib.load(file)["tool"]["setuptools"]["package-dir"] == {"": "."}
