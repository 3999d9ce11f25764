"""The book: which runs it shows, and what it makes of their notebooks."""

import base64
import json
import re
import runpy
import shutil
from io import BytesIO
from types import SimpleNamespace

import nbformat
import pytest
from docutils.nodes import SkipNode, math, math_block
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from helpers.records import valid_record
from utils import InputError
from utils.cli import main
from utils.files import ROOT, write_files
from utils.pipeline.address import clone_address, first_cell
from utils.pipeline.sequence import NOTEBOOKS
from utils.publish import book
from utils.publish.badges import BADGE, with_badge
from utils.runs import Run


def picture(width=120):
    """A PNG with more colours than a small one may have, as base64 text."""
    made = BytesIO()
    ramp = Image.linear_gradient("L").resize((width, 90))
    Image.merge("RGB", (ramp, ramp.rotate(90), ramp.rotate(180))).save(made, "PNG")
    return base64.b64encode(made.getvalue()).decode()


def chapter(name):
    """An executed notebook as papermill leaves it."""
    setup = new_code_cell("import utils", execution_count=1)
    parameters = new_code_cell("epochs = 2", execution_count=2, metadata={"tags": ["parameters"]})
    shown = new_output("display_data", {"image/png": picture(), "text/plain": "<Image>"})
    printed = new_output("stream", name="stdout", text=f"read from {ROOT}/outputs/x\n")
    cell = new_code_cell(
        "show()", execution_count=3, outputs=[printed, shown],
        metadata={"papermill": {"duration": 1.5}},
    )  # fmt: skip
    title = new_markdown_cell(f"# {int(name[:2])} · Chapter\n\n[![Open in Colab]({BADGE})](x)")
    last = new_code_cell("Markdown()", execution_count=4, outputs=[
        new_output("display_data", {"text/markdown": "Next: [training](03_training.ipynb)."}),
    ])  # fmt: skip
    notebook = new_notebook(cells=[title, setup, parameters, cell, last])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "x", "language": "python"}
    notebook.metadata.papermill = {"input_path": f"{ROOT}/notebooks/{name}.ipynb"}
    return notebook


