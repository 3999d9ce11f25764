"""The command line and the pipeline: what is refused, and what a run leaves behind."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import nbformat
import pytest
from jupyter_client.manager import start_new_kernel
from PIL import Image

from helpers.records import valid_record
from utils import InputError, cli
from utils.cli import main
from utils.data.sources import bytes_to_keep, load_pictures
from utils.files import ROOT
from utils.pipeline import sequence
from utils.publish.book import chapters_of
from utils.runs import Run, find_run
from utils.settings import parse_value
from utils.training import finished_run

ALL = list(sequence.NOTEBOOKS)


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
        with pytest.raises(SystemExit, match=rf"{said}.* needs 0\.2\d GB in .*, and .* are free"):
            main(place)
    archive = shutil.make_archive(str(tmp_path / "pets"), "zip", pets(tmp_path / "pets"))
    size = sum(path.stat().st_size for path in (tmp_path / "pets").rglob("*.png"))
    folder, needed = bytes_to_keep(archive, tmp_path / "data", 32)
    assert (folder, needed) == (tmp_path / "data" / "cache", size)
    load_pictures(dataset=archive, data_dir=tmp_path / "data")
    assert bytes_to_keep(archive, tmp_path / "data", 32)[1] == 0
    assert bytes_to_keep(str(tmp_path / "pets"), tmp_path / "data", 32)[1] == 6 * 3 * 32**2
    assert bytes_to_keep("cifar10", tmp_path / "data", 32)[1] == 180_000_000 + 60_000 * 3_072
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "tab\t", "x" * 121])
def test_run_names_that_are_no_folder_name_are_refused(no_kernel, tmp_path, name):
    with pytest.raises(SystemExit, match="run_name"):
        main(["run", "--run-name", name, "--output-dir", str(tmp_path), "-p", "seed", "1"])


@pytest.mark.parametrize(
    ("only", "start", "expected"),
    [
        (None, None, ALL),
        ("05,06", None, ALL[4:]),
        ("6, 5", None, ALL[4:]),
        (None, "04", ALL[3:]),
        ("01,05", "04", ALL[4:5]),
    ],
)
def test_part_of_the_sequence(only, start, expected):
    assert sequence.select_notebooks(only, start) == expected


def test_notebooks_that_do_not_exist_are_refused():
    with pytest.raises(InputError, match="'09'"):
        sequence.select_notebooks("05,09")
    with pytest.raises(InputError, match="Nothing to run"):
        sequence.select_notebooks("01", "04")


@pytest.mark.parametrize(
    ("text", "value"),
    [("5", 5), ("1e-3", 1e-3), ("true", True), ("None", None), ("found", "found"), ("a b", "a b")],
)
def test_values_are_read_as_literals(text, value):
    assert parse_value(text) == value


def test_values_that_look_like_code_stay_text():
    assert parse_value("__import__('os').getcwd()") == "__import__('os').getcwd()"


def test_a_failing_notebook_is_named_kept_and_marks_the_run(tiny_run, tmp_path):
    folder = tmp_path / "broken"
    shutil.copytree(tiny_run.folder, folder)
    (folder / "metrics.csv").write_text("not a table")
    command = [sys.executable, "-m", "utils", "run", "--run-name", "broken", "--only", "04"]
    ran = subprocess.run(
        [*command, "--output-dir", str(tmp_path)], cwd=ROOT, capture_output=True, text=True
    )
    assert ran.returncode != 0
    assert "04_curves failed in cell [" in ran.stderr
    assert "metrics.csv is damaged" in ran.stderr
    assert "Traceback" not in ran.stderr
    run = Run("broken", tmp_path)
    assert run.status == "complete"  # its training is
    assert run.record["failure"]["notebook"] == "04_curves"
    assert find_run(None, tmp_path).name == "broken"
    with pytest.raises(InputError, match=r"is not finished: 04_curves, .*damaged"):
        chapters_of(run)
    partial = nbformat.read(run.path("notebooks", "04_curves.ipynb"), as_version=4)
    assert any(o.output_type == "error" for c in partial.cells for o in c.get("outputs", []))


def test_a_mended_notebook_makes_the_run_complete_again(tiny_run, tmp_path):
    shutil.copytree(tiny_run.folder, tmp_path / "mended")
    run = Run("mended", tmp_path)
    run.update_record(status="failed", failure={"notebook": "04_curves"})
    sequence.run_notebooks(run, {}, ["04_curves"])
    assert run.status == "complete"
    assert "failure" not in run.record


def test_only_the_chapter_that_failed_mends_the_run(tmp_path, monkeypatch):
    run = Run("r", tmp_path)
    run.update_record(status="complete", **valid_record())
    run.path("model.safetensors").write_bytes(b"weights")
    run.write_json("metrics.json", {"test_acc": 0.5, "test_loss": 1.0, "test_size": 4})
    run.update_record(failure={"notebook": "05_misclassified", "error": "interrupted"})
    monkeypatch.setattr(sequence, "_execute", lambda *_: None)
    sequence.run_notebooks(run, {}, ["04_curves"])
    assert (run.status, run.failure) == ("complete", "05_misclassified, interrupted")
    assert finished_run.open_run(None, tmp_path).name == "r"
    sequence.run_notebooks(run, {}, ["05_misclassified"])
    assert (run.status, run.failure) == ("complete", "")


def test_asking_again_for_a_complete_run_reuses_it(tiny_run, tmp_path, capsys):
    shutil.copytree(tiny_run.folder, tmp_path / "again")
    before = (tmp_path / "again" / "model.safetensors").stat().st_mtime_ns
    settings = Run("again", tmp_path).settings
    names = ("data_dir", "epochs", "limit_train", "limit_test", "image_size")
    run = Run("again", tmp_path)
    sequence.run_notebooks(run, {name: settings[name] for name in names}, ["03_training"])
    text = run.path("notebooks", "03_training.ipynb").read_text()
    assert "is reused" in text
    assert (tmp_path / "again" / "model.safetensors").stat().st_mtime_ns == before


def test_open_run_refuses_what_the_run_was_not_trained_with(tiny_run):
    place = tiny_run.folder.parent
    assert finished_run.open_run(None, place).name == "tiny"
    assert finished_run.open_run("tiny", place, "shapes", 0).name == "tiny"
    with pytest.raises(InputError, match="seed 0, not 7"):
        finished_run.open_run("tiny", place, seed=7)
    with pytest.raises(InputError, match="'other' does not exist"):
        finished_run.open_run("other", place)


def test_open_run_takes_the_pictures_from_any_place_that_holds_them(tmp_path, monkeypatch):
    picture_set = load_pictures(dataset=str(pets(tmp_path / "pets")), data_dir=tmp_path / "data")
    run = Run("r", tmp_path)
    run.update_record(
        status="complete",
        **valid_record(**picture_set.options, data_fingerprint=picture_set.fingerprint),
    )
    shutil.copytree(tmp_path / "pets", tmp_path / "copy")
    run.path("model.safetensors").write_bytes(b"weights")
    run.write_json("metrics.json", {"test_acc": 0.5, "test_loss": 1.0, "test_size": 4})
    assert finished_run.open_run("r", tmp_path, str(tmp_path / "copy"), 0, tmp_path / "data")
    (tmp_path / "copy" / "ant" / "0.png").unlink()
    with pytest.raises(InputError, match=r"/copy' holds other pictures .* were '.*/pets'"):
        finished_run.open_run("r", tmp_path, str(tmp_path / "copy"), 0, tmp_path / "data")


def pets(root):
    for value, name in enumerate(("ant", "bee")):
        (root / name).mkdir(parents=True)
        for number in range(3):
            picture = Image.new("RGB", (20, 20), (90 * value, 30 * number, 0))
            picture.save(root / name / f"{number}.png")
    return root


def test_a_chapter_opened_alone_trains_what_is_missing(tmp_path, monkeypatch, capsys):
    trained = {}

    def pretend(run, parameters, names):
        trained.update(run=run.name, names=names, **parameters)
        run.update_record(status="complete", **valid_record(dataset="shapes", seed=0))

    monkeypatch.setattr(finished_run, "run_notebooks", pretend)
    run = finished_run.open_run(None, tmp_path)
    assert trained == {
        "run": run.name, "names": ["03_training"], "dataset": "shapes", "recipe": "quick",
    }  # fmt: skip
    assert "training one" in capsys.readouterr().out


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


def test_data_command_says_what_is_there(tmp_path, capsys):
    main(["data", "--dataset", "shapes", "--data-dir", str(tmp_path), "--image-size", "16"])
    said = capsys.readouterr().out
    assert "10 classes" in said
    assert "8000 train" in said
    assert "2000 test" in said


def test_what_the_output_has_no_letters_for_is_escaped(tmp_path, capsys, monkeypatch):
    folder = tmp_path / "größe"
    pets(folder)
    (folder / "ant").rename(folder / "日本")
    for stream in ("stdout", "stderr"):
        monkeypatch.setattr(sys, stream, io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    main(["data", "--dataset", str(folder), "--data-dir", str(tmp_path)])
    sys.stdout.seek(0)
    assert r"\u65e5\u672c" in sys.stdout.read()


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


def test_run_json_is_plain_json(tiny_run):
    record = json.loads(tiny_run.path("run.json").read_text())
    assert record["settings"]["recipe"] == "quick"
    assert record["settings"]["image_size"] == 16
    assert len(record["data"]["mean"]) == 3


# Interruption

LONG = {"epochs": 8, "limit_train": 32, "limit_test": 20, "image_size": 16, "batch_size": 16}


def wait_for(path, process=None, seconds=90):
    until = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < until, f"{path} never came"
        assert process is None or process.poll() is None, process.stderr.read()
        time.sleep(0.02)


def epochs_in(run):
    return len(run.path("metrics.csv").read_text().splitlines()) - 1


def test_ctrl_c_stops_at_once_says_how_to_go_on_and_the_same_command_does(tmp_path):
    arguments = ["run", "--run-name", "long", "--only", "03"]
    arguments += ["--output-dir", str(tmp_path), "--data-dir", str(tmp_path / "data")]
    arguments += [part for name, value in LONG.items() for part in ("-p", name, str(value))]
    run = Run("long", tmp_path)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [sys.executable, "-m", "utils", *arguments]
    with subprocess.Popen(command, cwd=ROOT, **pipes) as process:
        wait_for(run.path("checkpoints", "last.ckpt"), process)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in said
    last = said.strip().splitlines()[-1]
    assert re.search(r"03_training was stopped.*\d+ of 8 epochs are finished and kept", last)
    assert "Run the same again to go on from there" in last
    assert run.record["failure"] == {"notebook": "03_training", "error": "interrupted"}
    kept = epochs_in(run)
    assert 1 <= kept < 8
    notebook = nbformat.read(run.path("notebooks", "03_training.ipynb"), as_version=4)
    shown = [o for c in notebook.cells for o in c.get("outputs", []) if o.output_type == "error"]
    assert [o.ename for o in shown] == ["Interrupted"]
    assert len(shown[0].traceback) == 1
    main(arguments)
    assert (run.status, epochs_in(run)) == ("complete", 8)


def test_a_closed_kernel_leaves_a_run_that_goes_on(tmp_path, capsys):
    train = f"""
