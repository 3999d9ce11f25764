"""The command line: what is refused before work starts, and what is printed."""

import csv
import io
import os
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from helpers.pictures import make_folder
from utils import cli
from utils.cli import _print_csv, main
from utils.data.sources import bytes_to_keep, load_pictures
from utils.pipeline import sequence


@pytest.fixture
def no_kernel(monkeypatch):
    """Fail if any notebook is started."""

    def refuse(*arguments):
        raise AssertionError("a notebook was started")

    monkeypatch.setattr(sequence, "_execute", refuse)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("epoch", "5", ("'epoch'", "epochs", "batch_size")),
        ("recipe", "fastest", ("'fastest'", "original", "quick")),
        ("dataset", "cifar11", ("'cifar11'", "shapes", "cifar10")),
        ("model", "resnet", ("'resnet'", "davidnet")),
        ("method", "gradcam3", ("'gradcam3'", "gradcam++", "layercam")),
        ("block", "layer9", ("'layer9'", "layer3")),
        ("precision", "fp8", ("'fp8'", "bf16-mixed")),
        ("devices", "tpu", ("'tpu'", "cpu")),
        ("epochs", "0", ("epochs", "0", "from 1")),
        ("epochs", "2.5", ("epochs", "2.5", "whole number")),
        ("epochs", "many", ("epochs", "'many'")),
        ("batch_size", "-1", ("batch_size", "-1")),
        ("max_lr", "-0.1", ("max_lr", "-0.1")),
        ("max_lr", "fast", ("max_lr", "'fast'")),
        ("image_size", "8", ("image_size", "8")),
        ("image_size", "33", ("image_size", "33", "multiple of 8")),
        ("val_fraction", "1", ("val_fraction", "1")),
        ("limit_train", "0", ("limit_train", "0")),
        ("seed", "-1", ("seed", "-1")),
        ("seed", "one", ("seed", "'one'")),
        ("overwrite", "maybe", ("overwrite", "'maybe'")),
        ("show_pictures", "0", ("show_pictures", "0")),
        ("lr_steps", "1", ("lr_steps", "1")),
        ("run_name", "x", ("--run-name",)),
    ],
)
def test_refused_before_any_notebook_starts(no_kernel, tmp_path, name, value, said):
    with pytest.raises(SystemExit) as stopped:
        main(["run", "--output-dir", str(tmp_path), "-p", name, value])
    for words in said:
        assert words in str(stopped.value)
    assert list(tmp_path.iterdir()) == []


def test_what_the_disk_has_no_room_for_is_refused_before_any_notebook(
    no_kernel, tmp_path, monkeypatch
):
    usage = shutil.disk_usage(tmp_path)
    place = ["run", "--run-name", "r", "--output-dir", str(tmp_path / "out")]
    place += ["--data-dir", str(tmp_path / "data")]
    weights = 7 * 4 * 6_573_130
    for free, said in ((weights, "Training"), (weights + 30_000_000, "with a decoded copy")):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: usage._replace(free=free))
        with pytest.raises(
            SystemExit, match=rf"{said}.* needs 0\.2\d GB in .*, but only .* are free"
        ):
            main(place)
    archive = shutil.make_archive(
        str(tmp_path / "pets"), "zip", make_folder(tmp_path / "pets", {"ant": 3, "bee": 3})
    )
    size = sum(path.stat().st_size for path in (tmp_path / "pets").rglob("*.png"))

    def kept(dataset):
        return bytes_to_keep(dataset=dataset, data_dir=tmp_path / "data", image_size=32)

    folder, needed = kept(archive)
    assert (folder, needed) == (tmp_path / "data" / "cache", size)
    load_pictures(dataset=archive, data_dir=tmp_path / "data")
    assert kept(archive)[1] == 0
    assert kept(str(tmp_path / "pets"))[1] == 6 * 3 * 32**2
    assert kept("cifar10")[1] == 180_000_000 + 60_000 * 3_072
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "tab\t", "x" * 121])
def test_run_names_that_are_no_folder_name_are_refused(no_kernel, tmp_path, name):
    with pytest.raises(SystemExit, match="run_name"):
        main(["run", "--run-name", name, "--output-dir", str(tmp_path), "-p", "seed", "1"])


