"""The repository's address, and the first cell that is written for it."""

import subprocess
import sys

import pytest

from utils.files import ROOT
from utils.pipeline.address import LINE_LENGTH, clone_address, first_cell, repository


def test_the_address_is_read_from_the_project_s_file(tmp_path):
    (tmp_path / "pyproject.toml").write_text('[tool.davidnet-explained]\nrepository = "a/b"\n')
    assert repository(tmp_path) == "a/b"
    assert clone_address("a/b") == "https://github.com/a/b.git" and clone_address("") == ""


@pytest.mark.parametrize("name", [0, 1, 27, 28, 29, 30, 40, 50, 60, 100])
def test_the_first_cell_is_in_the_house_style_however_long_the_address(name, tmp_path):
    """GitHub allows 39 characters for an owner and 100 for a name."""
    address = clone_address(f"{'o' * min(39, name)}/{'n' * name}" if name else "")
    script = tmp_path / "cell.py"
    script.write_text(first_cell(address) + "\n")
    options = ["--config", ROOT / "pyproject.toml", "--ignore", "E402,F821", script]
    subprocess.run([sys.executable, "-m", "ruff", "check", *options], check=True)
    options = ["--check", "--config", ROOT / "pyproject.toml", script]
    subprocess.run([sys.executable, "-m", "ruff", "format", *options], check=True)
    long = [line for line in first_cell(address).splitlines() if len(line) > LINE_LENGTH]
    assert all(line.strip() == f'"{address}",' for line in long)