from utils.data.sources import load_pictures
from utils.training.fit import fit
from utils.training.plan import plan_training
pictures = load_pictures(
    data_dir={str(tmp_path / "data")!r}, image_size=16, limit_train=32, limit_test=20
)
options = dict(run_name="closed", output_dir={str(tmp_path)!r}, batch_size=16)
fit(plan_training(pictures, epochs=8, **options))
"""
    run = Run("closed", tmp_path)
    manager, client = start_new_kernel(cwd=str(ROOT))
    try:
        client.execute(train)
        wait_for(run.path("checkpoints", "last.ckpt"))
    finally:
        client.stop_channels()
        manager.shutdown_kernel()  # as closing a notebook does
    assert run.status in ("running", "failed")
    assert 1 <= epochs_in(run) < 8
    exec(train)
    assert "is resumed from its last finished epoch" in capsys.readouterr().out
    assert (run.status, epochs_in(run)) == ("complete", 8)


def test_other_settings_are_refused_before_any_notebook_writes(tiny_run, capsys):
    before = {p: p.stat().st_mtime_ns for p in tiny_run.folder.rglob("*") if p.is_file()}
    place = ["--output-dir", str(tiny_run.folder.parent)]
    arguments = ["run", "--run-name", "tiny", *place, "--data-dir", tiny_run.settings["data_dir"]]
    with pytest.raises(SystemExit, match=r"exists with other settings \(.*epochs was 1, now 2"):
        main([*arguments, "-p", "epochs", "2"])
    assert before == {p: p.stat().st_mtime_ns for p in tiny_run.folder.rglob("*") if p.is_file()}
