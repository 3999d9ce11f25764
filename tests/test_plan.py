"""What a plan decides before training: the recipe, the run, and what it goes on with."""

from dataclasses import replace
from shutil import copytree

import pytest
import torch
from pytorch_lightning import Trainer

from helpers.training import (
    GoneError,
    all_files,
    copy_of,
    interrupt,
    make_pictures,
    make_plan,
    make_speed_plan,
    never_fit,
    read_table,
)
from utils import InputError
from utils.data import batches
from utils.data.augment import normalise
from utils.data.picture_set import Split
from utils.runs import Run
from utils.training import lr_finder
from utils.training.fit import fit
from utils.training.plan import as_begun
from utils.training.recipes import RECIPES

pytestmark = pytest.mark.usefixtures("small_network")


# Reuse, identity, overwrite


def test_derived_name_tells_what_differs_from_the_recipe(tmp_path):
    plain = make_plan(
        tmp_path, run_name=None, recipe=None, epochs=None, batch_size=None, max_lr=None
    )
    assert plain.run.name == "shapes-quick-seed0-image_size=16"
    other = make_plan(
        tmp_path, run_name=None, recipe=None, epochs=2, batch_size=None, max_lr=None, seed=7
    )
    assert other.run.name == "shapes-quick-seed7-epochs=2-image_size=16"


