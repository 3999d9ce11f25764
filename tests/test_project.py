"""The project's own files agree with each other."""

import re
import tomllib

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from utils.files import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def declared():
    extras = PROJECT["optional-dependencies"].values()
    listed = [*PROJECT["dependencies"], *(line for extra in extras for line in extra)]
    return {canonicalize_name(r.name): r for r in map(Requirement, listed)}


def constraints():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.+!-]+", line) for line in pins)
    return {canonicalize_name(name): version for name, version in (p.split("==") for p in pins)}


def test_every_dependency_is_pinned_to_a_version_it_allows():
    pins = constraints()
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
    assert pip == {"pip": ["-c constraints.txt", "-e .[dev,space]"]}


def test_lock_files_name_no_place_to_download_from():
    for name in ("constraints.txt", "environment.yml", "pyproject.toml"):
        assert "://" not in (ROOT / name).read_text()


def test_the_makefile_installs_under_the_constraints():
    text = (ROOT / "Makefile").read_text()
    assert "--constraint constraints.txt --editable '.[dev,space]'" in text
    for target in ("run", "test", "lint", "lab", "docs", "clean", "help"):
        assert re.search(rf"^{target}:.*## \w+", text, re.MULTILINE), target
