"""What is refused before the first notebook starts: values, runs, and disks that are too full."""

import shutil

import pytest

from helpers.records import valid_record
from utils import InputError
from utils.data import sources
from utils.runs import Run
from utils.training.plan import plan_training
from utils.training.preflight import (
    check_asked,
    check_begun,
    check_room_for_all,
    check_run,
    resolved_settings,
)


def test_a_name_only_another_notebook_takes_is_refused():
    with pytest.raises(InputError, match="epochs"):
        check_asked({"epochs": 3}, ["04_curves"])


def test_blocks_are_those_of_the_network_that_will_be_trained():
    for block, model in (("layer1", "davidnet"), ("block2", "speednet")):
        check_asked({"block": block, "model": model}, ["03_training", "06_gradcam"])
        check_asked({"block": block}, ["06_gradcam"])  # the run's network is not known here
    with pytest.raises(InputError, match="block 'block2' is unknown"):
        check_asked({"block": "block2", "model": "davidnet"}, ["03_training", "06_gradcam"])


def test_a_recipes_model_must_fit_the_pictures_that_were_asked_for():
    check_asked({"image_size": 64}, ["03_training"])
    with pytest.raises(InputError, match="image_size is 20"):
        check_asked({"image_size": 20}, ["03_training"])


def test_what_was_found_must_have_been_looked_for(tmp_path):
    run = Run("run", tmp_path)
    with pytest.raises(InputError, match="Run 02_lr_finder first, with the same run_name"):
        check_run(run, {"max_lr": "found"}, ["03_training"])
    check_run(run, {"max_lr": "found"}, ["02_lr_finder", "03_training"])


def test_a_chapter_about_a_run_needs_that_run(tmp_path):
    run = Run("run", tmp_path)
    check_run(run, {}, ["01_data_exploration", "02_lr_finder"])
    with pytest.raises(InputError, match="'run' does not exist"):
        check_run(run, {}, ["04_curves"])


def test_a_run_begun_otherwise_is_refused_with_the_differences(tmp_path, monkeypatch):
    run = Run("run", tmp_path)
    asked = {"data_dir": str(tmp_path), "image_size": 16, "limit_train": 40, "limit_test": 20}
    run.update_record(**valid_record(**asked, seed=3))
    with pytest.raises(InputError, match=r"exists with other settings .*seed was 3, now 0"):
        check_run(run, asked, ["03_training"])
    check_run(run, {**asked, "overwrite": True}, ["03_training"])
    pictures = sources.load_pictures(**asked)
    monkeypatch.setattr(sources, "load_pictures", None)  # those that are there will do
    with pytest.raises(InputError, match=r"exists with other settings .*seed was 3, now 0"):
        check_begun(run, asked, pictures)


def test_hardware_of_another_machine_is_left_to_it(no_gpu):
    asked = {"devices": "gpu", "precision": "16-mixed"}
    check_asked(asked, ["03_training"], elsewhere=True)
    with pytest.raises(InputError, match="torch finds no GPU here"):
        check_asked(asked, ["03_training"])
    for impossible in (
        {"devices": "cpu", "precision": "16-mixed"},
        {"devices": "tpu"},
        {"precision": "fp8"},
        {"num_nodes": 2},
    ):
        with pytest.raises(InputError, match="|".join(impossible)):
            check_asked(impossible, ["03_training"], elsewhere=True)


def test_a_trained_run_is_held_against_the_precision_asked_for_wherever_it_was_trained(
    tmp_path, no_gpu
):
    run = Run("run", tmp_path)
    asked = {"data_dir": str(tmp_path), "image_size": 16, "limit_train": 40, "limit_test": 20}
    pictures = sources.load_pictures(**asked)
    settings = plan_training(pictures, **asked).settings
    begun = {**settings, "precision": "16-mixed", "devices": "cuda"}
    run.update_record(**{**valid_record(), "settings": begun})
    run.path("model.safetensors").write_bytes(b"weights")
    run.write_json("metrics.json", {})
    assert run.is_trained
    for given in ({}, {"devices": "gpu", "precision": "16-mixed"}):
        check_begun(run, {**asked, **given}, pictures, elsewhere=True)
    with pytest.raises(InputError, match=r"precision was '16-mixed', now '32-true'"):
        check_begun(run, {**asked, "precision": "32-true"}, pictures, elsewhere=True)


def test_disks_need_room_for_all_trainings_together(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2 * 10**9))
    check_room_for_all(tmp_path, 10 * [{"seed": 1}])
    with pytest.raises(InputError, match=r"Keeping 20 trainings needs 2\.\d+ GB in .*2\.00 GB"):
        check_room_for_all(tmp_path, 10 * [{}, {"recipe": "original"}])
    check_room_for_all(tmp_path, 20 * [{"recipe": "speed"}])
    check_room_for_all(tmp_path, [])


def test_every_setting_is_known_before_the_pictures_are():
    settings = resolved_settings({"recipe": "speed", "epochs": 3, "seed": 5})
    expected = {"recipe": "speed", "model": "speednet", "epochs": 3, "seed": 5, "dataset": "shapes"}
    assert expected.items() <= settings.items()
    with pytest.raises(InputError, match="epochs is 0"):
        resolved_settings({"epochs": 0})