def keep_chapters(run, folder):
    kept = book.chapters_to_keep(run, folder)
    write_files(kept)
    return list(kept)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A complete run with six executed chapters, made of as many short ones."""
    run = Run("made", tmp_path)
    run.update_record(status="complete")
    own = {name: tmp_path / "own" / f"{name}.ipynb" for name in NOTEBOOKS}
    monkeypatch.setattr(book, "NOTEBOOKS", own)
    run.path("notebooks").mkdir()
    (tmp_path / "own").mkdir()
    for name, path in own.items():
        nbformat.write(chapter(name), run.path("notebooks", path.name))
        nbformat.write(chapter(name), path)
    return run


def change(run, name, function):
    path = run.path("notebooks", f"{name}.ipynb")
    notebook = nbformat.read(path, as_version=4)
    function(notebook)
    nbformat.write(notebook, path)


def test_chapters_are_kept_small_and_free_of_the_machine(run, tmp_path):
    kept = keep_chapters(run, tmp_path / "rendered")
    assert [path.stem for path in kept] == list(NOTEBOOKS)
    for path in kept:
        text = path.read_text()
        assert str(ROOT) not in text and "papermill" not in text
        assert "read from outputs/x" in text
        nbformat.validate(nbformat.reads(text, as_version=4))
        (encoded,) = re.findall(r'"image/png": "([^"]+)"', text)
        with Image.open(BytesIO(base64.b64decode(encoded))) as small:
            assert small.mode == "RGB" and small.size == (120, 90)
    again = [path.read_bytes() for path in keep_chapters(run, tmp_path / "again")]
    assert again == [path.read_bytes() for path in kept]


def test_a_page_that_a_chapter_names_is_a_link_in_the_book_and_stays_a_name_in_code(run):
    named = "With your own (`docs/your_pictures.md`), or `docs/no_such_page.md`."

    def name(notebook):
        notebook.cells[4].source = f"Markdown('{named}')"
        notebook.cells[4].outputs[0].data["text/markdown"] = named

    change(run, "06_gradcam", name)
    own = book.NOTEBOOKS["06_gradcam"]
    shutil.copy(run.path("notebooks", own.name), own)
    cell = book.chapters_of(run)["06_gradcam"].cells[4]
    assert cell.source == f"Markdown('{named}')"
    said = cell.outputs[0].data["text/markdown"]
    assert "](../your_pictures.md)" in said and "](../no_such_page.md)" not in said


@pytest.mark.parametrize(("kind", "display"), [(math, "inline"), (math_block, "block")])
def test_formulas_are_drawn_by_the_browser_and_by_no_script(kind, display):
    write = runpy.run_path(str(book.DOCS / "conf.py"))["_write_formula"]
    page = SimpleNamespace(body=[])
    with pytest.raises(SkipNode):  # what docutils takes for "done with this"
        write(page, kind("", r"\sum_c w_c"))
    (written,) = page.body
    assert written.startswith("<math") and f'display="{display}"' in written
    assert "<script" not in written and "<mo>" in written


def test_what_a_picture_shows_is_said_where_the_site_looks_for_it(run):
    def describe(notebook):
        notebook.cells[3].outputs[1].metadata = {"image/png": {"alt": "Losses, drawn (1 → 2)."}}

    change(run, "04_curves", describe)
    chapters = book.chapters_of(run)
    said = {"image": {"alt": "Losses, drawn (1 → 2)."}}
    assert chapters["04_curves"].cells[3].metadata["mystnb"] == said
    assert "mystnb" not in chapters["05_misclassified"].cells[3].metadata


def test_a_chapter_that_grew_too_large_is_named_and_none_is_written(run, tmp_path, monkeypatch):
    monkeypatch.setattr(book, "MOST_OF_A_CHAPTER", 1_000)
    with pytest.raises(InputError, match=r"01_data_exploration would take [\d,]+ bytes"):
        keep_chapters(run, tmp_path / "rendered")
    monkeypatch.setattr(book, "MOST_OF_A_CHAPTER", 10**6)
    monkeypatch.setattr(book, "MOST_OF_ALL", 10_000)
    with pytest.raises(InputError, match="All chapters"):
        keep_chapters(run, tmp_path / "rendered")
    assert not (tmp_path / "rendered").exists()


def test_a_missing_run_or_one_that_is_not_complete_is_refused(run, tmp_path):
    with pytest.raises(InputError, match="'nobody' does not exist"):
        book.chapters_of(Run("nobody", tmp_path))
    run.update_record(status="running")
    with pytest.raises(InputError, match="'made' is running"):
        book.chapters_of(run)
    failure = {"notebook": "05_misclassified", "cell": 4, "error": "ValueError: no"}
    run.update_record(status="failed", failure=failure)
    with pytest.raises(InputError, match="is failed: 05_misclassified, ValueError: no"):
        book.chapters_of(run)


def test_missing_chapters_are_all_named(run):
    for name in ("02_lr_finder", "06_gradcam"):
        run.path("notebooks", f"{name}.ipynb").unlink()
    with pytest.raises(InputError, match="lacks 02_lr_finder, 06_gradcam"):
        book.chapters_of(run)


def test_an_error_among_the_outputs_is_refused_with_its_cell(run):
    def spoil(notebook):
        error = new_output("error", ename="KeyError", evalue="'epochs'", traceback=[])
        notebook.cells[3].outputs.append(error)

    change(run, "04_curves", spoil)
    with pytest.raises(InputError, match=r"04_curves\.ipynb, cell 4 of 5, .*KeyError: 'epochs'"):
        book.chapters_of(run)


def test_a_chapter_not_run_to_its_end_is_refused_with_the_cell(run):
    change(run, "03_training", lambda nb: nb.cells[4].update(execution_count=None))
    with pytest.raises(InputError, match=r"03_training\.ipynb, cell 5 of 5, was not executed"):
        book.chapters_of(run)


def inserted(source):
    """Papermill's cell, behind the default parameters."""
    cell = new_code_cell(source, execution_count=9, metadata={"tags": ["injected-parameters"]})
    return lambda notebook: notebook.cells.insert(3, cell)


def test_what_papermill_set_is_shown(run):
    source = "# Parameters\nepochs = 3\n"
    change(run, "03_training", inserted(source))
    cells = book.chapters_of(run)["03_training"].cells
    assert [cell.source for cell in cells[2:4]] == ["epochs = 2", source]
    assert cells[3].metadata.tags == ["injected-parameters"]
    assert [cell.id for cell in cells] == [
        *(cell.id for cell in nbformat.read(book.NOTEBOOKS["03_training"], 4).cells[:3]),
        "injected-parameters",
        *(cell.id for cell in nbformat.read(book.NOTEBOOKS["03_training"], 4).cells[3:]),
    ]


