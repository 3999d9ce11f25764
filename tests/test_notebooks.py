"""The notebooks: as they are stored, and as they run."""

import ast
import re
import shutil
import subprocess
import sys

import nbformat
import numpy as np
import pytest
from PIL import Image

from helpers.notebooks import code_cells
from utils.cli import main
from utils.files import ROOT
from utils.pipeline.sequence import CHAPTERS, COMPARISON, NOTEBOOKS
from utils.runs import Run

EVERYWHERE = {"run_name", "output_dir", "data_dir", "dataset", "seed"}
#: What the chapter about many runs has in the place of a run's name and seed.
OF_MANY = {"runs", "comparison", "group_by", "groups"}
CONTRACT = EVERYWHERE | {
    "overwrite", "dataset_title", "image_size", "val_fraction", "balanced", "limit_train",
    "limit_test", "skip_unreadable", "labels_from", "keep_together", "model", "recipe", "epochs",
    "batch_size", "max_lr", "views", "weights", "precision", "devices", "num_nodes", "strategy",
    "method", "block",
}  # fmt: skip


def parameters_cell(notebook):
    (cell,) = [c for c in code_cells(notebook) if "parameters" in c.metadata.get("tags", [])]
    return cell


@pytest.fixture(params=list(CHAPTERS))
def stored(request):
    return nbformat.read(CHAPTERS[request.param], as_version=4)


def test_there_are_six_in_order_and_one_about_many_runs():
    assert list(NOTEBOOKS) == [
        "01_data_exploration", "02_lr_finder", "03_training",
        "04_curves", "05_misclassified", "06_gradcam",
    ]  # fmt: skip
    assert list(CHAPTERS) == [*NOTEBOOKS, COMPARISON] and COMPARISON == "07_compare"


def test_stored_without_outputs_counts_or_machine_metadata(stored):
    nbformat.validate(stored)
    for cell in code_cells(stored):
        assert cell.outputs == []
        assert cell.execution_count is None
    assert stored.metadata.kernelspec.name == "python3"
    assert set(stored.metadata) == {"kernelspec", "language_info"}
    assert set(stored.metadata.language_info) == {"name"}


def test_tells_a_story_and_defines_nothing(stored):
    assert stored.cells[0].cell_type == "markdown"
    assert stored.cells[0].source.startswith("# ")
    assert "at the end you will know" in stored.cells[0].source.lower()
    for cell in code_cells(stored):
        assert not re.search(r"^\s*(def|class|async def) ", cell.source, re.MULTILINE)
        if "parameters" not in cell.metadata.get("tags", []):
            assert len(cell.source.splitlines()) <= 15
            assert "fmt: skip" not in cell.source and "end=" not in cell.source
        if "hide-input" not in cell.metadata.get("tags", []):
            assert len(cell.source.splitlines()) <= 10


SHOWN_SOURCE = {
    "03_training": ("class ConvBlock(", "class DavidNet(", "def training_step("),
    "06_gradcam": ("def grad_cam(",),
}


@pytest.mark.parametrize("name", SHOWN_SOURCE)
def test_what_a_chapter_is_about_is_shown_as_python(tiny_run, name):
    notebook = nbformat.read(tiny_run.path("notebooks", f"{name}.ipynb"), as_version=4)
    shown = [output.get("data", {}).get("text/markdown", "") for output in outputs(notebook)]
    blocks = "\n".join(text for text in shown if text.startswith("```python\n"))
    for begin in SHOWN_SOURCE[name]:
        assert begin in blocks


def test_grad_cam_by_hand_is_that_of_the_figures(tiny_run):
    notebook = nbformat.read(tiny_run.path("notebooks", "06_gradcam.ipynb"), as_version=4)
    texts = "".join(o.text for o in outputs(notebook) if o.output_type == "stream")
    (said,) = re.findall(r"Largest difference at any pixel: (\S+) of", texts)
    assert float(said) < 0.01


