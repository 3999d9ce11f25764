"""The book: executed notebooks as chapters, and the site that Sphinx makes of them.

What a chapter says is this repository's own; from a run come its outputs alone, rebuilt.
"""

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import zip_longest
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from papermill.translators import PythonTranslator

from utils import InputError, first_line, printable
from utils.files import ROOT, brief_path, replacing_folder, write_text
from utils.locks import private_folder
from utils.pipeline.address import clone_address, first_cell, repository
from utils.pipeline.kernel import parameters_of
from utils.pipeline.sequence import NOTEBOOKS
from utils.publish.badges import BADGE, with_badge, without_badge
from utils.publish.safe_outputs import safe_markdown, safe_outputs
from utils.runs import Run

DOCS = ROOT / "docs"
#: The reference run's chapters, as they are kept with the sources.
RENDERED = DOCS / "rendered"
#: The site fetches nothing from elsewhere, so it has a badge of its own.
LOCAL_BADGE = "../_static/open-in-colab.svg"
#: Bytes that one chapter, and all together, may take.
MOST_OF_A_CHAPTER, MOST_OF_ALL = 2_000_000, 8_000_000
#: Bytes that an executed notebook may have to be read at all.
MOST_OF_A_NOTEBOOK = 100_000_000
#: Characters that the cell may have in which papermill sets parameters.
MOST_OF_PARAMETERS = 10_000
#: A page of the book, as a chapter names it.
_PAGE = re.compile(r"`docs/([a-z_]+\.md)`")
#: Matches no text.
NOWHERE = re.compile(r"(?!)")
#: What every chapter says of itself; a run's own could tell MyST-NB to do other things.
METADATA = {
    "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
    "language_info": {"name": "python", "pygments_lexer": "ipython3"},
}


def executed_chapters(folder: Path) -> dict[str, NotebookNode]:
    """Return all chapters, executed to their ends, by name.

    Args:
        folder: with a notebook for each chapter.

    Raises:
        InputError: a chapter is missing, unreadable, a link, not executed to its end, or shows an
            error; the message names it, and its cell.
    """
    missing = [name for name in NOTEBOOKS if not (folder / f"{name}.ipynb").is_file()]
    if missing:
        raise InputError(
            f"{brief_path(folder)} lacks {', '.join(missing)}. Run the whole sequence first: "
            "python -m utils run, with the same run name."
        )
    return {name: _executed(folder / f"{name}.ipynb") for name in NOTEBOOKS}


def _executed(path: Path) -> NotebookNode:
    if path.is_symlink() or path.stat().st_size > MOST_OF_A_NOTEBOOK:
        raise InputError(
            f"{brief_path(path)} is a link, or has more than {MOST_OF_A_NOTEBOOK:,} bytes; no "
            "chapter of this project does. Run the chapter again."
        )
    try:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
    except Exception as error:  # whatever a damaged file makes of the parser
        raise InputError(f"{brief_path(path)} is not a notebook ({first_line(error)}).") from error
    for number, cell in enumerate(notebook.cells, 1):
        if cell.cell_type != "code" or not cell.source.strip():
            continue
        errors = [output for output in cell.outputs if output.output_type == "error"]
        if errors:
            raise InputError(
                f"{brief_path(path)}, cell {number} of {len(notebook.cells)}, ended in an error: "
                f"{errors[0].ename}: {errors[0].evalue}. Fix it and run the chapter again."
            )
        if cell.execution_count is None:
            raise InputError(
                f"{brief_path(path)}, cell {number} of {len(notebook.cells)}, was not executed. "
                "Run the chapter again, to its end."
            )
    return notebook