@pytest.mark.parametrize(
    ("given", "printed", "shown"),
    [
        ("/home/alice/runs", "run birds in /home/alice/runs", "run birds in path/to/runs"),
        ("/home/alice/runs/", "in '/home/alice/runs/birds'.", "in 'path/to/runs/birds'."),
        ("~/runs", "run birds in /home/alice/runs", "run birds in path/to/runs"),
        ("C:\\\\Alice\\\\runs", r"in C:\Alice\runs\birds", r"in path/to/runs\birds"),
        ("C:\\\\Alice\\\\runs", r"in 'C:\\Alice\\runs'", "in 'path/to/runs'"),
        ("/data", "in /data, and outputs/data", "in path/to/data, and outputs/data"),
        ("/", "1/2 of /home/x", "1/2 of /home/x"),
        ("~\\0", "of nobody's home", "of nobody's home"),
        ("shapes", "shapes in outputs/shapes", "shapes in outputs/shapes"),
    ],
)
def test_where_a_person_keeps_things_is_not_shown_in_outputs(
    run, given, printed, shown, monkeypatch
):
    monkeypatch.setenv("HOME", "/home/alice")

    def say(notebook):
        notebook.cells[3].outputs[0].text = printed
        notebook.cells[4].outputs[0].data["text/markdown"] = f"In {printed}."

    change(run, "03_training", say)
    change(run, "01_data_exploration", inserted(f'# Parameters\nepochs = "{given}"\n'))
    chapters = book.chapters_of(run)
    assert chapters["03_training"].cells[3].outputs[0].text == shown
    texts = "".join(nbformat.writes(chapter) for chapter in chapters.values())
    assert "alice" not in texts.lower()


def test_the_longest_path_that_settings_name_counts_and_the_run_s_own_place(run):
    settings = {"data_dir": "/mnt/bob", "dataset": "/mnt/bob/pets"}
    run.update_record(**valid_record(**settings))

    def say(notebook):
        notebook.cells[3].outputs[0].text = f"/mnt/bob/pets in /mnt/bob, {run.folder}"

    change(run, "03_training", say)
    text = book.chapters_of(run)["03_training"].cells[3].outputs[0].text
    assert text == f"path/to/pets in path/to/bob, path/to/{run.folder.parent.name}/made"


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("/home/somebody/pets.zip", "path/to/pets.zip"),
        (r"C:\\Users\\Somebody\\pets", "path/to/pets"),
        (f"{ROOT}/data/pets.zip", "data/pets.zip"),
        ("../pets", "../pets"),
        ("cifar10", "cifar10"),
    ],
)
def test_where_a_person_keeps_pictures_is_not_shown(run, given, shown):
    change(run, "03_training", inserted(f'# Parameters\nepochs = "{given}"\n'))
    cell = book.chapters_of(run)["03_training"].cells[3]
    assert cell.source == f'# Parameters\nepochs = "{shown}"\n'


def test_the_kept_chapters_say_nothing_of_a_machine():
    kept = list(book.RENDERED.glob("*.ipynb"))
    assert len(kept) == len(NOTEBOOKS)
    for path in kept:
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.id == "injected-parameters":
                assert not re.search(r"""=\s*["'](/|[A-Z]:)""", cell.source), cell.source


@pytest.mark.parametrize(
    "source",
    [
        "import os", "epochs = os.getcwd()", "epochs: int = 3", "epochs = seed = 3", "x = 3",
        "epochs = [3]", "epochs = 3\nprint(epochs)", "epochs.x = 3", "epochs = (", "epochs = 1j",
        "epochs = " + 9_000 * "-" + "1", "epochs = '" + 10_000 * "a" + "'",
    ],
)  # fmt: skip
def test_a_cell_that_papermill_did_not_write_is_refused(run, source):
    change(run, "03_training", inserted(source))
    with pytest.raises(InputError, match=r"03_training\.ipynb, cell 4 of 6, is not that of this"):
        book.chapters_of(run)