def test_parameters_are_plain_literals_with_a_comment_each(stored):
    cell = parameters_cell(stored)
    assert code_cells(stored)[1] is cell
    for line in cell.source.splitlines():
        assert re.fullmatch(r"[a-z_]+ = (None|True|False|[\d.]+|\"[\w/]*\")  # .+", line), line
    names = {line.split(" = ")[0] for line in cell.source.splitlines()}
    is_of_many = "runs" in names
    assert names >= (EVERYWHERE - {"run_name", "seed"} | OF_MANY if is_of_many else EVERYWHERE)


def test_parameter_names_are_those_of_the_contract():
    taken = set()
    for path in CHAPTERS.values():
        cell = parameters_cell(nbformat.read(path, as_version=4))
        taken |= {line.split(" = ")[0] for line in cell.source.splitlines()}
    own = {name for name in taken if name.startswith("show_")} | {"lr_steps", "judged_pictures"}
    assert taken - own == CONTRACT | OF_MANY


def test_each_chapter_points_to_the_next():
    paths = list(NOTEBOOKS.values())
    for path, following in zip(paths, [*paths[1:], paths[0]], strict=True):
        *_, last, versions = nbformat.read(path, as_version=4).cells
        assert f"]({following.name})" in last.source
        assert versions.source == "print(describe_versions())"
        assert "hide-input" in versions.metadata.tags


def links(text):
    return re.findall(r"\]\(([^()\s]+)\)", text)


def leads_somewhere(target, folder):
    return target.startswith("https://") or (folder / target).is_file()


def test_a_chapter_links_to_chapters_beside_it_and_only_names_pages(stored):
    """It is read here, in a run's folder, in the book and on GitHub: beside it are the others."""
    text = "\n".join(cell.source for cell in stored.cells)
    others = {path.name for path in NOTEBOOKS.values()}
    assert all(link in others or link.startswith("https://") for link in links(text))
    assert all((ROOT / page).is_file() for page in re.findall(r"`(docs/[^`]+)`", text))


def test_the_chapter_about_many_runs_ends_with_what_to_read_next():
    *_, last, versions = nbformat.read(CHAPTERS[COMPARISON], as_version=4).cells
    assert "Next: " in last.source and "05_misclassified.ipynb" in last.source
    assert versions.source == "print(describe_versions())"


# Executed


def outputs(notebook):
    return [output for cell in code_cells(notebook) for output in cell.outputs]


def last_words(notebook):
    """What a chapter says last, before the versions that it ran with, in one piece or several."""
    *_, last = (output for output in outputs(notebook) if output.output_type != "stream")
    return str(last.data)


@pytest.mark.parametrize("name", list(NOTEBOOKS))
def test_every_link_of_an_executed_chapter_leads_somewhere(tiny_run, name):
    path = tiny_run.path("notebooks", f"{name}.ipynb")
    notebook = nbformat.read(path, as_version=4)
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    texts += [output.get("data", {}).get("text/markdown", "") for output in outputs(notebook)]
    found = [link for text in texts if "```python" not in text for link in links(text)]
    assert found and all(leads_somewhere(link, path.parent) for link in found)


@pytest.mark.parametrize("name", list(NOTEBOOKS))
def test_the_versions_stand_at_the_end_and_nowhere_else(tiny_run, name):
    notebook = nbformat.read(tiny_run.path("notebooks", f"{name}.ipynb"), as_version=4)
    texts = [output.get("text", "") for output in outputs(notebook)]
    assert [n for n, text in enumerate(texts) if "torchvision " in text] == [len(texts) - 1]


@pytest.mark.parametrize("name", list(NOTEBOOKS))
def test_executed_notebook_is_quiet_and_holds_no_widgets(tiny_run, name):
    notebook = nbformat.read(tiny_run.path("notebooks", f"{name}.ipynb"), as_version=4)
    assert "widgets" not in notebook.metadata
    for output in outputs(notebook):
        assert output.output_type != "error"
        assert output.get("name") != "stderr", output.text
        assert not [kind for kind in output.get("data", {}) if "widget" in kind]
    assert all(cell.execution_count for cell in code_cells(notebook))
    first, parameters, *_ = code_cells(notebook)
    assert first.outputs == parameters.outputs == []
    texts = [o.text for o in outputs(notebook) if o.output_type == "stream"]
    assert not any(text.strip() == "" or "\n\n" in text for text in texts)


