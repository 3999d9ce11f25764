"""Training: what it writes, when it goes on, resumes or refuses, and that it is repeatable."""

import csv
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from shutil import copytree

import numpy as np
import pytest
import torch
from pytorch_lightning import Trainer
from safetensors.torch import load_file, save_file
from sklearn.metrics import accuracy_score
from torch.nn import functional
from torch.nn.functional import cross_entropy

from utils import InputError, Interrupted
from utils.data import batches
from utils.data.augment import Augmentation, augment, normalise
from utils.data.picture_set import PictureSet, Split
from utils.data.sources import load_pictures
from utils.devices import choose_precision
from utils.files import ROOT
from utils.models.davidnet import DavidNet
from utils.models.registry import MODELS, create_model
from utils.models.speednet import SpeedNet
from utils.models.summary import layer_table
from utils.runs import Run
from utils.training.callbacks import LastCheckpoint, TrainingLog
from utils.training.fit import fit
from utils.training.plan import as_begun, plan_training
from utils.training.recipes import RECIPES
from utils.training.trained import load_network

EPOCHS, BATCH_SIZE, TRAIN_SIZE, TEST_SIZE = 3, 8, 44, 33
STEPS_PER_EPOCH = 6  # the last batch of each epoch holds only 4 pictures
EVAL_BATCH_SIZE = 8  # the last batch of each evaluation holds only 1


class SmallDavidNet(DavidNet):
    """Fast enough to be trained many times."""

    def __init__(self, num_classes=10, image_size=32, width=4):
        super().__init__(num_classes, width, image_size)


@pytest.fixture(scope="module", autouse=True)
def small_network():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "davidnet", SmallDavidNet)
        patch.setattr(batches, "EVAL_BATCH_SIZE", EVAL_BATCH_SIZE)
        yield


def make_pictures(train_size=TRAIN_SIZE, test_size=TEST_SIZE, **options):
    """Noisy pictures whose brightness tells the class."""
    generator = torch.Generator().manual_seed(5)

    def split(size):
        targets = torch.randint(0, 3, (size,), generator=generator)
        images = torch.randint(0, 120, (size, 3, 16, 16), generator=generator)
        images += 40 * targets[:, None, None, None]
        return Split(images.to(torch.uint8), targets)

    options = {
        "dataset": "shapes", "data_dir": "data", "dataset_title": "drawn", "image_size": 16,
        "limit_train": None, "limit_test": None, "skip_unreadable": False, **options,
    }  # fmt: skip
    mean, std = (0.4, 0.4, 0.4), (0.2, 0.2, 0.2)
    return PictureSet(
        "shapes", "drawn", ("dark", "grey", "light"), split(train_size), split(test_size),
        mean, std, "fingerprint", ("a note of the source",), options,
    )  # fmt: skip