def chapters_of(run: Run) -> dict[str, NotebookNode]:
    """Return the executed chapters of a complete run by name, as the book shows them.

    Cells are this repository's, outputs the run's; what is left out of these is printed.

    Raises:
        InputError: the run is missing, was not finished or failed, or a chapter cannot be shown,
            as its cells are not those of this repository's chapter.
    """
    if not run.record:
        raise InputError(f"Run {run.name!r} does not exist in {brief_path(run.folder.parent)}.")
    if run.status != "complete" or run.failure:
        reason = f": {run.failure}" if run.failure else ""
        state = "not finished" if run.status == "complete" else run.status
        raise InputError(
            f"Run {run.name!r} is {state}{reason}, so no book can be made of it. "
            "Run it to the end first."
        )
    executed = executed_chapters(run.path("notebooks"))
    cells = {name: _own_cells(run, name, notebook.cells) for name, notebook in executed.items()}
    named = [*run.settings.values(), str(run.folder.parent), *_parameters_of(executed)]
    places = _places(value for value in named if isinstance(value, str))
    return {name: _chapter(name, cells[name], executed[name].cells, places) for name in executed}


def _own_cells(run: Run, name: str, executed: list[NotebookNode]) -> list[NotebookNode]:
    """Return this repository's cells of a chapter, one for each that the run executed.

    Papermill puts one cell more behind the default parameters, which is written anew.
    """
    own, compared = nbformat.read(NOTEBOOKS[name], as_version=4).cells, list(executed)
    if len(executed) > len(own):
        place = 1 + next(n for n, cell in enumerate(own) if "parameters" in _tags(cell))
        made = _parameters_cell(executed[place].source, parameters_of(NOTEBOOKS[name]))
        if made is not None:
            own.insert(place, made)
            compared[place] = made
    for number, (cell, other) in enumerate(zip_longest(own, compared), 1):
        if not cell or not other or not _same(cell, other):
            path = brief_path(run.path("notebooks", f"{name}.ipynb"))
            raise InputError(
                f"{path}, cell {number} of {len(executed)}, is not that of this version's chapter, "
                "so its outputs cannot be shown there. Run the chapter again: python -m utils run "
                f"--run-name {run.name} --only {name[:2]}, with the same parameters."
            )
    return own


def _same(cell: NotebookNode, other: NotebookNode) -> bool:
    return (cell.cell_type, _without_address(cell)) == (other.cell_type, _without_address(other))


def _without_address(cell: NotebookNode) -> str:
    """Return what a cell says but for the repository's address, which may be newer than a run."""
    if cell.cell_type != "code":
        return without_badge(cell.source)
    is_first = cell.source == first_cell(clone_address(repository()))
    return first_cell("") if is_first else cell.source


def _parameters_cell(source: str, names: Collection[str]) -> NotebookNode | None:
    """Return papermill's cell, written anew; None where `source` is not one that it writes."""
    values = _parameters(source, names)
    if values is None:
        return None
    shown = {name: _unplaced(v) if isinstance(v, str) else v for name, v in values.items()}
    try:
        made = PythonTranslator.codify(shown)
    except ValueError:  # of a number with more digits than Python writes
        return None
    tags = {"tags": ["injected-parameters"]}
    return new_code_cell(made, id="injected-parameters", metadata=tags)


def _parameters(source: str, names: Collection[str]) -> dict[str, str | int | float | None] | None:
    """Return what papermill's cell sets; None where `source` is not one that it writes."""
    values = {}
    try:
        if len(source) > MOST_OF_PARAMETERS:
            return None
        for statement in ast.parse(source).body:
            if not isinstance(statement, ast.Assign):
                return None
            (target,), value = statement.targets, ast.literal_eval(statement.value)
            if not isinstance(target, ast.Name) or target.id not in names:
                return None
            if not isinstance(value, str | int | float | None):
                return None
            values[target.id] = value
    except (MemoryError, RecursionError, SyntaxError, TypeError, ValueError):
        return None
    return values