def names_called(node):
    return {getattr(call.func, "attr", getattr(call.func, "id", "")) for call in calls(node)}


def calls(node):
    return [inner for inner in ast.walk(node) if isinstance(inner, ast.Call)]


@pytest.mark.parametrize("name", list(CHAPTERS))
def test_every_figure_that_is_kept_is_shown(name):
    """Jupyter shows a cell's last expression; a figure kept within a branch shows nothing."""
    notebook = nbformat.read(CHAPTERS[name], as_version=4)
    cells = [ast.parse(cell.source).body for cell in code_cells(notebook)]
    keeping = [body for body in cells if any("figure" in names_called(each) for each in body)]
    assert keeping
    for body in keeping:
        is_last = isinstance(body[-1], ast.Expr) and "figure" in names_called(body[-1])
        asked = [names_called(call) for statement in body for call in calls(statement)]
        assert is_last or any({"display", "figure"} <= names for names in asked)


def test_every_figure_shown_is_kept_and_has_ink(tiny_run):
    shown = 0
    for name in NOTEBOOKS:
        notebook = nbformat.read(tiny_run.path("notebooks", f"{name}.ipynb"), as_version=4)
        shown += sum("image/png" in output.get("data", {}) for output in outputs(notebook))
    figures = sorted(tiny_run.path("figures").glob("*.png"))
    assert len(figures) == shown >= 23
    for path in figures:
        pixels = np.asarray(Image.open(path).convert("RGB"))[::3, ::3]
        background = (pixels == pixels[0, 0]).all(axis=-1).mean()
        assert 1 - background > 0.02, f"{path.name} is nearly blank"
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20


def test_every_figure_shown_says_what_it_shows(tiny_run):
    title = tiny_run.record["data"]["title"]
    for name in NOTEBOOKS:
        notebook = nbformat.read(tiny_run.path("notebooks", f"{name}.ipynb"), as_version=4)
        shown = [output for output in outputs(notebook) if "image/png" in output.get("data", {})]
        for output in shown:
            said = output.metadata["image/png"]["alt"]
            assert title in said and said.endswith("."), (name, said)


def test_the_run_is_complete_and_timed(tiny_run):
    record = tiny_run.record
    assert record["status"] == "complete"
    assert set(record["seconds"]) == {"training", "watching", *NOTEBOOKS}
    added = {"per_class", "calibration_error", "temperatures", "prediction_sets", "near_copies"}
    assert {*added, "maps"} <= set(tiny_run.read_json("metrics.json"))


@pytest.mark.parametrize("folder", [ROOT, ROOT / "notebooks"])
def test_runs_by_hand_from_the_root_and_from_its_own_folder(tiny_run, folder):
    from nbclient import NotebookClient

    notebook = nbformat.read(NOTEBOOKS["04_curves"], as_version=4)
    cell = parameters_cell(notebook)
    values = f'\nrun_name = "{tiny_run.name}"\noutput_dir = r"{tiny_run.folder.parent}"'
    cell.source += values
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, resources=resources, kernel_name="python3").execute()
    assert "Run **tiny**" in last_words(notebook)


def test_results_never_import_torch_in_the_curves(tiny_run):
    notebook = nbformat.read(NOTEBOOKS["04_curves"], as_version=4)
    _, parameters, *cells = code_cells(notebook)  # the first finds the package, and knows git
    assert parameters is parameters_cell(notebook)
    source = "\n".join(cell.source for cell in cells)
    values = f'run_name, output_dir = "tiny", r"{tiny_run.folder.parent}"\n'
    values += "data_dir = dataset = seed = None\n"
    check = "\nimport sys\nassert 'torch' not in sys.modules, 'torch was imported'"
    subprocess.run([sys.executable, "-c", values + source + check], cwd=ROOT, check=True)


