"""The run that a later chapter is about: found, checked, or trained first."""

import shutil

import pytest

from helpers.pictures import make_folder
from helpers.records import valid_record
from utils import InputError
from utils.data.sources import load_pictures
from utils.runs import Run
from utils.training import finished_run


def test_open_run_refuses_what_the_run_was_not_trained_with(tiny_run):
    place = tiny_run.folder.parent
    assert finished_run.open_run(None, place).name == "tiny"
    assert finished_run.open_run("tiny", place, "shapes", 0).name == "tiny"
    with pytest.raises(InputError, match="seed 0, not 7"):
        finished_run.open_run("tiny", place, seed=7)
    with pytest.raises(InputError, match="'other' does not exist"):
        finished_run.open_run("other", place)


def test_open_run_takes_the_pictures_from_any_place_that_holds_them(tmp_path, monkeypatch):
    picture_set = load_pictures(
        dataset=str(make_folder(tmp_path / "pets", {"ant": 3, "bee": 3})),
        data_dir=tmp_path / "data",
    )
    run = Run("r", tmp_path)
    run.update_record(
        status="complete",
        **valid_record(**picture_set.options, data_fingerprint=picture_set.fingerprint),
    )
    shutil.copytree(tmp_path / "pets", tmp_path / "copy")
    run.path("model.safetensors").write_bytes(b"weights")
    run.write_json("metrics.json", {"test_acc": 0.5, "test_loss": 1.0, "test_size": 4})
    assert finished_run.open_run("r", tmp_path, str(tmp_path / "copy"), 0, tmp_path / "data")
    (tmp_path / "copy" / "ant" / "000.png").unlink()
    with pytest.raises(InputError, match=r"/copy' does not hold the pictures .* were '.*/pets'"):
        finished_run.open_run("r", tmp_path, str(tmp_path / "copy"), 0, tmp_path / "data")


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