@pytest.fixture
def made_batches(monkeypatch):
    """The batches that were run, in whose place one run fails."""
    from utils.batch import batch

    made = []

    def note(of, workers, retry_failed, patience):
        made.append((of, retry_failed))
        return 1

    monkeypatch.setattr(batch, "run_batch", note)
    return made


def test_a_batch_is_asked_for_in_a_shell_or_in_a_file_and_fails_as_its_runs_do(
    made_batches, tmp_path
):
    (tmp_path / "pets").mkdir()
    (tmp_path / "batch.yaml").write_text(
        "name: b\n"
        f"output_dir: {tmp_path}\n"
        "grid: {recipe: [original, speed], seed: 1:10}\n"
        f"parameters: {{epochs: 5, dataset: {tmp_path}/./pets}}"
    )
    shell = ["--name", "b", "--output-dir", str(tmp_path), "--dataset", f"{tmp_path}/./pets"]
    shell += ["--grid", "recipe=original,speed", "--grid", "seed=1:10", "-p", "epochs", "5"]
    for given in (shell, [str(tmp_path / "batch.yaml")]):
        with pytest.raises(SystemExit) as stopped:
            main(["batch", *given, "--retry-failed"])
        assert stopped.value.code == 1
    (first, _), (second, retry_failed) = made_batches
    assert first == second and retry_failed and len(first.tasks) == 20
    assert first.folder == tmp_path / "b"
    assert first.tasks[1].parameters == {
        "seed": 1,
        "recipe": "speed",
        "epochs": 5,
        "dataset": str(tmp_path / "pets"),
    }


def test_a_plan_is_shown_without_a_run(made_batches, tmp_path, capsys):
    place = ["--output-dir", str(tmp_path)]
    main(["batch", "--name", "b", "--grid", "seed=1:3", *place, "--dry-run"])
    assert "3 runs in" in capsys.readouterr().out
    assert made_batches == [] and list(tmp_path.iterdir()) == []


def test_a_batch_for_gpus_is_planned_without_one_where_a_scheduler_has_them(
    made_batches, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("utils.devices._count_gpus", lambda: 0)
    given = ["batch", "--name", "b", "-p", "devices", "gpu", "--output-dir", str(tmp_path)]
    main([*given, "--scheduler", "tcp://x:1", "--dry-run"])
    assert "1 run in" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="torch finds no GPU here"):
        main([*given, "--dry-run"])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--grid", "seed=1:3"], "The batch has no name"),
        (["--name", "b", "--grid", "epoch=1"], "'epoch' is unknown"),
        (["--name", "b", "--grid", "epochs=0,1"], "epochs is 0"),
        (["--name", "b", "--grid", "seed=1", "-p", "seed", "2"], "seed is given more than once"),
        (["--name", "b", "-p", "overwrite", "true"], "overwrite cannot be given to a batch"),
        (["--name", "b", "--workers", "0"], "--workers is 0"),
        (["--name", "b", "--workers", "2", "--scheduler", "tcp://x:1"], "--workers are those of"),
    ],
)
def test_a_batch_that_cannot_be_run_is_refused(made_batches, tmp_path, given, said):
    with pytest.raises(SystemExit, match=said):
        main(["batch", *given, "--output-dir", str(tmp_path)])
    assert made_batches == [] and list(tmp_path.iterdir()) == []