def test_plain_papermill_runs_a_notebook(tiny_run, tmp_path):
    shutil.copytree(tiny_run.folder, tmp_path / "copy")
    command = [sys.executable, "-m", "papermill", str(NOTEBOOKS["04_curves"])]
    command += [str(tmp_path / "out.ipynb"), "-p", "run_name", "copy"]
    command += ["-p", "output_dir", str(tmp_path), "-p", "seed", "0"]
    shutil.rmtree(tmp_path / "copy" / "figures")
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert Run("copy", tmp_path).path("figures", "04_accuracies.png").exists()
    executed = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    assert "Run **copy**" in last_words(executed)


# The chapter about many runs


@pytest.fixture(scope="module")
def compared(tiny_run, tmp_path_factory):
    """A comparison of three copies of the tiny run, one of which is wrong more often."""
    folder = tmp_path_factory.mktemp("compared")
    for seed, recipe in ((0, "quick"), (1, "quick"), (0, "speed")):
        run = Run(f"{recipe}-seed{seed}", folder)
        shutil.copytree(tiny_run.folder, run.folder, ignore=shutil.ignore_patterns("notebooks"))
        run.update_record(
            name=run.name, settings={**tiny_run.settings, "seed": seed, "recipe": recipe}
        )
    arrays = run.read_arrays("predictions.npz")
    arrays["predicted"][::2] = (arrays["target"][::2] + 1) % 10
    run.write_arrays("predictions.npz", **arrays)
    main(["compare", "--runs", str(folder), "--output-dir", str(folder), "--comparison", "both"])
    return Run("both", folder)


def test_many_runs_are_compared_headless_into_a_folder_of_their_own(compared):
    notebook = nbformat.read(compared.path("notebooks", f"{COMPARISON}.ipynb"), as_version=4)
    for output in outputs(notebook):
        assert output.output_type != "error" and output.get("name") != "stderr"
    texts = "".join(o.text for o in outputs(notebook) if o.output_type == "stream")
    assert "3 runs on drawn shapes, tested on the same 80 pictures, in 2 groups" in texts
    assert "speed less quick: -" in texts
    assert "speed** less **quick" in last_words(notebook)
    assert not compared.has("run.json")
    kept = {path.name for path in compared.folder.iterdir() if path.is_file()}
    tables = {
        f"{name}.{kind}" for name in ("runs", "curves", "pictures") for kind in ("csv", "parquet")
    }
    assert kept - {".lock"} == {*tables, "comparison.json"}


def test_its_figures_are_kept_and_say_what_they_show(compared):
    notebook = nbformat.read(compared.path("notebooks", f"{COMPARISON}.ipynb"), as_version=4)
    shown = [output for output in outputs(notebook) if "image/png" in output.get("data", {})]
    assert len(shown) == len(list(compared.path("figures").glob("07_*.png"))) == 5
    for output in shown:
        said = output.metadata["image/png"]["alt"]
        assert "drawn shapes" in said and said.endswith("."), said
    pictures = shown[-1].metadata["image/png"]["alt"]
    assert "small pictures" in pictures  # which could be read again


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--runs", "FOLDER/none"], "there is no folder"),
        (["--runs", "FOLDER"], "there is no trained run"),
        (["--runs", "FOLDER", "--comparison", "../up"], "cannot name a folder"),
        (["--runs", "FOLDER", "--show-wrong", "0"], "show_wrong is 0"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_the_notebook_starts(arguments, said, tmp_path):
    given = [text.replace("FOLDER", str(tmp_path)) for text in arguments]
    with pytest.raises(SystemExit, match=f"error: .*{said}"):
        main(["compare", *given, "--output-dir", str(tmp_path)])
    assert list(tmp_path.iterdir()) == []
