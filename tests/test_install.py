"""Installing what a notebook that fetched the project lacks."""

import subprocess
from importlib import metadata
from pathlib import Path

import pytest

from utils import InputError
from utils.pipeline import install


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project that needs something present, something too old and something missing."""
    needs = ["jupyter>=999", "numpy>=1.0", "pandas>=999", "no-such-package>=2"]
    (tmp_path / "pyproject.toml").write_text(f"[project]\ndependencies = {needs}\n")
    monkeypatch.setattr(install, "ROOT", tmp_path)
    return tmp_path


class Pip:
    """Stands in for pip: notes how it was called."""

    def __init__(self, monkeypatch, status=0, says=("Collecting x\n", "  noise\n")):
        self.calls, self.kept, self.status, self.says = [], [], status, says
        monkeypatch.setattr(subprocess, "Popen", self)

    def __call__(self, command, **options):
        self.calls.append(command)
        self.kept.append(Path(command[command.index("--constraint") + 1]).read_text())
        self.stdout, self.returncode = self.says, self.status
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


def test_only_what_is_missing_or_too_old_is_installed_and_the_rest_is_held(
    project, monkeypatch, capsys
):
    pip = Pip(monkeypatch)
    install.install_missing()
    (command,) = pip.calls
    assert command[-2:] == ["pandas>=999", "no-such-package>=2"]
    assert pip.kept == [f"numpy=={metadata.version('numpy')}"]
    printed = capsys.readouterr().out
    assert "Collecting x" in printed and "noise" not in printed


def test_nothing_is_installed_where_nothing_is_missing_or_somebody_cloned_it(
    project, monkeypatch, tmp_path_factory
):
    pip = Pip(monkeypatch)
    install.install_missing(only_in=tmp_path_factory.mktemp("elsewhere"))
    (project / "pyproject.toml").write_text('[project]\ndependencies = ["numpy>=1.0"]\n')
    install.install_missing(only_in=project)
    assert pip.calls == []


def test_a_failure_of_pip_is_told_in_one_message(project, monkeypatch, capsys):
    Pip(monkeypatch, status=1, says=("ERROR: no such thing\n",))
    with pytest.raises(InputError, match="pip could not install"):
        install.install_missing(only_in=project)
    assert "ERROR: no such thing" in capsys.readouterr().out
