"""A run's folder: nothing half written, nothing damaged taken for good, nothing misnamed."""

import json
import os
import re
import subprocess
import sys
import tracemalloc
from functools import partial

import numpy as np
import pytest
from matplotlib.figure import Figure

from helpers.records import valid_record
from utils import InputError, runs
from utils.files import ROOT
from utils.runs import HELD_RUN, Run, describe_versions, find_run, list_runs

METRICS = {"test_acc": 0.5, "test_loss": 1.5, "test_size": 4}


def make_run(folder, name, status="complete", trained=True, age=0):
    run = Run(name, folder)
    run.update_record(status=status, **valid_record())
    if trained:
        run.path("model.safetensors").write_bytes(b"weights")
        run.write_json("metrics.json", METRICS)
    os.utime(run.path("run.json"), (1_700_000_000 - age,) * 2)
    return run


# one process at a time


HOLD = """
import sys, time
from utils.runs import Run
with Run("r", sys.argv[1]).locked():
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_refused_and_a_dead_one_does_not_block(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as first:
        assert first.stdout.readline() == "held\n"
        run = Run("r", tmp_path)
        message = rf"Run 'r' .* is being written by process {first.pid} on .*, since 20"
        with pytest.raises(InputError, match=message), run.locked():
            pytest.fail("two hold it")
        with Run("other", tmp_path).locked():  # another run is free
            pass
        first.kill()
        first.wait()
        assert run.path(".holder.json").exists()  # it could not clean up
        with run.locked():
            assert run.read_json(".holder.json")["process"] == os.getpid()
    assert os.listdir(run.folder) == [".lock"]


def test_who_holds_a_run_may_hold_it_again_and_so_may_what_it_starts(tmp_path):
    run = Run("r", tmp_path)
    with run.locked():
        with run.locked():
            assert os.environ[HELD_RUN] == str(run.folder)
        command = [sys.executable, "-c", HOLD.replace("60", "0"), str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
        assert (done.returncode, done.stdout) == (0, "held\n")
    assert HELD_RUN not in os.environ


# names and places


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "a/b", "../a", "/etc", "a\\b", ".hidden", "-p", "a b", "a\n", "a\0b", "ä",
     "x" * 121, "a:b", "a\x1b[31m", None, 5, b"run"],
)  # fmt: skip
def test_names_that_are_no_plain_folder_name_are_refused(name, tmp_path):
    with pytest.raises(InputError, match="run_name") as refused:
        Run(name, tmp_path)
    assert repr(name) in str(refused.value)


@pytest.mark.parametrize("name", ["a", "x" * 120, "shapes-quick-seed0-max_lr=0.01", "1e-4+b.c"])
def test_plain_names_name_the_folder_below_the_output_folder(name, tmp_path):
    run = Run(name, tmp_path)
    run.write_json("run.json", {})
    assert (tmp_path / name / "run.json").exists()


# run.json, tables and arrays


def test_record_is_merged_and_none_takes_an_entry_out(tmp_path):
    run = Run("r", tmp_path)
    assert (run.record, run.settings, run.status) == ({}, {}, None)
    run.update_record(status="running", precision="32-true", failure="x")
    run.update_record(status="complete", failure=None)
    assert run.record == {"name": "r", "status": "complete", "precision": "32-true"}
    run.add_seconds("training", 1.234)
    run.add_seconds("04_curves", 2)
    run.add_seconds("training", 5.0)
    assert run.record["seconds"] == {"training": 5.0, "04_curves": 2}


def test_metrics_are_added_to(tmp_path):
    run = Run("r", tmp_path)
    run.update_metrics(**METRICS, classes=["Katze", "größer"])
    run.update_metrics(test_acc=0.75, ece=0.1)
    assert run.read_json("metrics.json") == {
        **METRICS, "test_acc": 0.75, "classes": ["Katze", "größer"], "ece": 0.1,
    }  # fmt: skip


def test_tables_come_back_as_they_were_written(tmp_path):
    run = Run("r", tmp_path)
    rows = [{"epoch": 1, "loss": 1 / 3, "lr": 1e-8}, {"epoch": 2, "loss": 2.0, "lr": 0.01}]
    run.write_csv("metrics.csv", rows[0], rows)
    read = run.read_csv("metrics.csv", ("epoch", "loss", "lr"))
    assert read == rows
    assert isinstance(read[0]["epoch"], int)


def test_arrays_come_back_as_they_were_written(tmp_path):
    run = Run("r", tmp_path)
    logits = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    run.write_arrays("predictions.npz", index=np.arange(5), logits=logits)
    read = run.read_arrays("predictions.npz")
    assert sorted(read) == ["index", "logits"]
    np.testing.assert_array_equal(read["logits"], logits)
    assert read["logits"].dtype == np.float32


@pytest.mark.parametrize(
    "content", [b"", b'{"a": 1', b"[1, 2]", b"null", b"\xff\xfe\x00", b'{"a": 1}{"b": 2}']
)
def test_a_damaged_json_file_is_refused_by_its_path(content, tmp_path):
    run = Run("r", tmp_path)
    run.folder.mkdir()
    run.path("metrics.json").write_bytes(content)
    with pytest.raises(InputError, match=r"metrics\.json is damaged"):
        run.read_json("metrics.json")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"epoch,loss\n1\n",
        b"epoch,loss\n1,2,3\n",
        b"epoch,loss\n1,much\n",
        b"epoch,loss\n1,\n",
        b"epoch,loss\n1,\xff\xfe\n",
        b"epoch,loss\n1,0\x002\n",
        b'epoch,loss\n1,"2\n3,4\n',
        b"epoch,loss\n1," + b"7" * 200_000 + b"\n",
    ],
    ids=["empty", "short", "long", "word", "blank", "bytes", "nul", "quote", "huge"],
)
def test_a_damaged_table_is_refused_by_its_path(content, tmp_path):
    run = Run("r", tmp_path)
    run.folder.mkdir()
    run.path("metrics.csv").write_bytes(content)
    with pytest.raises(InputError, match=r"metrics\.csv is damaged"):
        run.read_csv("metrics.csv", ("epoch", "loss"))


@pytest.mark.parametrize("damage", ["empty", "cut", "text", "flipped"])
def test_a_damaged_array_file_is_refused_by_its_path(damage, tmp_path):
    run = Run("r", tmp_path)
    run.write_arrays("predictions.npz", logits=np.arange(1000.0))
    whole = run.path("predictions.npz").read_bytes()
    middle = len(whole) // 2
    damaged = {
        "empty": b"",
        "cut": whole[:middle],
        "text": b"no archive",
        "flipped": whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :],
    }[damage]
    run.path("predictions.npz").write_bytes(damaged)
    with pytest.raises(InputError, match=r"predictions\.npz is damaged"):
        run.read_arrays("predictions.npz")


BOMBS = {
    "as it is read": lambda zeros: {"logits": zeros},
    "beside what is read": lambda zeros: {"index": np.arange(3), "logits": zeros},
    "in parts": lambda zeros: {str(number): part for number, part in enumerate(zeros)},
}


@pytest.mark.parametrize("only", [None, ("index",)])
@pytest.mark.parametrize("arrays", BOMBS.values(), ids=BOMBS)
def test_arrays_that_would_fill_the_memory_are_refused_unread(arrays, only, tmp_path):
    run = Run("r", tmp_path)
    run.write_arrays("predictions.npz", **arrays(np.zeros((20, 1_000_000), np.float32)))
    assert run.path("predictions.npz").stat().st_size < 100_000
    tracemalloc.start()
    try:
        with pytest.raises(
            InputError, match=r"predictions\.npz is damaged .it would take 80\.0 MB"
        ):
            run.read_arrays("predictions.npz", only)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_many_predictions_are_read_though_classes_pack_well(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "MAX_ARRAYS", 0)
    run, size = Run("r", tmp_path), 100_000
    logits = np.random.default_rng(0).normal(size=(size, 2)).astype(np.float32)
    target = np.sort(logits.argmax(1))  # as pictures come, class after class
    written = {"index": np.arange(size), "target": target, "predicted": target, "logits": logits}
    run.write_arrays("predictions.npz", **written)
    assert set(run.read_arrays("predictions.npz")) == set(written)


class _Harmful:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_code_hidden_in_an_array_file_is_refused_and_not_run(tmp_path):
    run = Run("r", tmp_path)
    harm = tmp_path / "harm"
    hidden = np.array([_Harmful(str(harm))], dtype=object)
    run.folder.mkdir()
    np.savez(run.path("predictions.npz"), index=np.arange(3), logits=hidden)
    with pytest.raises(InputError, match=r"predictions\.npz is damaged"):
        run.read_arrays("predictions.npz")
    assert not harm.exists()


@pytest.mark.parametrize(
    ("read", "name", "notebook"),
    [
        (Run.read_json, "lr_finder.json", "02_lr_finder"),
        (Run.read_arrays, "predictions.npz", "05_misclassified"),
        (partial(Run.read_csv, columns=("epoch",)), "metrics.csv", "03_training"),
    ],
)
def test_a_missing_file_is_refused_with_the_notebook_that_makes_it(read, name, notebook, tmp_path):
    with pytest.raises(InputError, match=f"{name} does not exist.*{notebook}"):
        read(Run("r", tmp_path), name)


def test_a_figure_is_shown_as_the_very_bytes_that_were_saved(tmp_path):
    figure = Figure(figsize=(4, 2))
    figure.subplots().plot([0, 1], [1, 0])
    run = Run("r", tmp_path)
    shown = run.figure("04_loss", figure)
    saved = run.path("figures", "04_loss.png").read_bytes()
    assert shown.data == saved
    assert saved.startswith(b"\x89PNG")
    from PIL import Image

    with Image.open(run.path("figures", "04_loss.png")) as picture:
        assert picture.size == (4 * runs.DPI, 2 * runs.DPI)
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 2  # not a blank sheet
    assert os.listdir(run.path("figures")) == ["04_loss.png"]


def test_a_figure_is_shown_with_what_it_says_of_itself(tmp_path):
    figure, run = Figure(figsize=(2, 2)), Run("r", tmp_path)
    assert run.figure("04_loss", figure).alt == "04 loss"
    figure.set_label("Loss by epoch.")
    assert run.figure("04_loss", figure).alt == "Loss by epoch."


def test_the_same_figure_gives_the_same_file(tmp_path):
    run = Run("r", tmp_path)
    written = []
    for _ in range(2):
        figure = Figure(figsize=(2, 2))
        figure.subplots().plot([0, 1], [1, 0])
        written.append(run.figure("a", figure).data)
    assert written[0] == written[1]


# finding runs


def test_without_a_name_the_newest_complete_run_is_found(tmp_path):
    make_run(tmp_path, "old", age=300)
    make_run(tmp_path, "newest-complete", age=200)
    make_run(tmp_path, "running", status="running", trained=False, age=100)
    make_run(tmp_path, "failed", status="failed", age=0)
    assert find_run(None, tmp_path).name == "newest-complete"
    assert [run.name for run in list_runs(tmp_path)] == [
        "failed", "running", "newest-complete", "old",
    ]  # fmt: skip


def test_looking_at_an_older_run_again_does_not_make_it_the_newest(tmp_path):
    """Chapters write into the record of the run that they look at, and copies are written anew."""
    for name, finished in (("old", "2026-01-02T03:04:05Z"), ("new", "2026-01-02T03:04:06Z")):
        make_run(tmp_path, name).update_record(finished=finished)
    Run("old", tmp_path).add_seconds("05_misclassified", 1.0)
    os.utime(tmp_path / "new" / "run.json", (1, 1))
    assert find_run(None, tmp_path).name == "new"


@pytest.mark.parametrize("finished", ["", "yesterday", "9999999-01-01"])
def test_a_run_that_does_not_say_when_it_was_trained_counts_from_its_last_change(
    tmp_path, finished
):
    for name, age in (("older", 100), ("newer", 0)):
        run = make_run(tmp_path, name)
        path = run.path("run.json")
        path.write_text(json.dumps(json.loads(path.read_text()) | {"finished": finished}))
        os.utime(path, (1_700_000_000 - age,) * 2)
    assert find_run(None, tmp_path).name == "newer"


def test_without_a_name_and_without_a_complete_run_there_is_none(tmp_path):
    assert find_run(None, tmp_path / "missing") is None
    make_run(tmp_path, "running", status="running", trained=False)
    (tmp_path / "README.md").write_text("not a run")
    assert find_run(None, tmp_path) is None


def test_a_trained_run_is_found_by_name_whatever_became_of_later_notebooks(tmp_path):
    make_run(tmp_path, "a", status="failed")
    make_run(tmp_path, "b")
    assert find_run("a", tmp_path).name == "a"


def test_a_run_that_is_missing_or_untrained_is_refused_with_those_that_are_trained(tmp_path):
    make_run(tmp_path, "good")
    make_run(tmp_path, "half", status="running", trained=False)
    with pytest.raises(InputError, match=r"'nope' does not exist.*: good\."):
        find_run("nope", tmp_path)
    with pytest.raises(InputError, match=r"'half' has not finished training.*: good\."):
        find_run("half", tmp_path)
    with pytest.raises(InputError, match="cannot name a folder"):
        find_run("../good", tmp_path)


def test_a_folder_that_somebody_renamed_oddly_does_not_hide_the_other_runs(tmp_path):
    make_run(tmp_path, "good", age=100)
    odd = tmp_path / "my best run"
    odd.mkdir()
    (odd / "run.json").write_text(json.dumps({"name": "best", "status": "complete"}))
    assert find_run(None, tmp_path).name == "good"


def test_a_damaged_run_is_left_out_by_name_and_hides_no_other(tmp_path, capsys):
    make_run(tmp_path, "good", age=100)
    make_run(tmp_path, "broken")
    (tmp_path / "broken" / "run.json").write_text('{"name": "broken", "status": "comp')
    assert [run.name for run in list_runs(tmp_path)] == ["good"]
    assert "Left out: " in capsys.readouterr().out
    assert find_run(None, tmp_path).name == "good"
    with pytest.raises(InputError, match=r"broken/run\.json is damaged"):
        find_run("broken", tmp_path)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("status",), "done", "status must be one of"),
        (("settings", "epochs"), "ten", "settings.epochs must be integer"),
        (("settings", "image_size"), None, "settings.image_size must be integer"),
        (("data", "classes"), ["one"], "data.classes must contain at least 2"),
        (("data", "mean"), [0.1, 0.2], "data.mean must contain at least 3"),
        (("model", "blocks"), "prep", "model.blocks must be array"),
        (("seconds",), {"training": "long"}, "seconds.training must be number"),
        (("settings", "recipe"), "`<script>`", "settings.recipe must match pattern"),
        (("settings", "views"), "2", "settings.views must be integer"),
        (("data", "bits"), 10**9, "data.bits must be one of"),
        (("precision",), "32 | x", "precision must match pattern"),
        (("model", "sha256"), "../x", "model.sha256 must match pattern"),
        (("versions",), {"torch": "[2](//evil)"}, "versions.torch must match pattern"),
        (("versions",), {"<b>": "2"}, "versions must not contain"),
    ],
)
def test_a_record_that_says_the_impossible_is_refused(path, value, said, tmp_path):
    run = make_run(tmp_path, "r")
    record = run.record
    inner = record
    for part in path[:-1]:
        inner = inner[part]
    inner[path[-1]] = value
    run.path("run.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match=re.escape(said)):
        run.record  # noqa: B018


@pytest.mark.parametrize("missing", ["settings", "data", "model", "device", "precision"])
def test_a_record_that_lacks_a_part_is_refused(missing, tmp_path):
    run = make_run(tmp_path, "r", trained=False)
    record = {name: value for name, value in run.record.items() if name != missing}
    run.path("run.json").write_text(json.dumps(record))
    if missing == "settings":  # then it was never trained
        assert run.settings == {}
        return
    with pytest.raises(InputError, match="is damaged"):
        run.record  # noqa: B018


def test_versions_name_the_libraries_that_matter():
    shown = describe_versions()
    for library in ("torch ", "torchvision ", "pytorch-lightning ", "grad-cam "):
        assert library in shown