def make_plan(folder, pictures=None, **changes):
    settings = {
        "run_name": "run", "output_dir": folder, "epochs": EPOCHS, "batch_size": BATCH_SIZE,
        "max_lr": 0.01, "precision": "32-true", "devices": "cpu", **changes,
    }  # fmt: skip
    return plan_training(pictures or make_pictures(), **settings)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A complete run; tests only read it."""
    plan = make_plan(tmp_path_factory.mktemp("outputs"))
    fit(plan)
    return plan


def read_table(run, name):
    with open(run.path(name), newline="") as file:
        return list(csv.DictReader(file))


def weights(run):
    return load_file(run.path("model.safetensors"))


def same_weights(run, other):
    first, second = weights(run), weights(other)
    return first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)


def all_but_seconds(run):
    return [{**row, "seconds": None} for row in read_table(run, "metrics.csv")]


def all_files(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def direct_logits(run, split, pictures):
    """What the saved weights say, computed without anything of the training code."""
    network = SmallDavidNet(len(pictures.classes), pictures.image_size)
    network.load_state_dict(weights(run))
    network.eval()
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (pictures.mean, pictures.std))
    with torch.no_grad():
        return network((split.images.float() / 255 - mean) / std)


def never_fit(*_, **__):
    raise AssertionError("the Trainer was started")


# What a complete run leaves behind


def test_run_json_tells_everything_of_a_complete_run(trained):
    record = json.loads(trained.run.path("run.json").read_text())
    assert record["name"] == "run"
    assert record["status"] == "complete"
    assert record["settings"] == {
        "dataset": "shapes", "data_dir": "data", "dataset_title": "drawn", "image_size": 16,
        "limit_train": None, "limit_test": None, "skip_unreadable": False,
        "data_fingerprint": "fingerprint", "val_fraction": 0.0, "model": "davidnet",
        "recipe": "quick", "epochs": 3, "batch_size": 8, "max_lr": 0.01, "max_lr_source": "given",
        "warmup_share": 0.3, "initial_lr_divisor": 100.0, "final_lr_divisor": 1e4,
        "min_momentum": 0.85, "max_momentum": 0.9, "crop_padding": 4, "flip_probability": 0.5,
        "cutout_size": 8, "precision": "32-true", "devices": "cpu", "seed": 0,
        "optimizer": "adam", "label_smoothing": 0.0, "growth": [], "alternate_flips": False,
        "whitening": True,
        "skipped": 0.0,
        "jitter": 0.0,
        "views": 1,
    }  # fmt: skip
    data = record["data"]
    assert data["classes"] == ["dark", "grey", "light"]
    assert (data["train_size"], data["watched_size"], data["test_size"]) == (44, 33, 33)
    assert data["watched"] == "test"
    assert data["fingerprint"] == "fingerprint"
    assert data["notes"] == ["a note of the source"]
    assert data["mean"] == [0.4, 0.4, 0.4]
    count = sum(p.numel() for p in SmallDavidNet(3, 16).parameters())
    assert record["model"]["parameters"] == count
    assert record["device"]["type"] == "cpu"
    assert record["precision"] == "32-true"
    assert record["versions"]["torch"] == torch.__version__.split("+")[0] or (
        record["versions"]["torch"] == torch.__version__
    )
    assert 0 < record["seconds"]["watching"] < record["seconds"]["training"]
    assert record["started"] <= record["finished"]


def test_metrics_csv_has_a_row_an_epoch(trained):
    rows = read_table(trained.run, "metrics.csv")
    header = trained.run.path("metrics.csv").read_text().splitlines()[0]
    assert header == "epoch,step,lr,train_loss,train_acc,val_loss,val_acc,seconds"
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert [int(row["step"]) for row in rows] == [6, 12, 18]
    assert all(0 < float(row["seconds"]) < 60 for row in rows)


def test_steps_csv_has_a_row_a_step_of_a_short_training(trained):
    rows = read_table(trained.run, "steps.csv")
    assert list(rows[0]) == ["step", "epoch", "lr", "train_loss"]
    assert [int(row["step"]) for row in rows] == list(range(EPOCHS * STEPS_PER_EPOCH))
    assert [int(row["epoch"]) for row in rows] == [1] * 6 + [2] * 6 + [3] * 6


def test_learning_rates_in_the_tables_are_those_of_the_steps(trained):
    total = EPOCHS * STEPS_PER_EPOCH
    peak, low, last = 0.01, 1e-4, 1e-8
    peak_step = 0.3 * total - 1  # linear up over 30 % of all steps, then linear down
    expected = [
        low + (peak - low) * s / peak_step
        if s <= peak_step
        else peak + (last - peak) * (s - peak_step) / (total - 1 - peak_step)
        for s in range(total)
    ]
    rates = [float(row["lr"]) for row in read_table(trained.run, "steps.csv")]
    assert rates == pytest.approx(expected, rel=1e-6)
    of_epochs = [float(row["lr"]) for row in read_table(trained.run, "metrics.csv")]
    assert of_epochs == pytest.approx([expected[s] for s in (5, 11, 17)], rel=1e-6)


def test_train_loss_of_an_epoch_weighs_every_picture_alike(trained):
    losses = [float(row["train_loss"]) for row in read_table(trained.run, "steps.csv")]
    sizes = [8, 8, 8, 8, 8, 4]
    for epoch, row in enumerate(read_table(trained.run, "metrics.csv")):
        of_epoch = losses[epoch * STEPS_PER_EPOCH :][:STEPS_PER_EPOCH]
        expected = np.average(of_epoch, weights=sizes)
        assert float(row["train_loss"]) == pytest.approx(expected, rel=1e-5)


def test_last_epoch_in_metrics_csv_is_what_the_saved_weights_do(trained):
    pictures = trained.picture_set
    logits = direct_logits(trained.run, pictures.test, pictures)
    last = read_table(trained.run, "metrics.csv")[-1]
    loss = cross_entropy(logits, pictures.test.targets).item()
    accuracy = accuracy_score(pictures.test.targets, logits.argmax(1))
    assert float(last["val_loss"]) == pytest.approx(loss, rel=1e-4)
    assert float(last["val_acc"]) == pytest.approx(accuracy, abs=1e-6)


def test_test_figures_are_those_of_a_direct_evaluation(trained):
    pictures = trained.picture_set
    logits = direct_logits(trained.run, pictures.test, pictures)
    metrics = json.loads(trained.run.path("metrics.json").read_text())
    accuracy = accuracy_score(pictures.test.targets, logits.argmax(1))
    assert metrics["test_acc"] == pytest.approx(accuracy, abs=1e-6)
    loss = cross_entropy(logits, pictures.test.targets).item()
    assert metrics["test_loss"] == pytest.approx(loss, rel=1e-4)
    assert metrics["test_size"] == TEST_SIZE


def test_training_is_what_a_plain_loop_of_the_recipe_does(trained):
    pictures = trained.picture_set
    network = create_model("davidnet", num_classes=3, image_size=16, seed=0).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 0.01, EPOCHS * STEPS_PER_EPOCH, pct_start=0.3, anneal_strategy="linear",
        div_factor=100, final_div_factor=1e4, base_momentum=0.85, max_momentum=0.9,
    )  # fmt: skip
    sampler = trained.data_module().train_dataloader().sampler
    losses = []
    for epoch in range(EPOCHS):
        sampler.set_epoch(epoch)
        for indices in sampler:
            images = augment(
                pictures.train.images[indices], indices, Augmentation(4, 0.5, 8),
                pictures.mean, pictures.std, 0, epoch,
            )  # fmt: skip
            loss = cross_entropy(network(images), pictures.train.targets[indices])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
    logged = [float(row["train_loss"]) for row in read_table(trained.run, "steps.csv")]
    assert logged == pytest.approx(losses, rel=1e-3)
    for name, tensor in weights(trained.run).items():
        torch.testing.assert_close(tensor, network.state_dict()[name], rtol=1e-3, atol=1e-4)


def test_checkpoint_loads_without_running_code(trained):
    path = trained.run.path("checkpoints", "last.ckpt")
    checkpoint = torch.load(path, weights_only=True)
    assert checkpoint["global_step"] == EPOCHS * STEPS_PER_EPOCH
    assert checkpoint["optimizer_states"] and checkpoint["lr_schedulers"]


def test_tensorboard_holds_losses_accuracies_and_learning_rate(trained):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(trained.run.path("tensorboard")))
    events.Reload()
    tags = set(events.Tags()["scalars"])
    assert {"train_loss", "train_acc", "val_loss", "val_acc"} <= tags
    assert any(tag.startswith("lr") for tag in tags)
    logged = [event.value for event in events.Scalars("val_loss")]
    table = [float(row["val_loss"]) for row in read_table(trained.run, "metrics.csv")]
    assert logged == pytest.approx(table, rel=1e-5)


def test_nothing_is_left_beside_the_promised_files(trained):
    found = {str(path.relative_to(trained.run.folder)) for path in trained.run.folder.rglob("*")}
    events = {name for name in found if name.startswith("tensorboard/events.")}
    assert len(events) == 1
    assert found - events - {"tensorboard/hparams.yaml"} == {
        "run.json", "metrics.csv", "steps.csv", "metrics.json", "model.safetensors",
        "predictions.npz", "checkpoints", "checkpoints/last.ckpt", "tensorboard", ".lock",
    }  # fmt: skip


# Reuse, identity, overwrite


def test_complete_run_with_the_same_settings_is_reused_and_says_so(trained, monkeypatch, capsys):
    before = all_files(trained.run.folder)
    monkeypatch.setattr(Trainer, "fit", never_fit)
    run = fit(make_plan(trained.run.folder.parent))
    assert run.folder == trained.run.folder
    assert "reused" in capsys.readouterr().out
    assert all_files(trained.run.folder) == before


def test_run_whose_later_notebook_failed_is_reused_and_complete_again(
    trained, monkeypatch, tmp_path
):
    plan = copy_of(trained, tmp_path)
    plan.run.update_record(status="failed", failure={"notebook": "05"})
    monkeypatch.setattr(Trainer, "fit", never_fit)
    fit(plan)
    assert plan.run.status == "complete"
    assert "failure" not in plan.run.record


def copy_of(trained, folder, pictures=None, **changes):
    """A plan in a folder of its own that holds a copy of the complete run."""
    for name, content in all_files(trained.run.folder).items():
        path = folder / "run" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return make_plan(folder, pictures, **changes)


@pytest.mark.parametrize(
    ("changes", "listed"),
    [
        ({"seed": 1}, ["seed was 0, now 1"]),
        ({"epochs": 5, "max_lr": 0.02}, ["epochs was 3, now 5", "max_lr was 0.01, now 0.02"]),
        ({"val_fraction": 0.25}, ["val_fraction was 0.0, now 0.25"]),
        ({"precision": "bf16-mixed"}, ["precision was '32-true', now 'bf16-mixed'"]),
    ],
)
def test_other_settings_under_the_same_name_are_refused_and_listed(
    trained, monkeypatch, changes, listed
):
    before = all_files(trained.run.folder)
    monkeypatch.setattr(Trainer, "fit", never_fit)
    with pytest.raises(InputError) as refusal:
        fit(make_plan(trained.run.folder.parent, **changes))
    for words in listed:
        assert words in str(refusal.value)
    assert "overwrite=True" in str(refusal.value)
    assert str(refusal.value).count(" was ") == len(listed)
    assert all_files(trained.run.folder) == before


def test_other_pictures_under_the_same_name_are_refused(trained, monkeypatch):
    monkeypatch.setattr(Trainer, "fit", never_fit)
    changed = replace(make_pictures(), fingerprint="other")
    with pytest.raises(InputError, match="it was trained on other pictures"):
        fit(make_plan(trained.run.folder.parent, changed))
    with pytest.raises(InputError, match="limit_train was None, now 20"):
        fit(make_plan(trained.run.folder.parent, make_pictures(limit_train=20)))


def test_title_place_and_device_are_no_identity(trained, monkeypatch, tmp_path):
    pictures = make_pictures(
        dataset_title="Another title", data_dir="/mnt/elsewhere", dataset="/mnt/moved"
    )
    plan = copy_of(trained, tmp_path, pictures, recipe="quick")
    settings = {**plan.run.settings, "devices": "cuda"}
    plan.run.update_record(settings=settings)
    monkeypatch.setattr(Trainer, "fit", never_fit)
    assert fit(plan).status == "complete"


def test_overwrite_replaces_the_run(trained, tmp_path):
    plan = copy_of(trained, tmp_path, seed=1, epochs=1)
    plan.run.update_metrics(made_by_05=1)
    plan.run.write_arrays("predictions.npz", index=np.arange(3))
    plan.run.write_json("lr_finder.json", {"suggestion": 0.1})
    fit(plan, overwrite=True)
    fresh = make_plan(tmp_path, run_name="fresh", seed=1, epochs=1)
    fit(fresh)
    assert same_weights(plan.run, fresh.run)
    assert all_but_seconds(plan.run) == all_but_seconds(fresh.run)
    assert plan.run.settings == fresh.run.settings
    assert plan.run.read_json("metrics.json") == fresh.run.read_json("metrics.json")
    remade, expected = (r.read_arrays("predictions.npz") for r in (plan.run, fresh.run))
    np.testing.assert_array_equal(remade["logits"], expected["logits"])
    assert plan.run.path("lr_finder.json").exists()
    assert len(list(plan.run.path("tensorboard").glob("events.*"))) == 1


def test_derived_name_tells_what_differs_from_the_recipe(tmp_path):
    plain = make_plan(tmp_path, run_name=None, epochs=None, batch_size=None, max_lr=None)
    assert plain.run.name == "shapes-quick-seed0-image_size=16"
    other = make_plan(tmp_path, run_name=None, epochs=2, batch_size=None, max_lr=None, seed=7)
    assert other.run.name == "shapes-quick-seed7-epochs=2-image_size=16"


# Interruption


class GoneError(Exception):
    """Stands for a machine that went away."""


def interrupt(monkeypatch, method, error, when):
    """Let a method of TrainingLog raise once the condition on the Trainer holds."""
    original = getattr(TrainingLog, method)

    def breaks(self, trainer, *arguments):
        if when(trainer):
            raise error
        return original(self, trainer, *arguments)

    monkeypatch.setattr(TrainingLog, method, breaks)


def check_resumes_like(plan, trained, capsys, status="running"):
    assert plan.run.status == status
    assert not plan.run.is_trained
    capsys.readouterr()
    fit(plan)
    assert "resumed" in capsys.readouterr().out
    assert plan.run.status == "complete"
    assert all_but_seconds(plan.run) == all_but_seconds(trained.run)
    assert read_table(plan.run, "steps.csv") == read_table(trained.run, "steps.csv")
    assert same_weights(plan.run, trained.run)
    assert plan.run.read_json("metrics.json") == trained.run.read_json("metrics.json")


def test_run_interrupted_at_an_epochs_end_resumes_to_the_same_result(trained, tmp_path, capsys):
    plan = make_plan(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, "on_train_epoch_end", GoneError(), lambda t: t.current_epoch == 1)
        with pytest.raises(GoneError):
            fit(plan)
    assert len(read_table(plan.run, "metrics.csv")) == 1
    check_resumes_like(plan, trained, capsys)


def test_run_stopped_by_hand_within_an_epoch_resumes_to_the_same_result(trained, tmp_path, capsys):
    plan = make_plan(tmp_path)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, "on_train_batch_end", KeyboardInterrupt(), lambda t: t.global_step == 15)
        with pytest.raises(Interrupted, match=r"2 of 3 epochs are finished.*Run the same again"):
            fit(plan)
    assert signal.getsignal(signal.SIGINT) is handler  # Ctrl+C works on
    assert plan.run.record["failure"] == {"error": "interrupted"}
    check_resumes_like(plan, trained, capsys, status="failed")


def test_run_that_stopped_between_table_and_checkpoint_resumes_to_the_same_result(
    trained, tmp_path, capsys
):
    plan = make_plan(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        save = LastCheckpoint.on_train_epoch_end

        def breaks(self, trainer, module):
            if trainer.current_epoch == 1:
                raise GoneError
            save(self, trainer, module)

        patch.setattr(LastCheckpoint, "on_train_epoch_end", breaks)
        with pytest.raises(GoneError):
            fit(plan)
    assert len(read_table(plan.run, "metrics.csv")) == 2  # one more than the checkpoint knows
    check_resumes_like(plan, trained, capsys)


def test_run_that_stopped_before_its_test_is_finished_without_training_again(
    trained, tmp_path, capsys
):
    plan = make_plan(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("utils.training.fit._finish", lambda *_: (_ for _ in ()).throw(GoneError()))
        with pytest.raises(GoneError):
            fit(plan)
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, "on_train_batch_end", AssertionError("trained"), lambda t: True)
        check_resumes_like(plan, trained, capsys)


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
    stopped, begun, asked, give, tmp_path, monkeypatch
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
    stopped, tmp_path, monkeypatch, capsys
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


class SmallSpeedNet(SpeedNet):
    """Fast enough to be trained many times."""

    def __init__(self, num_classes=10, image_size=32):
        super().__init__(num_classes, 4, image_size)


def make_speed_plan(folder, monkeypatch, **changes):
    """All parts of speed, on pictures that grow from 16 to 24 pixels."""
    monkeypatch.setitem(MODELS, "speednet", SmallSpeedNet)
    pictures = make_pictures(image_size=24)
    splits = {
        name: Split(functional.pad(s.images.float(), (4,) * 4, "reflect").byte(), s.targets)
        for name, s in (("train", pictures.train), ("test", pictures.test))
    }
    pictures = replace(pictures, **splits)
    recipe = replace(RECIPES["speed"], growth=((0.67, 0.4),))
    return make_plan(folder, pictures, recipe=recipe, max_lr=None, **changes)


def test_a_run_of_speed_stopped_among_its_growing_pictures_resumes_bit_for_bit(
    tmp_path, monkeypatch, capsys
):
    whole = make_speed_plan(tmp_path / "whole", monkeypatch)
    assert whole.data_module().sides == [16, 24, 24]
    fit(whole)
    plan = make_speed_plan(tmp_path / "stopped", monkeypatch)
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, "on_train_batch_end", GoneError(), lambda t: t.global_step == 9)
        with pytest.raises(GoneError):
            fit(plan)
    again = make_speed_plan(tmp_path / "stopped", monkeypatch)
    for run in (whole.run, again.run):
        monkeypatch.setattr(type(run), "read_json", without_averaged_seconds(type(run).read_json))
    check_resumes_like(again, whole, capsys)


def without_averaged_seconds(read_json):
    def read(self, name):
        content = read_json(self, name)
        content.get("averaged", {}).pop("seconds", None)
        return content

    return read


def test_every_accuracy_says_over_how_many_views(tmp_path, monkeypatch):
    run = fit(make_speed_plan(tmp_path, monkeypatch, epochs=1))
    metrics = run.read_json("metrics.json")
    assert metrics["views"].startswith("one")
    averaged = metrics["averaged"]
    assert (averaged["views"], averaged["precision"]) == (6, "32-true")
    assert 0 <= averaged["test_acc"] <= 1 and averaged["seconds"] > 0
    predictions = run.read_arrays("predictions.npz")  # what the maps explain: one view
    right = (predictions["predicted"] == predictions["target"]).mean()
    assert metrics["test_acc"] == pytest.approx(right)


def test_views_can_be_switched_off_and_on(tmp_path, monkeypatch):
    off = make_speed_plan(tmp_path / "off", monkeypatch, epochs=1, views=1)
    assert "averaged" not in fit(off).read_json("metrics.json")
    on = fit(make_plan(tmp_path / "on", epochs=1, views=2)).read_json("metrics.json")
    assert on["averaged"]["views"] == 2


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


def test_a_recipe_brings_its_network_and_another_may_be_asked_for(tmp_path, monkeypatch):
    assert make_speed_plan(tmp_path, monkeypatch).settings["model"] == "speednet"
    plan = make_plan(tmp_path, recipe="speed", model="davidnet", run_name=None)
    assert plan.settings["model"] == "davidnet"
    assert "model=davidnet" in plan.run.name


def test_a_run_of_an_earlier_version_is_still_known(trained, tmp_path):
    run = make_plan(tmp_path).run
    copytree(trained.run.folder, run.folder)
    settings = dict(run.settings)
    added = "optimizer label_smoothing growth alternate_flips views whitening jitter"
    for name in added.split():
        del settings[name]
    run.update_record(settings=settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("utils.training.fit._train", never_fit)
        assert fit(make_plan(tmp_path)).is_trained


# Divergence


def test_diverging_training_is_said(tmp_path, monkeypatch):
    forward = SmallDavidNet.forward

    def explodes(self, images):
        return forward(self, images) * float("nan" if self.training else 1)

    monkeypatch.setattr(SmallDavidNet, "forward", explodes)
    plan = make_plan(tmp_path)
    with pytest.raises(InputError, match="diverged") as refusal:
        fit(plan)
    assert "epoch 1" in str(refusal.value)
    assert "max_lr" in str(refusal.value)
    assert not plan.run.is_trained
    assert not plan.run.path("checkpoints", "last.ckpt").exists()


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
        ({"model": "resnet50"}, ["model", "'resnet50'", "davidnet"]),
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


# Precision


@pytest.mark.parametrize(
    ("capability", "precision"),
    [((7, 0), "16-mixed"), ((7, 5), "16-mixed"), ((8, 0), "bf16-mixed"), ((9, 0), "bf16-mixed")],
)
def test_precision_of_a_gpu_follows_its_capability(monkeypatch, capability, precision):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
    chosen, reason = choose_precision("auto", "cuda")
    assert chosen == precision
    assert "{}.{}".format(*capability) in reason


@pytest.mark.parametrize(
    ("capabilities", "precision", "said"),
    [
        ({"amx_bf16": True, "avx512_bf16": True}, "bf16-mixed", "AMX"),
        ({"amx_bf16": False, "avx512_bf16": True}, "bf16-mixed", "AVX-512 BF16"),
        ({"amx_bf16": False, "avx512_bf16": False, "avx512_f": True}, "32-true", "no fast"),
        ({"neon": True}, "32-true", "no fast"),
    ],
)
def test_precision_of_a_cpu_follows_its_instructions(monkeypatch, capabilities, precision, said):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    chosen, reason = choose_precision("auto", "cpu")
    assert chosen == precision
    assert said in reason


@pytest.mark.parametrize(
    ("amx", "avx512", "precision"),
    [
        (True, False, "bf16-mixed"),
        (False, True, "bf16-mixed"),
        (False, False, "32-true"),
    ],
)
def test_precision_of_a_cpu_under_an_older_torch(monkeypatch, amx, avx512, precision):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512, raising=False)
    assert choose_precision("auto", "cpu")[0] == precision


def test_precision_asked_for_is_taken_whatever_the_hardware(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (7, 5))
    assert choose_precision("32-true", "cuda")[0] == "32-true"
    assert choose_precision("16-mixed", "cuda")[0] == "16-mixed"


# What a plan decides


def test_batch_size_is_lowered_for_few_pictures_and_said(tmp_path):
    plan = make_plan(tmp_path, make_pictures(train_size=200), batch_size=None)
    assert plan.recipe.batch_size == plan.settings["batch_size"] == 16
    assert any("batch_size 16" in note and "64" in note for note in plan.notes)


def test_batch_size_is_kept_where_it_was_given(tmp_path):
    plan = make_plan(tmp_path, make_pictures(train_size=200), batch_size=128)
    assert plan.recipe.batch_size == 128
    assert not any("batch_size" in note for note in plan.notes)


def test_held_out_pictures_are_watched_and_not_trained_on(tmp_path):
    plan = make_plan(tmp_path, val_fraction=0.25, epochs=1)
    run = fit(plan)
    data = run.record["data"]
    assert data["watched"] == "validation"
    assert data["train_size"] + data["watched_size"] == TRAIN_SIZE
    assert data["watched_size"] == pytest.approx(0.25 * TRAIN_SIZE, abs=2)
    assert data["test_size"] == TEST_SIZE
    pictures, module = plan.picture_set, plan.data_module()
    train = {image.numpy().tobytes() for image in module.train.images}
    assert not train & {image.numpy().tobytes() for image in module.watched.images}
    last = read_table(run, "metrics.csv")[-1]
    loss = cross_entropy(direct_logits(run, module.watched, pictures), module.watched.targets)
    assert float(last["val_loss"]) == pytest.approx(loss.item(), rel=1e-4)
    tested = direct_logits(run, pictures.test, pictures).argmax(1)
    accuracy = accuracy_score(pictures.test.targets, tested)
    assert run.read_json("metrics.json")["test_acc"] == pytest.approx(accuracy, abs=1e-6)


def test_recipe_depends_on_the_data_set(tmp_path):
    shapes = make_plan(tmp_path, epochs=None, max_lr=None)
    assert (shapes.recipe.name, shapes.recipe.epochs) == ("quick", 2)
    own = make_plan(tmp_path, make_pictures(dataset="/mnt/own"), epochs=None, max_lr=None)
    assert (own.recipe.name, own.recipe.epochs, own.recipe.max_lr) == ("original", 20, 0.01)


# Repeatability


def test_same_seed_gives_the_same_training_and_another_seed_another(trained, tmp_path):
    torch.manual_seed(99)  # nothing may depend on the global generator
    again, other = make_plan(tmp_path, run_name="again"), make_plan(tmp_path, seed=1)
    fit(again)
    fit(other)
    assert same_weights(again.run, trained.run)
    assert all_but_seconds(again.run) == all_but_seconds(trained.run)
    assert not same_weights(other.run, trained.run)
    assert all_but_seconds(other.run) != all_but_seconds(trained.run)


def test_bfloat16_training_tests_in_float32(tmp_path):
    plan = make_plan(tmp_path, precision="bf16-mixed", epochs=1)
    run = fit(plan)
    assert run.record["precision"] == "bf16-mixed"
    logits = direct_logits(run, plan.picture_set.test, plan.picture_set)
    loss = cross_entropy(logits, plan.picture_set.test.targets).item()
    assert run.read_json("metrics.json")["test_loss"] == pytest.approx(loss, rel=1e-5)
    assert all(tensor.dtype != torch.bfloat16 for tensor in weights(run).values())


def test_pictures_of_a_source_train_and_are_recorded(tmp_path):
    pictures = load_pictures(
        "shapes", data_dir=tmp_path / "data", image_size=16, limit_train=40, limit_test=20
    )
    run = fit(make_plan(tmp_path, pictures, epochs=1))
    settings = run.record["settings"]
    assert (settings["limit_train"], settings["limit_test"], settings["image_size"]) == (40, 20, 16)
    assert settings["data_fingerprint"] == pictures.fingerprint
    assert run.read_json("metrics.json")["test_size"] == 20


# The table of layers


def test_layer_table_of_the_full_network_has_the_published_counts():
    table = layer_table(DavidNet(), image_size=32, batch_size=1)
    counted = table[table["parameters"] > 0]
    assert counted["parameters"].tolist() == [
        1_728, 128, 73_728, 256, 147_456, 256, 147_456, 256, 294_912, 512,
        1_179_648, 1_024, 2_359_296, 1_024, 2_359_296, 1_024, 5_130,
    ]  # fmt: skip
    assert table["parameters"].sum() == 6_573_130
    outputs = dict(zip(table["layer"], table["output"], strict=True))
    assert outputs["prep.relu"] == "1×64×32×32"
    assert outputs["layer1.down.pool"] == "1×128×16×16"
    assert outputs["layer1.residual.block2.relu"] == "1×128×16×16"
    assert outputs["layer2.pool"] == "1×256×8×8"
    assert outputs["layer3.down.pool"] == "1×512×4×4"
    assert outputs["layer3.residual.block2.relu"] == "1×512×4×4"
    assert outputs["head.linear"] == "1×10"
    assert table["input"].iloc[0] == "1×3×32×32"


def test_layer_table_leaves_the_network_as_it_was():
    network = SmallDavidNet(3, 16).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    table = layer_table(network, image_size=16, batch_size=7)
    assert table["output"].iloc[-1] == "7×3"
    assert all(module.training for module in network.modules())
    assert all(torch.equal(tensor, before[n]) for n, tensor in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())


# Loading


def test_loaded_network_is_the_trained_one(trained):
    network = load_network(trained.run)
    assert not any(module.training for module in network.modules())
    assert all(p.dtype == torch.float32 for p in network.parameters())
    assert network.layer2.conv.weight.is_contiguous(memory_format=torch.channels_last)
    pictures = trained.picture_set
    with torch.no_grad():
        logits = network(normalise(pictures.test.images, pictures.mean, pictures.std))
    direct = direct_logits(trained.run, pictures.test, pictures)
    torch.testing.assert_close(logits, direct, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("damage", ["missing", "cut short", "no safetensors", "other network"])
def test_weights_that_are_not_this_runs_are_refused(trained, tmp_path, damage):
    run = copy_of(trained, tmp_path).run
    path = run.path("model.safetensors")
    if damage == "missing":
        path.unlink()
    elif damage == "cut short":
        path.write_bytes(path.read_bytes()[:-1000])
    elif damage == "no safetensors":
        path.write_bytes(b"weights")
    else:
        save_file(SmallDavidNet(3, 16, width=5).state_dict(), path)
    with pytest.raises(InputError, match=r"model\.safetensors"):
        load_network(run)


def test_network_of_a_run_that_never_was_is_refused(tmp_path):
    with pytest.raises(InputError):
        load_network(Run("never", tmp_path))


# What is printed

QUIET_SCRIPT = """
import sys
from tests.test_training import make_plan, MODELS, SmallDavidNet
from utils.models.summary import layer_table
from utils.training import lr_finder
from utils.training.fit import fit
from utils.training.predictions import predict_test
MODELS["davidnet"] = SmallDavidNet
plan = make_plan(sys.argv[1], epochs=2)
layer_table(plan.network(), 16)
lr_finder.sweep(plan, steps=10)
print("now training")
run = fit(plan)
predict_test(run, plan.picture_set, devices="cpu")
fit(plan)
"""


def test_nothing_is_printed_but_our_own_lines_and_nothing_written_elsewhere(tmp_path):
    here = tmp_path / "here"
    here.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", QUIET_SCRIPT, str(tmp_path / "outputs")], cwd=here,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not list(here.iterdir())
    printed = done.stdout + done.stderr
    for chatter in ("GPU", "TPU", "HPU", "💡", "Tip", "max_epochs", "max_steps", "arning",
                    "Restor", "log_every_n_steps", "`Trainer", "rank_zero"):  # fmt: skip
        assert chatter not in printed, printed
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    assert lines[0] == "now training"
    assert [line.split()[:2] for line in lines[1:3]] == [["epoch", "1/2"], ["epoch", "2/2"]]
    assert "reused" in lines[3]
    assert lines[4:] == lines[1:3]  # how it went, again
    for line in done.stderr.replace("\r", "\n").splitlines():  # progress bars, and no more
        assert not line.strip() or line.startswith(("Training:", "Epoch", "Range test:")), line
