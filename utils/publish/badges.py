"""The repository's public address, and every place it is written to."""

import json
import re
from collections.abc import Iterable
from pathlib import Path

from utils import InputError, brief
from utils.files import ROOT, brief_path, write_text
from utils.pipeline.cells import FIRST_CELL, first_cell_of

COLAB = "https://colab.research.google.com"
BADGE = f"{COLAB}/assets/colab-badge.svg"
#: Stands around what this module writes into Markdown pages.
BEGIN, END = "<!-- badges -->", "<!-- end of badges -->"
_LINE = re.compile(r'^(repository = )"[^"]*"', re.MULTILINE)
_BADGES = re.compile(f"{BEGIN}.*?{END}", re.DOTALL)


def write_badges(repo: str, root: Path = ROOT) -> list[Path]:
    """Set the repository's address, and write it and the Colab badges wherever they belong.

    Args:
        repo: OWNER/NAME on GitHub.
        root: of the project's files.

    Returns:
        the files that changed.

    Raises:
        InputError: `repo` is not such a name, or a file has lost the place for it.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]{0,38}/[A-Za-z0-9._-]{1,100}", repo):
        raise InputError(f"--repo is {brief(repo)}; it must be OWNER/NAME, as on GitHub.")
    chapters = sorted((root / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    changed = {root / "pyproject.toml": _replaced(root / "pyproject.toml", _LINE, rf'\1"{repo}"')}
    changed[root / "README.md"] = _replaced(root / "README.md", _BADGES, _badges(repo, chapters))
    for notebook in chapters:
        changed[notebook] = _with_badge(notebook, repo)
    changed = {path: text for path, text in changed.items() if text != path.read_text("utf-8")}
    for path, text in changed.items():
        write_text(path, text)
    return list(changed)


def _badges(repo: str, chapters: Iterable[Path]) -> str:
    lines = [f"- {path.stem} {colab_badge(repo, path.name)}" for path in chapters]
    return "\n".join([BEGIN, *lines, END])


def colab_badge(repo: str, notebook: str) -> str:
    """Return Markdown for a badge that opens a notebook of the repository in Colab."""
    return f"[![Open in Colab]({BADGE})]({COLAB}/github/{repo}/blob/main/notebooks/{notebook})"


def _replaced(path: Path, pattern: re.Pattern, by: str) -> str:
    """Return the file's text with the one place in it replaced."""
    text, count = pattern.subn(by, path.read_text("utf-8"))
    if count != 1:
        raise _no_place(path)
    return text


def _no_place(path: Path) -> InputError:
    return InputError(f"{brief_path(path)} has no place for the repository's address.")


def _with_badge(path: Path, repo: str) -> str:
    """Return a notebook's text with the address in its first code cell and a badge in its title."""
    notebook = json.loads(path.read_text("utf-8"))
    title, *others = notebook["cells"]
    cells = [cell for cell in others if FIRST_CELL in cell["metadata"].get("tags", [])]
    if len(cells) != 1:
        raise _no_place(path)
    cells[0]["source"] = first_cell_of(repo).splitlines(keepends=True)
    lines = [line for line in title["source"] if BADGE not in line]
    while lines and not lines[-1].strip():
        lines.pop()
    lines[-1] = lines[-1].rstrip("\n") + "\n"
    title["source"] = [*lines, "\n", colab_badge(repo, path.name)]
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