def test_predict_prints_a_table_and_csv(tiny_run, tmp_path, capsys):
    from utils.data.sources import pictures_of

    picture_set = pictures_of(tiny_run)
    for position in range(3):
        pixels = picture_set.test.images[position].permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(tmp_path / f"{position}.png")
    place = ["--run", "tiny", "--output-dir", str(tiny_run.folder.parent)]
    main(["predict", *place, "--top", "2", str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert all(line.count("%") == 2 for line in lines)
    main(["predict", *place, "--csv", str(tmp_path / "0.png"), str(tmp_path / "2.png")])
    header, *rows = (line.split(",") for line in capsys.readouterr().out.splitlines())
    assert header == ["picture", "predicted", *picture_set.classes]
    assert [row[0] for row in rows] == [str(tmp_path / "0.png"), str(tmp_path / "2.png")]
    for row in rows:
        assert sum(map(float, row[2:])) == pytest.approx(1, abs=1e-4)


def test_a_class_that_a_spreadsheet_would_compute_is_written_as_text(capsys):
    classes = ['=HYPERLINK("http://evil","click")', "wren"]
    _print_csv(["@pictures/1.png"], classes, np.array([[0.9, 0.1]]), ["-1+2"])
    header, row = csv.reader(capsys.readouterr().out.splitlines())
    assert header == ["picture", "predicted", f"'{classes[0]}", "wren", "set"]
    assert row == ["'@pictures/1.png", f"'{classes[0]}", "0.900000", "0.100000", "'-1+2"]


def test_data_command_says_what_is_there(tmp_path, capsys):
    main(["data", "--dataset", "shapes", "--data-dir", str(tmp_path), "--image-size", "16"])
    said = capsys.readouterr().out
    assert "10 classes" in said
    assert "8000 train" in said
    assert "2000 test" in said


def test_data_command_audits_a_folder_and_not_what_is_known(tmp_path, capsys):
    root = make_folder(tmp_path / "pets", {"ant": 4, "bee": 4})
    Image.open(root / "ant/000.png").save(root / "ant/again.webp", lossless=True)
    main(["data", "--dataset", str(root), "--data-dir", str(tmp_path / "data")])
    said = capsys.readouterr().out
    assert "The very same pixels, by name: ant/000.png = ant/again.webp." in said
    assert "9 files are tiny, with less than the 32 pixels a side" in said
    assert "\nHow often one property of the files alone names the class of" in said
    assert "\nbrightness: " in said and "\nfile type: " not in said  # without the copy, one type


def test_what_the_output_has_no_letters_for_is_escaped(tmp_path, capsys, monkeypatch):
    folder = tmp_path / "größe"
    make_folder(folder, {"ant": 3, "bee": 3})
    (folder / "ant").rename(folder / "日本")
    for stream in ("stdout", "stderr"):
        monkeypatch.setattr(sys, stream, io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    main(["data", "--dataset", str(folder), "--data-dir", str(tmp_path)])
    sys.stdout.seek(0)
    assert r"\u65e5\u672c" in sys.stdout.read()


@pytest.mark.parametrize(
    ("called", "said"),
    [("/env/bin/davidnet", "davidnet"), ("/project/utils/__main__.py", "python -m utils")],
)
def test_help_says_what_was_called(called, said, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [called, "--help"])
    with pytest.raises(SystemExit):
        main()
    assert capsys.readouterr().out.startswith(f"usage: {said} [-h] COMMAND")


@pytest.mark.parametrize("arguments", [["--help"], ["data"]])
def test_output_that_nobody_reads_ends_the_program_without_a_word(arguments, monkeypatch, capfd):
    reading, writing = os.pipe()
    os.close(reading)
    monkeypatch.setattr(cli, "_data", lambda options: print("x" * 100_000))
    with open(writing, "w") as closed:
        monkeypatch.setattr(sys, "stdout", closed)
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        closed.flush()  # as the interpreter does at its end
    assert stopped.value.code == 141
    assert capfd.readouterr().err == ""


def test_other_settings_are_refused_before_any_notebook_writes(tiny_run, capsys):
    before = {p: p.stat().st_mtime_ns for p in tiny_run.folder.rglob("*") if p.is_file()}
    place = ["--output-dir", str(tiny_run.folder.parent)]
    arguments = ["run", "--run-name", "tiny", *place, "--data-dir", tiny_run.settings["data_dir"]]
    with pytest.raises(SystemExit, match=r"exists with other settings \(.*epochs was 1, now 2"):
        main([*arguments, "-p", "epochs", "2"])
    assert before == {p: p.stat().st_mtime_ns for p in tiny_run.folder.rglob("*") if p.is_file()}
