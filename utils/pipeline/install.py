"""Installing what is missing, for a notebook that fetched this project by itself (in Colab).

Imported before anything is installed: standard library and packaging alone, which every Jupyter
kernel brings.
"""

import subprocess
import sys
import tempfile
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from utils import InputError
from utils.files import ROOT

#: Not needed where a notebook already runs.
INTERFACE = "jupyter"


def install_missing(only_in: Path | None = None) -> None:
    """Install those of the project's dependencies that are missing or too old.

    What is there and will do is not replaced: pip is held to it. pip's progress is printed.

    Args:
        only_in: do nothing if this copy of the project lies in another folder: then somebody
            cloned it, and sees to the environment.

    Raises:
        InputError: pip could not install them; its own words stand above.
    """
    if only_in is not None and only_in != ROOT:
        return
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [r for r in map(Requirement, project["dependencies"]) if r.name != INTERFACE]
    installed = {requirement.name: _version(requirement.name) for requirement in wanted}
    missing = [
        str(requirement)
        for requirement in wanted
        if not requirement.specifier.contains(installed[requirement.name] or "", prereleases=True)
    ]
    if missing:
        kept = [f"{r.name}=={installed[r.name]}" for r in wanted if str(r) not in missing]
        print(f"Installing {', '.join(missing)}", flush=True)
        _pip_install(missing, kept)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _pip_install(missing: list[str], kept: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder, "kept.txt")
        constraints.write_text("\n".join(kept), encoding="utf-8")
        command = [sys.executable, "-m", "pip", "install", "--progress-bar", "off", "--constraint"]
        with subprocess.Popen(
            [*command, str(constraints), *missing],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        ) as pip:
            for line in pip.stdout or ():  # a notebook shows nothing of a child process by itself
                if line.startswith(("Collecting", "Installing", "ERROR", "Successfully")):
                    print(line.rstrip(), flush=True)
    if pip.returncode:
        raise InputError(
            "pip could not install what this notebook needs; its reason is above. In a new "
            "environment, free of other packages' demands, it may succeed."
        )
