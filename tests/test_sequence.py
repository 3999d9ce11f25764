"""The sequence of notebooks: which are run, and what each leaves behind, failed or stopped."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time

import nbformat
import pytest
from jupyter_client.manager import start_new_kernel

from helpers.records import valid_record
from utils import InputError, Interrupted
from utils.batch.one_run import INTERRUPTED, state_of
from utils.cli import main
from utils.files import ROOT
from utils.pipeline import sequence
from utils.publish.book import chapters_of
from utils.runs import Run, find_run
from utils.training import finished_run

ALL = list(sequence.NOTEBOOKS)


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
    with pytest.raises(InputError, match="many runs: python -m utils compare"):
        sequence.select_notebooks("06,07")
    with pytest.raises(InputError, match="Nothing to run"):
        sequence.select_notebooks("01", "04")


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


@pytest.mark.parametrize(
    ("overwrite", "stopped_in", "again"),
    [
        (True, "03_training", "the same command without overwrite continues"),
        (True, "05_misclassified", "the same command without overwrite continues"),
        (True, "02_lr_finder", "the same command continues"),  # the old network is still there
        (False, "05_misclassified", "the same command continues"),
    ],
)
def test_a_run_that_is_stopped_says_what_goes_on_and_replaces_nothing(
    overwrite, stopped_in, again, tmp_path, monkeypatch
):
    run = Run("r", tmp_path)
    run.update_record(started="2026-01-01T00:00:00Z")

    def attempt(run, notebook, *_):
        if notebook.stem == "03_training":
            run.update_record(started="2026-02-02T00:00:00Z")
        if notebook.stem != stopped_in:
            return None, None
        return {"notebook": stopped_in, "error": "interrupted"}, KeyboardInterrupt()

    monkeypatch.setattr(sequence, "_attempt", attempt)
    with pytest.raises(Interrupted, match=f"^{stopped_in} was stopped.* is kept; {again} from"):
        sequence.run_notebooks(run, {"overwrite": overwrite})


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


def test_training_anew_in_chapter_3_leaves_no_chapter_of_the_old_network(tiny_run, tmp_path):
    shutil.copytree(tiny_run.folder, tmp_path / "anew")
    run = Run("anew", tmp_path)
    names = ("data_dir", "limit_train", "limit_test", "image_size")
    asked = {name: run.settings[name] for name in names}
    sequence.run_notebooks(run, {**asked, "epochs": 2, "overwrite": True}, ["03_training"])
    assert run.status == "complete" and run.settings["epochs"] == 2
    assert [path.stem for path in sorted(run.path("notebooks").glob("*.ipynb"))] == ALL[:3]
    figures = {path.stem for path in run.path("figures").glob("*.png")}
    assert "03_network" in figures and not [name for name in figures if name >= "04"]
    assert state_of(run, ALL) == INTERRUPTED
    with pytest.raises(InputError, match="lacks 04_curves, 05_misclassified, 06_gradcam"):
        chapters_of(run)


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


@pytest.mark.slow
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
    assert "Run the same again, without overwrite, to continue from there" in last
    assert run.record["failure"] == {"notebook": "03_training", "error": "interrupted"}
    kept = epochs_in(run)
    assert 1 <= kept < 8
    notebook = nbformat.read(run.path("notebooks", "03_training.ipynb"), as_version=4)
    shown = [o for c in notebook.cells for o in c.get("outputs", []) if o.output_type == "error"]
    assert [o.ename for o in shown] == ["Interrupted"]
    assert len(shown[0].traceback) == 1
    main(arguments)
    assert (run.status, epochs_in(run)) == ("complete", 8)


@pytest.mark.slow
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