def _parameters_of(executed: Mapping[str, NotebookNode]) -> Iterator[Any]:
    """Yield all values that papermill set in any of these chapters."""
    for name, notebook in executed.items():
        for cell in notebook.cells:
            if "injected-parameters" in _tags(cell):
                yield from (_parameters(cell.source, parameters_of(NOTEBOOKS[name])) or {}).values()


def _places(values: Iterable[str]) -> re.Pattern[str]:
    """Return what matches the absolute paths outside the project that values name.

    Chapters print a path as it was given or in full, and in messages with doubled backslashes.
    Nothing is looked up: a run may come from anywhere, and a path may name another machine.
    """
    given = {value.rstrip("/\\") for value in values if len(value) <= MOST_OF_PARAMETERS}
    full = set(map(_in_full, given))
    places = {place for place in given | full if _unplaced(place) != _from_root(place)}
    longest_first = sorted(places - {str(ROOT)}, key=len, reverse=True)
    escaped = [re.escape(place).replace(r"\\", r"\\{1,2}") for place in longest_first]
    return re.compile(rf"(?<![\w.])(?:{'|'.join(escaped)})") if escaped else NOWHERE


def _in_full(value: str) -> str:
    """Return a path in full. `~` is expanded for this user alone: others would be looked up."""
    is_home = re.match(r"~([/\\]|$)", value)
    return os.path.normpath(ROOT / (os.path.expanduser(value) if is_home else value))


def _chapter(
    name: str,
    cells: list[NotebookNode],
    executed: list[NotebookNode],
    places: re.Pattern[str] = NOWHERE,
) -> NotebookNode:
    """Return a notebook of these cells with the outputs of those, and print what is left out.

    Of what `places` matches in outputs, the last name alone is shown.
    """
    chapter, pages = new_notebook(metadata=METADATA), _pages()

    def shown_as(text: str) -> str:
        return places.sub(lambda found: _unplaced(found[0]), _rewritten(text))

    for number, (cell, other) in enumerate(zip(cells, executed, strict=True), 1):
        source, metadata = _text_of(cell), {"tags": _tags(cell)} if _tags(cell) else {}
        if cell.cell_type != "code":
            chapter.cells.append(new_markdown_cell(source, id=cell.id, metadata=metadata))
            continue
        outputs, left_out = safe_outputs(other.get("outputs", []), shown_as, pages)
        count = other.get("execution_count")
        alt = _alt(outputs)
        shown = {"mystnb": {"image": {"alt": alt}}} if alt else {}
        about = {"metadata": metadata | shown, "execution_count": count}
        chapter.cells.append(new_code_cell(source, id=cell.id, outputs=outputs, **about))
        if left_out:
            kinds = ", ".join(f"{count} {kind[:60]}" for kind, count in left_out.items())
            print(printable(f"Left out of {name}, cell {number} of {len(cells)}: {kinds}"))
    return chapter


def _alt(outputs: list[NotebookNode]) -> str | None:
    """Return what a cell's only picture shows: MyST-NB takes that from the cell alone."""
    shown = [output.metadata.get("image/png", {}) for output in outputs if "data" in output]
    said = [about["alt"] for about in shown if "alt" in about]
    return said[0] if len(said) == 1 else None


