"""The results of several runs, as they are written into pages."""

import html
import json
import re
import shutil
import statistics

import pytest
from markdown_it import MarkdownIt
from PIL import Image

from helpers.training import SmallDavidNet, make_pictures
from utils import InputError
from utils.cli import main
from utils.data.epochs import pictures_per_epoch
from utils.files import write_files
from utils.models.registry import MODELS
from utils.publish import book, results, safe_outputs
from utils.publish.results import BEGIN, END, FIGURES, results_of
from utils.runs import HISTORY_COLUMNS, Run
from utils.training.fit import fit
from utils.training.history import TRAINING_TIME
from utils.training.plan import plan_training
from utils.training.recipes import RECIPES


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """One run of a recipe, and two of another that averages over views."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "davidnet", SmallDavidNet)
        patch.setitem(MODELS, "speednet", SmallDavidNet)
        made = []
        for recipe, seed in (("quick", 0), ("fast", 0), ("fast", 1)):
            plan = plan_training(
                make_pictures(), run_name=f"{recipe}{seed}", output_dir=folder, recipe=recipe,
                epochs=1, batch_size=8, views=2 if recipe == "fast" else 1, seed=seed,
                devices="cpu",
            )  # fmt: skip
            made.append(fit(plan))
    made[0].path("figures").mkdir()
    for name in FIGURES:
        Image.linear_gradient("L").convert("RGB").save(made[0].path("figures", f"{name}.png"))
    return made


@pytest.fixture
def pages(tmp_path):
    (tmp_path / "docs").mkdir()
    pages = [tmp_path / "README.md", tmp_path / "docs" / "results.md"]
    for page in pages:
        page.write_text(f"# Before\n\n{BEGIN}\nold text\n{END}\n\nafter\n")
    return pages


def write_results(*given):
    write_files(results_of(*given))


def rows(page):
    lines = [line for line in page.read_text().splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: row[1:] for row in cells}


def test_every_figure_of_the_table_is_read_from_the_runs(runs, pages, tmp_path):
    write_results(runs[0], runs[1:], pages, tmp_path / "docs" / "results")
    table = rows(pages[0])
    assert table[""] == ["the original, as it logged", "`quick`, here", "`fast`, here"]
    assert table["n"] == ["1", "1", "2"]
    metrics = [run.read_json("metrics.json") for run in runs]
    assert table["accuracy on test pictures"][1] == f"{100 * metrics[0]['test_acc']:.2f} %"
    both = [100 * m["test_acc"] for m in metrics[1:]]
    expected = f"{statistics.mean(both):.2f} ± {statistics.stdev(both):.2f} %"
    assert table["accuracy on test pictures"][2] == expected
    both = [100 * m["averaged"]["test_acc"] for m in metrics[1:]]
    expected = f"{statistics.mean(both):.2f} ± {statistics.stdev(both):.2f} %"
    expected += f" (2 views, {runs[1].record['precision']})"
    assert table["averaged over views"] == ["–", "–", expected]
    assert table["loss on test pictures"][1] == f"{metrics[0]['test_loss']:.3f}"
    assert table["epochs"] == ["20", "1", "1"]
    last = runs[0].read_csv("metrics.csv", HISTORY_COLUMNS)[-1]
    shown = pictures_per_epoch(44, RECIPES["quick"].skipped)
    pooled = (shown * last["train_acc"] + 33 * last["val_acc"]) / (shown + 33)
    assert table["as the original logged it, pooled"][:2] == ["93.2 %", f"{100 * pooled:.2f} %"]
    assert f"{runs[0].record['model']['parameters']:,} parameters" in table["network"][1]
    assert table["data set"][1] == "drawn"


def test_both_pages_get_the_same_and_keep_what_stands_around_it(runs, pages, tmp_path):
    write_results(runs[0], runs[1:], pages, tmp_path / "docs" / "results")
    texts = [page.read_text() for page in pages]
    assert all(text.startswith("# Before\n\n" + BEGIN) for text in texts)
    assert all(text.endswith(END + "\n\nafter\n") and "old text" not in text for text in texts)
    assert texts[0].replace("](docs/results/", "](results/") == texts[1]
    for name in FIGURES:
        assert f"](docs/results/{name}.png)" in texts[0]
        assert (tmp_path / "docs" / "results" / f"{name}.png").stat().st_size > 100
    write_results(runs[0], runs[1:], pages, tmp_path / "docs" / "results")
    assert [page.read_text() for page in pages] == texts


def test_a_run_that_is_given_twice_counts_once(runs, pages, tmp_path):
    again = [Run(run.name, run.folder.parent) for run in runs]  # as a glob gives them
    write_results(runs[0], [*again, runs[2]], pages, tmp_path / "docs" / "results")
    table = rows(pages[0])
    assert table["n"] == ["1", "1", "2"]
    assert "±" not in table["accuracy on test pictures"][1]


def changed(run, folder, **settings):
    """A copy of a run that says it was trained with other settings."""
    shutil.copytree(run.folder, folder / run.name)
    copied = Run(run.name, folder)
    copied.update_record(settings={**run.settings, **settings})
    return copied


def test_runs_of_one_recipe_that_differ_in_more_than_the_seed_are_refused(runs, pages, tmp_path):
    other = changed(runs[2], tmp_path, model="speednet", epochs=3, data_dir="/mnt/elsewhere")
    with pytest.raises(InputError) as refusal:
        write_results(runs[0], [runs[1], other], pages, tmp_path / "docs" / "results")
    said = str(refusal.value)
    assert "Runs 'fast0' and 'fast1' of recipe 'fast' differ in more than the seed" in said
    for words in ("'speednet'", "epochs is 1 and 3"):
        assert words in said
    assert "data_dir" not in said and "seed is" not in said
    assert "old text" in pages[0].read_text()


@pytest.mark.parametrize("source", ["found", "given"])
def test_rates_that_each_seed_found_may_differ(source, runs, pages, tmp_path):
    first, other = (
        changed(run, tmp_path, max_lr_source=source, max_lr=rate)
        for run, rate in zip(runs[1:], (0.1, 0.2), strict=True)
    )
    given = runs[0], [first, other], pages, tmp_path / "docs" / "results"
    if source == "found":
        write_results(*given)
        assert rows(pages[0])["n"] == ["1", "1", "2"]
    else:
        with pytest.raises(InputError, match=r"\(max_lr is 0\.1 and 0\.2\)"):
            write_results(*given)


def test_columns_of_recipes_that_are_not_given_stay_as_they_were(runs, pages, tmp_path):
    folder = tmp_path / "docs" / "results"
    write_results(runs[0], runs[1:], pages, folder)
    both = rows(pages[0])
    write_results(runs[0], (), pages, folder)
    assert rows(pages[0]) == both
    kept = json.loads((folder / results.COLUMNS).read_text())
    (fingerprint,) = kept
    del kept[fingerprint]["fast"]["loss on test pictures"]  # of a version without that row
    kept[fingerprint]["fast"]["n"] = "7"
    kept["other pictures"] = {"speed": kept[fingerprint]["fast"]}
    (folder / results.COLUMNS).write_text(json.dumps(kept))
    write_results(runs[0], (), pages, folder)
    table = rows(pages[0])
    assert table["n"] == ["1", "1", "7"]
    assert table["loss on test pictures"][2] == "–"
    assert "other pictures" in json.loads((folder / results.COLUMNS).read_text())
    (folder / results.COLUMNS).write_text("{")
    with pytest.raises(InputError, match=r"columns\.json does not hold the columns"):
        write_results(runs[0], (), pages, folder)


def test_a_page_without_a_place_for_results_is_named(runs, pages, tmp_path):
    pages[1].write_text("# Nothing\n")
    with pytest.raises(InputError, match=r"results\.md has no place for results"):
        write_results(runs[0], (), pages, tmp_path / "docs" / "results")
    assert pages[1].read_text() == "# Nothing\n" and "old text" in pages[0].read_text()
    assert not (tmp_path / "docs" / "results").exists()


def test_what_the_results_refuse_keeps_no_chapter(runs, tmp_path, monkeypatch):
    chapter = tmp_path / "03_training.ipynb"
    monkeypatch.setattr(book, "chapters_to_keep", lambda run: {chapter: "text"})
    with pytest.raises(SystemExit, match="is not trained"):
        main(["results", str(runs[0].folder), str(tmp_path / "nobody")])
    assert not chapter.exists()


def test_runs_of_one_recipe_on_different_hardware_are_refused(runs, pages, tmp_path):
    other = changed(runs[2], tmp_path)
    other.update_record(device={**other.record["device"], "name": "a faster one"})
    with pytest.raises(InputError, match=r"\(hardware is '.*' and 'a faster one'\)"):
        write_results(runs[0], [runs[1], other], pages, tmp_path / "docs" / "results")


def test_runs_on_other_pictures_are_not_compared(runs, pages, tmp_path):
    other = Run("other", tmp_path)
    other.folder.mkdir()
    for path in runs[1].folder.iterdir():
        if path.is_file() and not path.name.startswith("."):
            (other.folder / path.name).write_bytes(path.read_bytes())
    other.update_record(data={**other.record["data"], "fingerprint": "0"})
    with pytest.raises(InputError, match="'quick0' and 'other' were trained on different pictures"):
        write_results(runs[0], [other], pages, tmp_path / "docs" / "results")


def test_a_run_that_is_not_trained_or_lacks_a_figure_is_named(runs, pages, tmp_path):
    with pytest.raises(InputError, match=r"'nobody' .* is not trained"):
        write_results(runs[0], [Run("nobody", tmp_path)], pages, tmp_path / "docs" / "results")
    with pytest.raises(InputError, match=r"06_misclassified\.png does not exist"):
        write_results(runs[1], (), pages, tmp_path / "docs" / "results")
    assert "old text" in pages[0].read_text()


@pytest.fixture
def stranger(runs, tmp_path):
    """A copy of a run that may have come from anywhere."""
    shutil.copytree(runs[0].folder, tmp_path / "stranger")
    return Run("stranger", tmp_path)


def test_names_that_a_run_brings_are_shown_as_they_are(stranger, pages, tmp_path):
    evil = f"a | b `c` <script>x</script> ![x](//evil) [y](javascript:x) {END} --- $5 {{eval}}`x`"
    record = stranger.record
    stranger.update_record(data={**record["data"], "title": evil}, device={
        **record["device"], "name": evil,
    })  # fmt: skip
    write_results(stranger, (), pages, tmp_path / "docs" / "results")
    write_results(stranger, (), pages, tmp_path / "docs" / "results")  # the page's end is found
    shown = MarkdownIt("commonmark").enable("table").render(pages[0].read_text())
    assert shown.count("<th>") == 3
    assert "<script" not in shown and "javascript:x)" in shown
    assert re.findall(r'(?:src|href)="([^"]*)"', shown) == [
        f"docs/results/{name}.png" for name in FIGURES
    ]
    assert rows(pages[0])["n"] == ["1", "1"] and "\nafter" in pages[0].read_text()
    cells = html.unescape(shown)
    assert f"<td>{evil}</td>" in cells and f"<td>{evil}, {record['precision']}</td>" in cells


@pytest.mark.parametrize("kind", ["text", "jpeg", "svg", "huge"])
def test_a_figure_that_is_no_picture_of_a_chapter_is_refused(
    kind, stranger, pages, tmp_path, monkeypatch
):
    path = stranger.path("figures", "04_losses.png")
    if kind == "jpeg":
        Image.new("RGB", (9, 9)).save(path, "JPEG")
    elif kind == "huge":
        monkeypatch.setattr(safe_outputs, "MOST_PIXELS", 256 * 256 - 1)
    else:
        path.write_text({"text": "the secret", "svg": "<svg onload='x'/>"}[kind])
    with pytest.raises(
        InputError, match=r"0(\d)_[a-z]+\.png is not a PNG picture .* chapter 0\1 again"
    ):
        write_results(stranger, (), pages, tmp_path / "docs" / "results")
    assert "old text" in pages[0].read_text()
    assert not (tmp_path / "docs" / "results").exists()


def test_a_network_that_nobody_knows_is_named(stranger, pages, tmp_path):
    stranger.update_record(model={**stranger.record["model"], "name": "evilnet"})
    with pytest.raises(InputError, match="model 'evilnet' is unknown"):
        write_results(stranger, (), pages, tmp_path / "docs" / "results")


def test_the_pages_say_today_s_words_and_begin_with_what_came_out():
    for page, folder in ((results.ROOT / "README.md", "docs/results"),
                         (results.DOCS / "results.md", "results")):  # fmt: skip
        block = page.read_text().partition(BEGIN)[2].partition(END)[0]
        assert TRAINING_TIME in block
        assert re.findall(r"^!.*$", block, re.MULTILINE) == [
            line.strip() for line in results._shown(folder)
        ]
    assert next(iter(FIGURES)) == "06_misclassified"
    meaning = TRAINING_TIME.removeprefix("Training time is ")
    start = " ".join((results.DOCS / "index.md").read_text().split())
    assert f"**Training time:** {meaning}" in start


def test_the_pages_of_the_project_have_a_place_for_results():
    for page in (results.ROOT / "README.md", results.DOCS / "results.md"):
        assert page.read_text().count(BEGIN) == page.read_text().count(END) == 1
    assert RECIPES["original"].epochs == int(results.ORIGINAL["epochs"])
