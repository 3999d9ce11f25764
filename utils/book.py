"""The book: executed notebooks as chapters, and the site that Sphinx makes of them."""

import base64
import shutil
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from PIL import Image

from utils import InputError, first_line
from utils.badges import BADGE
from utils.locks import private_folder
from utils.pipeline import NOTEBOOKS
from utils.runs import ROOT, Run, replacing_folder, shown_path, write_text

DOCS = ROOT / "docs"
#: The reference run's chapters, as they are kept with the sources.
RENDERED = DOCS / "rendered"
#: The site fetches nothing from elsewhere, so it has a badge of its own.
LOCAL_BADGE = "../_static/open-in-colab.svg"
#: Bytes that one chapter, and all together, may take.
MOST_OF_A_CHAPTER, MOST_OF_ALL = 1_000_000, 5_000_000
#: What has more colours than this is no chart.
COLOURS_OF_A_CHART = 4_096


def executed_chapters(folder: Path) -> dict[str, NotebookNode]:
    """Return all chapters, executed to their ends, by name.

    Args:
        folder: with a notebook for each chapter.

    Raises:
        InputError: a chapter is missing, unreadable, not executed to its end, or shows an error;
            the message names it, and its cell.
    """
    missing = [name for name in NOTEBOOKS if not (folder / f"{name}.ipynb").is_file()]
    if missing:
        raise InputError(
            f"{shown_path(folder)} lacks {', '.join(missing)}. Run the whole sequence first: "
            "python -m utils run, with the same run name."
        )
    return {name: _executed(folder / f"{name}.ipynb") for name in NOTEBOOKS}


def _executed(path: Path) -> NotebookNode:
    try:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
    except Exception as error:  # whatever a damaged file makes of the parser
        raise InputError(f"{shown_path(path)} is no notebook ({first_line(error)}).") from error
    for number, cell in enumerate(notebook.cells, 1):
        if cell.cell_type != "code" or not cell.source.strip():
            continue
        errors = [output for output in cell.outputs if output.output_type == "error"]
        if errors:
            raise InputError(
                f"{shown_path(path)}, cell {number} of {len(notebook.cells)}, ended in an error: "
                f"{errors[0].ename}: {errors[0].evalue}. Mend it and run the chapter again."
            )
        if cell.execution_count is None:
            raise InputError(
                f"{shown_path(path)}, cell {number} of {len(notebook.cells)}, was not executed. "
                "Run the chapter again, to its end."
            )
    return notebook


def chapters_of(run: Run) -> dict[str, NotebookNode]:
    """Return the executed chapters of a complete run by name, as the book shows them.

    Raises:
        InputError: the run is missing, was not finished or failed, or a chapter cannot be shown.
    """
    if not run.record:
        raise InputError(f"Run {run.name!r} does not exist in {shown_path(run.folder.parent)}.")
    if run.status != "complete" or run.failure:
        reason = f": {run.failure}" if run.failure else ""
        state = "not finished" if run.status == "complete" else run.status
        raise InputError(
            f"Run {run.name!r} is {state}{reason}, so there is no whole book to make of it. "
            "Run it to its end first."
        )
    executed = executed_chapters(run.path("notebooks"))
    return {name: portable(notebook) for name, notebook in executed.items()}


# Chapters as they are kept


def keep_chapters(run: Run, folder: Path = RENDERED) -> list[Path]:
    """Write a run's executed chapters into `folder`, small and free of where they were made.

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
    paths = {name: folder / f"{name}.ipynb" for name in texts}
    for name, path in paths.items():
        write_text(path, texts[name] + "\n")
    return list(paths.values())


def portable(notebook: NotebookNode) -> NotebookNode:
    """Return an executed notebook with small pictures, and with paths as the book has them."""
    text = nbformat.writes(notebook).replace(f"{ROOT}/", "").replace("](../docs/", "](../")
    slim = nbformat.reads(text, as_version=4)
    slim.metadata = NotebookNode(
        kernelspec={"name": "python3", "display_name": "Python 3", "language": "python"},
        language_info={"name": "python", "pygments_lexer": "ipython3"},
    )
    for cell in slim.cells:
        cell.metadata = NotebookNode({k: v for k, v in cell.metadata.items() if k == "tags" and v})
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                png = smaller_picture(base64.b64decode(output.data["image/png"]))
                output.data["image/png"] = base64.b64encode(png).decode()
    return slim


def smaller_picture(png: bytes) -> bytes:
    """Return a PNG file's contents as small as they get without a difference that can be seen.

    A chart has few colours and is kept with 256 of them; what holds photographs or maps keeps all.
    """
    with Image.open(BytesIO(png)) as opened:
        picture = opened.convert("RGB")
    if picture.getcolors(COLOURS_OF_A_CHART):
        picture = picture.quantize(256, dither=Image.Dither.NONE)
    made = BytesIO()
    picture.save(made, format="PNG", optimize=True)
    return made.getvalue()


# The site


def build_site(run: Run | None = None, target: Path = ROOT / "build" / "docs") -> Path:
    """Render the book as a static site, from what was executed, and return its first page.

    Args:
        run: whose chapters to show; None shows the reference run, kept in ``docs/rendered``.
        target: the site's folder; what is there is replaced once the new site is whole.

    Raises:
        InputError: as `chapters_of`; or Sphinx had a warning, which it printed.
    """
    chapters = executed_chapters(RENDERED) if run is None else chapters_of(run)
    target.parent.mkdir(parents=True, exist_ok=True)
    with (
        private_folder(target.parent) as folder,
        replacing_folder(target) as site,
    ):
        source = Path(folder, "source")
        _lay_out(source, chapters)
        sphinx = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html"]
        if subprocess.run([*sphinx, str(source), str(site)], cwd=ROOT).returncode:
            raise InputError("The book was not made: mend what Sphinx says above.")
        shutil.rmtree(site / ".doctrees", ignore_errors=True)
    return target / "index.html"


def _lay_out(source: Path, chapters: dict[str, NotebookNode]) -> None:
    """Write what Sphinx reads: the pages of ``docs/``, and the chapters."""
    shutil.copytree(DOCS, source, ignore=shutil.ignore_patterns("rendered"))
    for name, notebook in chapters.items():
        title = notebook.cells[0]
        title.source = title.source.replace(BADGE, LOCAL_BADGE)
        write_text(source / "rendered" / f"{name}.ipynb", nbformat.writes(notebook))
