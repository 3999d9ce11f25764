"""The repository's public address, and the first cell of every chapter, which fetches it there.

Standard library alone: a workflow that writes the address installs nothing for it.
"""

import tomllib
from pathlib import Path

from utils.files import ROOT

#: The tag of a chapter's first code cell.
FIRST_CELL = "first-cell"
#: Of a line of the first cell, as ruff has it for this project.
LINE_LENGTH = 100
_FIRST_CELL = """\
import sys  # This cell makes the project's own `utils` importable, wherever the project lies.
from pathlib import Path

{names}
files = [Path(p, "utils/pipeline/first_cell.py") for p in (*Path.cwd().parents, *sys.path, FETCHED)]
{otherwise}
exec(next(filter(Path.exists, files), files[-1]).read_bytes(), dict(globals()))"""
_NAMES = 'REPOSITORY, FETCHED = "{address}", "davidnet-explained"'
#: The same where the address makes that line too long.
_LONG_NAMES = """\
REPOSITORY, FETCHED = (
    "{address}",
    "davidnet-explained",
)"""
#: Its last but one line, where the project can be fetched (``!git`` says the same), or not.
_FETCH = (
    "any(map(Path.exists, files)) or "
    'get_ipython().system("git clone --depth 1 $REPOSITORY $FETCHED")'
)
_REFUSE = (
    "assert any(map(Path.exists, files)), "
    '"Clone this project, and open this notebook in the clone."'
)


def repository(root: Path = ROOT) -> str:
    """Return OWNER/NAME of the public repository as ``pyproject.toml`` has it; empty if unset."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    return project["tool"]["davidnet-explained"]["repository"]


def clone_address(repo: str) -> str:
    """Return what git clones OWNER/NAME on GitHub from; empty for an empty name."""
    return f"https://github.com/{repo}.git" if repo else ""


def first_cell(address: str) -> str:
    """Return the source of every chapter's first code cell.

    Args:
        address: what git clones the project from; empty where it is not known.
    """
    names = _NAMES.format(address=address)
    if len(names) > LINE_LENGTH:
        names = _LONG_NAMES.format(address=address)
    return _FIRST_CELL.format(names=names, otherwise=_FETCH if address else _REFUSE)
