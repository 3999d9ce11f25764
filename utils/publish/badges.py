"""The repository's public address, and every place it is written to.

Standard library alone: a workflow calls it on a machine where nothing is installed.
"""

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path

from utils import InputError, brief
from utils.files import ROOT, brief_path, write_text
from utils.pipeline.address import FIRST_CELL, clone_address, first_cell

COLAB = "https://colab.research.google.com"
BADGE = f"{COLAB}/assets/colab-badge.svg"
#: Stands around what this module writes into Markdown pages.
BEGIN, END = "<!-- badges -->", "<!-- end of badges -->"
BEGIN_CLONE, END_CLONE = "<!-- clone -->", "<!-- end of clone -->"
#: What a person who opens chapters there has to know: nothing of one is there for the next.
ON_DRIVE = (
    "There every chapter has a machine of its own, whose files are lost with it: to keep runs and "
    "hand them on, mount Google Drive, and give each chapter the same `output_dir`, such as "
    "`/content/drive/MyDrive/runs`."
)
_LINE = re.compile(r'^(repository = )"[^"]*"', re.MULTILINE)
_BADGES = re.compile(f"{BEGIN}.*?{END}", re.DOTALL)
_CLONE = re.compile(f"{BEGIN_CLONE}.*?{END_CLONE}", re.DOTALL)


def address_to_write(repo: str | None) -> str:
    """Return the address that was asked for, or else that of the GitHub workflow this runs in.

    Raises:
        InputError: there is neither.
    """
    address = os.environ.get("GITHUB_REPOSITORY", "") if repo is None else repo
    if repo is None and not address:
        raise InputError("Which repository? Give --repo OWNER/NAME, as on GitHub.")
    return address


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
    readme = root / "README.md"
    text = _replaced(readme, _BADGES, _badges(repo, chapters))
    changed[readme] = _replaced(readme, _CLONE, _clone(repo), text)
    for notebook, following in zip(chapters, [*chapters[1:], *chapters[:1]], strict=True):
        changed[notebook] = _addressed(notebook, following, repo)
    changed = {path: text for path, text in changed.items() if text != path.read_text("utf-8")}
    for path, text in changed.items():
        write_text(path, text)
    return list(changed)


def _badges(repo: str, chapters: Iterable[Path]) -> str:
    lines = [f"- {path.stem} {colab_badge(repo, path.name)}" for path in chapters]
    return "\n".join([BEGIN, *lines, "", ON_DRIVE, END])


def _clone(repo: str) -> str:
    command = f"    git clone {clone_address(repo)} davidnet-explained && cd davidnet-explained"
    return "\n\n".join([BEGIN_CLONE, command, END_CLONE])


def _in_colab(repo: str, notebook: str) -> str:
    return f"{COLAB}/github/{repo}/blob/main/notebooks/{notebook}"


def colab_badge(repo: str, notebook: str) -> str:
    """Return Markdown for a badge that opens a notebook of the repository in Colab."""
    return f"[![Open in Colab]({BADGE})]({_in_colab(repo, notebook)})"


def with_badge(title: str, repo: str, notebook: str, following: str) -> str:
    """Return a chapter's title cell with the line that opens it in Colab, and the next chapter.

    In Colab a link from one notebook to the file beside it leads nowhere, so the next chapter is
    linked here too, and how its machine finds what this one made is said.

    Args:
        title: what the cell says, with or without that line.
        repo: OWNER/NAME on GitHub; empty leaves the line out.
        notebook: the chapter's file name.
        following: that of the next.
    """
    if not repo:
        return without_badge(title)
    onward = f"Go on there with [{Path(following).stem}]({_in_colab(repo, following)})."
    return f"{without_badge(title)}\n\n{colab_badge(repo, notebook)} {onward} {ON_DRIVE}"


def without_badge(title: str) -> str:
    """Return a chapter's title cell without the line that `with_badge` adds."""
    return "\n".join(line for line in title.splitlines() if BADGE not in line).rstrip()


def _replaced(path: Path, pattern: re.Pattern, by: str, text: str | None = None) -> str:
    """Return the file's text, or what is to become of it, with the one place in it replaced."""
    text, count = pattern.subn(by, path.read_text("utf-8") if text is None else text)
    if count != 1:
        raise _no_place(path)
    return text


def _no_place(path: Path) -> InputError:
    return InputError(f"{brief_path(path)} has no place for the repository's address.")


def _addressed(path: Path, following: Path, repo: str) -> str:
    """Return a notebook's text with the address in its first code cell and its title."""
    notebook = json.loads(path.read_text("utf-8"))
    title, *others = notebook["cells"]
    cells = [cell for cell in others if FIRST_CELL in cell["metadata"].get("tags", [])]
    if len(cells) != 1:
        raise _no_place(path)
    cells[0]["source"] = first_cell(clone_address(repo)).splitlines(keepends=True)
    text = with_badge("".join(title["source"]), repo, path.name, following.name)
    title["source"] = text.splitlines(keepends=True)
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