CHANGES = {
    "other text": lambda nb: nb.cells[0].update(source="# 3 · Chapter\n\n```{eval-rst}\n```"),
    "other code": lambda nb: nb.cells[3].update(source="show(1)"),
    "a cell more": lambda nb: nb.cells.append(new_markdown_cell("```{include} /etc/passwd\n```")),
    "two cells more": lambda nb: nb.cells.extend([new_markdown_cell("a"), new_markdown_cell("b")]),
    "a cell less": lambda nb: nb.cells.pop(3),
    "another order": lambda nb: nb.cells.reverse(),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_cells_that_are_not_this_repositorys_are_refused(run, kind):
    change(run, "03_training", CHANGES[kind])
    with pytest.raises(InputError, match=r"03_training\.ipynb, cell \d of \d, is not that of this "
                       r"version's chapter.* --run-name made --only 03"):  # fmt: skip
        book.chapters_of(run)


def test_a_chapter_that_is_a_link_or_without_end_is_refused(run, monkeypatch):
    path = run.path("notebooks", "03_training.ipynb")
    monkeypatch.setattr(book, "MOST_OF_A_NOTEBOOK", path.stat().st_size - 1)
    with pytest.raises(InputError, match=r"01_data_exploration\.ipynb is a link, or has more than"):
        book.chapters_of(run)
    monkeypatch.undo()
    path.unlink()
    path.symlink_to(NOTEBOOKS["03_training"])
    with pytest.raises(InputError, match=r"03_training\.ipynb is a link"):
        book.chapters_of(run)


def test_kept_chapters_of_an_earlier_version_are_shown_without_what_could_act(
    run, tmp_path, monkeypatch
):
    monkeypatch.setattr(book, "RENDERED", tmp_path / "rendered")
    keep_chapters(run, tmp_path / "rendered")
    kept = book.kept_chapters()
    assert kept == book.chapters_of(run)
    path = tmp_path / "rendered" / "03_training.ipynb"
    notebook = nbformat.read(path, 4)
    notebook.cells[
        0
    ].source = (
        f"# 3 · As it *was*\n\nSee [this](03_training.ipynb).\n\n[![x]({BADGE})](javascript:x)"
    )
    notebook.cells.insert(1, new_markdown_cell(
        "```{eval-rst}\n.. automodule:: x\n```\n\n![](attachment:x.svg)",
        attachments={"x.svg": {"image/svg+xml": "<svg/>"}}, metadata={"mystnb": {"a": 1}},
    ))  # fmt: skip
    notebook.metadata.mystnb = {"execution_mode": "force"}
    nbformat.write(notebook, path)
    changed = book.kept_chapters()["03_training"]
    assert changed.cells[0].source == "# 3 · As it *was*\n\nSee [this](03_training.ipynb)."
    assert "attachments" not in changed.cells[1] and not changed.cells[1].metadata
    assert "{eval-rst}\n" not in changed.cells[1].source and "![" not in changed.cells[1].source
    assert set(changed.metadata) == {"kernelspec", "language_info"}


def test_a_run_from_before_the_repository_had_an_address_is_shown(run, monkeypatch):
    for folder, repo in ((run.path("notebooks"), ""), (run.folder.parent / "own", "a/b")):
        for path in folder.glob("*.ipynb"):
            notebook = nbformat.read(path, 4)
            notebook.cells[0].source = with_badge("# Title", repo, path.name, "02_lr_finder.ipynb")
            notebook.cells[1].source = first_cell(clone_address(repo))
            nbformat.write(notebook, path)
    with pytest.raises(InputError, match="cell 2 of 5, is not that of this"):
        book.chapters_of(run)  # it is another project's cell as long as this one has no address
    monkeypatch.setattr(book, "repository", lambda: "a/b")
    assert book.chapters_of(run)["03_training"].cells[1].source == first_cell(clone_address("a/b"))


def test_every_chapter_of_the_site_has_todays_badge_if_there_is_an_address(
    run, tmp_path, monkeypatch
):
    for repo in ("", "a/b"):
        monkeypatch.setattr(book, "repository", lambda repo=repo: repo)
        source = tmp_path / f"source{repo[:1]}"
        book._lay_out(source, book.chapters_of(run))
        for name in NOTEBOOKS:
            title = nbformat.read(source / "rendered" / f"{name}.ipynb", 4).cells[0].source
            assert title.count(f"/github/{repo}/blob/main/notebooks/") == (2 if repo else 0)
            assert ("open-in-colab.svg" in title) == bool(repo) and BADGE not in title


@pytest.mark.parametrize("arguments", [["docs", "--run", "nobody"], ["results", "nobody"]])
def test_the_commands_say_which_run_is_missing(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert "'nobody' does not exist" in str(stopped.value)


@pytest.mark.parametrize("content", ["", "{", '{"cells": 3}', "[]"])
def test_what_is_no_notebook_is_named(run, content):
    run.path("notebooks", "01_data_exploration.ipynb").write_text(content)
    with pytest.raises(InputError, match=r"01_data_exploration\.ipynb is not a notebook"):
        book.chapters_of(run)


@pytest.fixture
def site(built_site):
    """The whole site, with the chapters that are kept."""
    return built_site


def test_titles_and_order_come_from_the_chapters_themselves(site):
    page = (site / "index.html").read_text()
    titles = [nbformat.read(path, 4).cells[0].source.splitlines()[0].removeprefix("# ")
              for path in NOTEBOOKS.values()]  # fmt: skip
    places = [page.index(title) for title in titles]
    assert places == sorted(places)


def test_every_link_within_the_site_leads_somewhere(site):
    pages = {path.resolve(): path.read_text() for path in site.rglob("*.html")}
    checked = 0
    for path, text in pages.items():
        for target in re.findall(r'(?:href|src)="([^"]+)"', text):
            address, _, anchor = target.partition("#")
            if re.match(r"[a-z]+:", address):
                continue
            found = (path.parent / address.split("?")[0]).resolve() if address else path
            assert found.exists(), f"{path.name} links to {target}"
            if anchor and found in pages:
                assert f'id="{anchor}"' in pages[found], f"{path.name} links to {target}"
            checked += 1
    assert checked > 1_000


def test_nothing_is_fetched_from_elsewhere_and_no_page_is_heavy(site):
    for path in site.rglob("*.html"):
        text = path.read_text()
        fetched = re.findall(r'<(?:script|img|source)[^>]+src="([^"]+)"', text)
        fetched += re.findall(
            r'<link[^>]+rel="(?:stylesheet|preload|icon)"[^>]+href="([^"]+)"', text
        )
        assert not [address for address in fetched if re.match(r"(https?:)?//", address)], path
        local = {(path.parent / address.split("?")[0]).resolve() for address in fetched}
        assert path.stat().st_size + sum(p.stat().st_size for p in local) < 3_000_000, path


def test_every_picture_of_a_chapter_says_what_it_shows(site):
    for path in (site / "rendered").glob("0*.html"):
        page = path.read_text().partition("<article")[2].partition("</article>")[0]
        said = re.findall(r'<img alt="([^"]*)"', page)
        assert said and len(said) == page.count("<img ")
        assert not [alt for alt in said if not alt or "/" in alt], path


def test_the_site_describes_every_module(site):
    described = {path.stem for path in (site / "api").glob("utils*.html")}
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
               for path in (ROOT / "utils").rglob("*.py")}  # fmt: skip
    assert described == modules - {"utils.__main__"}


@pytest.mark.slow
def test_a_warning_of_sphinx_fails_the_build_and_the_old_site_stays(run, tmp_path, monkeypatch):
    pages = tmp_path / "pages"
    pages.mkdir()
    (pages / "conf.py").write_text("extensions = ['myst_nb']\nnb_execution_mode = 'off'\n")
    (pages / "index.md").write_text("# Book\n\n[gone](nowhere.md)\n")
    monkeypatch.setattr(book, "DOCS", pages)
    target = tmp_path / "site"
    target.mkdir()
    (target / "old.html").write_text("old")
    with pytest.raises(InputError, match="The book was not made"):
        book.build_site(run, target)
    assert [path.name for path in target.iterdir()] == ["old.html"]
    assert [path.name for path in tmp_path.glob("book-*")] == []


def test_the_kept_chapters_hold_no_state_of_widgets_and_no_error():
    chapters = book.executed_chapters(book.RENDERED)
    sizes = [len(json.dumps(notebook)) for notebook in chapters.values()]
    assert max(sizes) <= book.MOST_OF_A_CHAPTER and sum(sizes) <= book.MOST_OF_ALL
    for notebook in chapters.values():
        assert "widgets" not in notebook.metadata
        assert "application/vnd.jupyter.widget-view+json" not in json.dumps(notebook)


# What is said of the reference run


NUMBER = re.compile(r"(?<![\w.,])\d+(?:[.,]\d+)+(?!\w)|(?<![\w.,])\d{3,}(?![\w,.]\d)")


def said_in_chapter(digit):
    (path,) = book.RENDERED.glob(f"0{digit}_*.ipynb")
    cells = nbformat.read(path, as_version=4).cells
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    return " ".join([cell.source for cell in cells] + [json.dumps(output) for output in outputs])


def test_every_figure_quoted_of_the_reference_run_stands_where_it_is_from():
    sections = re.split(
        r"^## \[(\d) · .*?$", (book.DOCS / "reference_run.md").read_text(), flags=re.M
    )[1:]
    assert sections[::2] == list("123456")
    chapters = {digit: said_in_chapter(digit) for digit in sections[::2]}
    elsewhere = "\n".join([*chapters.values(), (book.DOCS / "results.md").read_text()])
    for digit, text in zip(sections[::2], sections[1::2], strict=True):
        quoted = NUMBER.findall(re.sub(r"\]\([^)]*\)", "]", text.split("\n## ")[0]))
        assert sum(number in chapters[digit] for number in quoted) >= 2
        assert [number for number in quoted if number not in elsewhere] == []