def _tags(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def _text_of(cell: NotebookNode) -> str:
    """Return what a cell says in the book. Badges are left out: the site adds those of its day."""
    if cell.cell_type == "code":
        return _from_root(cell.source)
    return without_badge(_rewritten(cell.source))


def _rewritten(text: str) -> str:
    """Return text as the book has it, where a page that it names is a link to it.

    Chapters only name pages: they are read in several places, from which no one link leads there.
    """
    return _PAGE.sub(r"[\1](../\1)", _from_root(text))


def _unplaced(value: str) -> str:
    """Return a parameter as the book has it: where a person keeps things is nobody's business."""
    value = _from_root(value)
    is_absolute = PurePosixPath(value).is_absolute() or PureWindowsPath(value).is_absolute()
    return f"path/to/{PureWindowsPath(value).name}" if is_absolute else value


def _from_root(text: str) -> str:
    """Return text with the project's own paths from its root on."""
    return text.replace(f"{ROOT}/", "")


def _pages() -> set[str]:
    """Return the addresses of chapters and pages, as chapters link to them."""
    pages = {f"../{path.relative_to(DOCS).as_posix()}" for path in DOCS.rglob("*.md")}
    return pages | {f"{name}.ipynb" for name in NOTEBOOKS}


# Chapters as they are kept


def chapters_to_keep(run: Run, folder: Path = RENDERED) -> dict[Path, str]:
    """Return a run's executed chapters as the book shows them, by the files to keep them in.

    Raises:
        InputError: as `chapters_of`; or they are too large to be kept with the sources.
    """
    texts = {name: nbformat.writes(nb) for name, nb in chapters_of(run).items()}
    sizes = {name: len(text.encode()) for name, text in texts.items()}
    for name, size in sizes.items():
        if size > MOST_OF_A_CHAPTER:
            raise InputError(
                f"{name} would take {size:,} bytes, more than {MOST_OF_A_CHAPTER:,}. Show fewer "
                "pictures in it."
            )
    if sum(sizes.values()) > MOST_OF_ALL:
        raise InputError(f"All chapters would take more than {MOST_OF_ALL:,} bytes.")
    return {folder / f"{name}.ipynb": text + "\n" for name, text in texts.items()}


def kept_chapters() -> dict[str, NotebookNode]:
    """Return the reference run's chapters by name, as the book shows them.

    An earlier version made them. Where it said something else than today's, that is shown without
    what could act, since it came through a run's folder.

    Raises:
        InputError: as `executed_chapters`.
    """
    chapters = {}
    for name, notebook in executed_chapters(RENDERED).items():
        today = {_text_of(cell) for cell in nbformat.read(NOTEBOOKS[name], 4).cells}
        for cell in notebook.cells:
            if cell.cell_type != "code" and _text_of(cell) not in today:
                cell.source = safe_markdown(_text_of(cell), _pages(), headings=True)
        chapters[name] = _chapter(name, notebook.cells, notebook.cells)
    return chapters


# The site


def build_site(run: Run | None = None, target: Path = ROOT / "build" / "docs") -> Path:
    """Render the book as a static site, from what was executed, and return its first page.

    Args:
        run: whose chapters to show; None shows the reference run, kept in ``docs/rendered``.
        target: the site's folder; what is there is replaced once the new site is whole.

    Raises:
        InputError: as `chapters_of`; or Sphinx had a warning, which it printed.
    """
    chapters = kept_chapters() if run is None else chapters_of(run)
    target.parent.mkdir(parents=True, exist_ok=True)
    with (
        private_folder(target.parent) as folder,
        replacing_folder(target) as site,
    ):
        source = Path(folder, "source")
        _lay_out(source, chapters)
        sphinx = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html"]
        if subprocess.run([*sphinx, str(source), str(site)], cwd=ROOT).returncode:
            raise InputError("The book was not made. Fix what Sphinx reports above.")
        shutil.rmtree(site / ".doctrees", ignore_errors=True)
    return target / "index.html"


def _lay_out(source: Path, chapters: dict[str, NotebookNode]) -> None:
    """Write what Sphinx reads: the pages of ``docs/``, and the chapters with today's badges."""
    shutil.copytree(DOCS, source, ignore=shutil.ignore_patterns("rendered"))
    names = [*chapters]
    for name, following in zip(names, [*names[1:], *names[:1]], strict=True):
        notebook, files = chapters[name], (f"{name}.ipynb", f"{following}.ipynb")
        title = notebook.cells[0]
        title.source = with_badge(title.source, repository(), *files).replace(BADGE, LOCAL_BADGE)
        write_text(source / "rendered" / f"{name}.ipynb", nbformat.writes(notebook))