# Other hardware


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run of which one epoch of three is trained; tests copy it."""
    plan = make_plan(tmp_path_factory.mktemp("stopped"), precision="bf16-mixed")
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, "on_train_batch_end", GoneError(), lambda t: t.global_step == 9)
        with pytest.raises(GoneError):
            fit(plan)
    return plan


def begun_with(stopped, folder, **settings):
    """Return the run in a folder of its own, as if begun with other settings."""
    copytree(stopped.run.folder, folder / "run")
    run = Run("run", folder)
    run.update_record(settings={**run.settings, **settings})
    return run


def has_bfloat16(monkeypatch, has):
    monkeypatch.setattr("utils.devices._cpu_bfloat16", lambda: "AMX" if has else None)


def test_auto_keeps_the_precision_and_the_device_of_a_run_that_was_begun(
    stopped, tmp_path, monkeypatch
):
    has_bfloat16(monkeypatch, True)
    begun_with(stopped, tmp_path / "a")
    plan = make_plan(tmp_path / "a", precision="auto")
    assert as_begun(plan).settings["precision"] == "bf16-mixed"
    assert "precision  bf16-mixed: as this run was begun" in str(plan)
    begun_with(stopped, tmp_path / "b", precision="32-true")
    assert make_plan(tmp_path / "b", precision="auto").settings["precision"] == "32-true"
    fresh = make_plan(tmp_path / "b", precision="auto", overwrite=True)
    assert fresh.settings["precision"] == "bf16-mixed"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "GPU")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 0))
    plan = make_plan(tmp_path / "b", precision="auto", devices="auto")
    assert as_begun(plan).settings["devices"] == "cpu"
    assert 'as this run was begun; devices="gpu" goes on' in str(plan)


@pytest.mark.parametrize(
    ("begun", "asked", "give"),
    [
        ({}, {}, 'precision="32-true", or precision="bf16-mixed" as before, which is slow'),
        ({"precision": "16-mixed", "devices": "cuda"}, {}, 'give precision="32-true".'),
        ({"precision": "16-mixed", "devices": "cuda"}, {"devices": "cpu"}, 'precision="32-true".'),
        ({"precision": "32-true", "devices": "cuda"}, {}, 'give devices="cpu".'),
        ({"precision": "32-true", "devices": "mps"}, {}, 'give devices="cpu".'),
    ],
)
def test_what_this_machine_cannot_go_on_with_is_said_with_what_to_give(
    stopped, begun, asked, give, tmp_path, monkeypatch, no_gpu
):
    has_bfloat16(monkeypatch, False)
    monkeypatch.setattr(Trainer, "fit", never_fit)
    run = begun_with(stopped, tmp_path, **begun)
    before = all_files(run.folder)
    with pytest.raises(InputError) as refused:
        fit(make_plan(tmp_path, **{"precision": "auto", "devices": "auto", **asked}))
    said = str(refused.value)
    assert give in said and "until epoch 1," in said and "overwrite" not in said
    assert all_files(run.folder) == before
    with pytest.raises(InputError, match="seed was 0, now 1"):  # the larger difference first
        fit(make_plan(tmp_path, precision="auto", devices="auto", seed=1))


def test_a_run_goes_on_on_other_hardware_when_told_to_and_says_so(
    stopped, tmp_path, monkeypatch, capsys, no_gpu
):
    has_bfloat16(monkeypatch, False)
    run = begun_with(stopped, tmp_path, precision="16-mixed", devices="cuda")
    plan = make_plan(tmp_path, precision="32-true", devices="auto")
    line = "changed    at epoch 2: precision 16-mixed until then, 32-true since; devices cuda"
    assert line in str(plan)
    fit(plan)
    assert "is resumed" in capsys.readouterr().out
    assert [row["epoch"] for row in read_table(run, "metrics.csv")] == ["1", "2", "3"]
    assert run.record["changes"] == [
        {"epoch": 2, "settings": {"precision": ["16-mixed", "32-true"], "devices": ["cuda", "cpu"]}}
    ]
    assert (run.status, run.settings["precision"]) == ("complete", "32-true")
    again = make_plan(tmp_path, precision="auto", devices="auto")
    assert line in str(again)
    assert fit(again).record["changes"][0]["epoch"] == 2


def test_a_complete_run_is_reused_whatever_the_hardware(trained, tmp_path, monkeypatch):
    plan = copy_of(trained, tmp_path, precision="auto", devices="auto")
    settings = {**plan.run.settings, "precision": "16-mixed", "devices": "cuda"}
    plan.run.update_record(settings=settings)
    monkeypatch.setattr(Trainer, "fit", never_fit)
    run = fit(make_plan(tmp_path, precision="auto", devices="auto"))
    assert run.settings == settings


# The parts of the recipe speed


def test_the_first_layer_is_whitened_by_training_pictures_alone(tmp_path, monkeypatch):
    plan = make_speed_plan(tmp_path, monkeypatch)
    network = plan.network()
    images = normalise(plan.picture_set.train.images, (0.4,) * 3, (0.2,) * 3)
    with torch.no_grad():
        responses = network.whitening(images)[:, :12].permute(1, 0, 2, 3).flatten(1)
    covariance = responses @ responses.T / responses.shape[1]
    torch.testing.assert_close(covariance, torch.eye(12), rtol=0, atol=0.02)
    other = replace(plan, recipe=replace(plan.recipe, whitening=False)).network()
    assert other.whitening.weight.requires_grad and not network.whitening.weight.requires_grad


def test_pictures_to_whiten_are_normalised_few_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(batches, "EVAL_BATCH_SIZE", 16)
    plan, sizes = make_speed_plan(tmp_path, monkeypatch), []

    def counting(images, *statistics):
        sizes.append(len(images))
        return normalise(images, *statistics)

    monkeypatch.setattr("utils.training.plan.normalise", counting)
    plan.network()
    assert max(sizes) == 16 and sum(sizes) == len(plan.picture_set.train)


def test_pictures_of_every_class_whiten_where_classes_follow_each_other(tmp_path, monkeypatch):
    monkeypatch.setattr("utils.training.plan.PICTURES_TO_WHITEN", 8)
    plan, seen = make_speed_plan(tmp_path, monkeypatch), []
    whole = plan.picture_set.train
    in_order = replace(plan.picture_set, train=whole.subset(whole.targets.argsort(stable=True)))
    plan = replace(plan, picture_set=in_order)

    def noting(images, *statistics):
        seen.append(images)
        return normalise(images, *statistics)

    monkeypatch.setattr("utils.training.plan.normalise", noting)
    plan.network()
    same = (torch.cat(seen)[:, None] == in_order.train.images).flatten(2).all(2)
    assert len(same) == 8
    classes = in_order.train.targets[same.float().argmax(1)]
    assert classes.unique().tolist() == in_order.train.targets.unique().tolist()


@pytest.mark.parametrize("model", ["davidnet", "resnet18"])
def test_no_picture_is_looked_at_where_no_weight_depends_on_it(tmp_path, monkeypatch, model):
    monkeypatch.setattr("utils.training.plan.normalise", never_fit)
    weights = "random" if model == "resnet18" else None
    pictures = make_pictures()
    larger = Split(pictures.train.images.repeat(1, 1, 4, 4), pictures.train.targets)
    pictures = replace(pictures, train=larger)
    plan = make_plan(tmp_path, pictures, model=model, weights=weights)
    assert plan.recipe.whitening
    plan.network()


def test_a_recipe_brings_its_network_and_another_may_be_asked_for(tmp_path, monkeypatch):
    assert make_speed_plan(tmp_path, monkeypatch).settings["model"] == "speednet"
    plan = make_plan(tmp_path, recipe="speed", model="davidnet", run_name=None)
    assert plan.settings["model"] == "davidnet"
    assert "model=davidnet" in plan.run.name


# max_lr="found"


def test_found_rate_is_the_range_tests_suggestion(tmp_path):
    Run("run", tmp_path).write_json("lr_finder.json", {"suggestion": 0.00321})
    plan = make_plan(tmp_path, max_lr="found")
    assert plan.recipe.max_lr == plan.settings["max_lr"] == 0.00321
    assert plan.settings["max_lr_source"] == "found"
    assert any("0.00321" in note for note in plan.notes)


def test_found_rate_without_a_range_test_names_the_notebook(tmp_path):
    with pytest.raises(InputError, match="02_lr_finder"):
        make_plan(tmp_path, max_lr="found")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "changes", [{}, {"epochs": 7}, {"epochs": 2, "views": 2}], ids=["nothing", "epochs", "views"]
)
def test_a_found_rate_is_that_of_the_chapter_before_where_no_name_was_given(tmp_path, changes):
    of_both = {"run_name": None, "max_lr": None, "epochs": None}
    before = make_plan(tmp_path, **of_both)
    lr_finder.save(before.run, lr_finder.sweep(before, steps=12, min_lr=1e-3, max_lr=0.1))
    plan = make_plan(tmp_path, **{**of_both, "max_lr": "found", **changes})
    assert plan.recipe.max_lr == before.run.read_json("lr_finder.json")["suggestion"]
    assert plan.run.name != before.run.name and "max_lr=found" in plan.run.name
    assert any(before.run.name in note for note in plan.notes)


def test_a_run_s_own_range_test_comes_before_that_of_the_chapter_before(tmp_path):
    unnamed = {"run_name": None, "max_lr": None}
    before = make_plan(tmp_path, **unnamed, epochs=None)
    before.run.write_json("lr_finder.json", {"suggestion": 0.5})
    own = make_plan(tmp_path, **{**unnamed, "max_lr": "found"}).run
    own.write_json("lr_finder.json", {"suggestion": 0.25})
    assert make_plan(tmp_path, **{**unnamed, "max_lr": "found"}).recipe.max_lr == 0.25


def test_another_seed_needs_a_range_test_of_its_own(tmp_path):
    unnamed = {"run_name": None, "max_lr": None}
    before = make_plan(tmp_path, **unnamed, epochs=None)
    before.run.write_json("lr_finder.json", {"suggestion": 0.5})
    with pytest.raises(InputError, match=r"seed1.* does not exist.*same settings"):
        make_plan(tmp_path, **{**unnamed, "max_lr": "found", "seed": 1})


def test_range_test_without_a_suggestion_asks_for_a_number(tmp_path):
    Run("run", tmp_path).write_json("lr_finder.json", {"suggestion": None})
    with pytest.raises(InputError, match="give max_lr a number"):
        make_plan(tmp_path, max_lr="found")


def test_newer_range_test_does_not_make_a_complete_run_another_one(trained, monkeypatch, tmp_path):
    plan = copy_of(trained, tmp_path)
    plan.run.update_record(settings={**plan.run.settings, "max_lr_source": "found"})
    plan.run.write_json("lr_finder.json", {"suggestion": 0.0123})
    monkeypatch.setattr(Trainer, "fit", never_fit)
    assert fit(make_plan(tmp_path, max_lr="found")).settings["max_lr"] == 0.01


# Values that cannot be


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"max_lr": -1}, ["max_lr", "-1", "from 1e-10 to 100"]),
        ({"max_lr": float("nan")}, ["max_lr", "nan"]),
        ({"max_lr": "fast"}, ["max_lr", "'fast'", "'found'"]),
        ({"epochs": 0}, ["epochs", "0", "from 1"]),
        ({"epochs": 2.5}, ["epochs", "2.5", "whole"]),
        ({"batch_size": 1}, ["batch_size", "1", "from 2"]),
        ({"seed": -1}, ["seed", "-1", "from 0"]),
        ({"seed": True}, ["seed", "True"]),
        ({"val_fraction": 1.5}, ["val_fraction", "1.5"]),
        ({"model": "resnet9"}, ["model", "'resnet9'", "davidnet", "resnet18"]),
        ({"model": "resnet50"}, ["image_size", "16", "ResNet50", "multiple of 32"]),
        ({"weights": "a.pth"}, ["weights", "'a.pth'", "davidnet", "resnet18"]),
        ({"recipe": "slow"}, ["recipe", "'slow'", "original", "quick"]),
        ({"precision": "fp8"}, ["precision", "'fp8'", "auto, bf16-mixed, 16-mixed, 32-true"]),
        ({"precision": "16-mixed"}, ["precision", "'16-mixed'", "GPU", "bf16-mixed"]),
        ({"devices": "tpu"}, ["devices", "'tpu'", "auto, cpu, gpu"]),
        ({"devices": "gpu"}, ["devices", "'gpu'", "'auto' or 'cpu'"]),
        ({"run_name": "../up"}, ["run_name", "'../up'", "letters"]),
    ],
)
def test_impossible_values_are_refused_with_what_is_allowed(tmp_path, monkeypatch, changes, words):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(InputError) as refusal:
        make_plan(tmp_path, **changes)
    for word in words:
        assert word in str(refusal.value)
    assert not list(tmp_path.iterdir())


# What a plan decides


def test_batch_size_is_lowered_for_few_pictures_and_said(tmp_path):
    plan = make_plan(tmp_path, make_pictures(train_size=200), recipe=None, batch_size=None)
    assert plan.recipe.batch_size == plan.settings["batch_size"] == 8  # 30 are shown in an epoch
    usual = RECIPES["quick"].batch_size
    assert any(f"batch_size 8 instead of the recipe's {usual}," in note for note in plan.notes)


def test_batch_size_is_kept_where_it_was_given(tmp_path):
    plan = make_plan(tmp_path, make_pictures(train_size=200), batch_size=128)
    assert plan.recipe.batch_size == 128
    assert not any("batch_size" in note for note in plan.notes)


def test_recipe_depends_on_the_data_set(tmp_path):
    shapes = make_plan(tmp_path, recipe=None, epochs=None, max_lr=None)
    assert (shapes.recipe.name, shapes.recipe.epochs) == ("quick", 5)
    pictures = make_pictures(dataset="/mnt/own")
    own = make_plan(tmp_path, pictures, recipe=None, epochs=None, max_lr=None)
    assert (own.recipe.name, own.recipe.epochs, own.recipe.max_lr) == ("original", 20, 0.01)
