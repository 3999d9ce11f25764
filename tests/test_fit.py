"""Training: what it writes, when it goes on, resumes or refuses, and that it is repeatable."""

import json
import os
import signal
import time
from dataclasses import replace
from functools import partial
from shutil import copytree

import numpy as np
import pytest
import torch
from pytorch_lightning import Trainer
from sklearn.metrics import accuracy_score
from torch.nn.functional import cross_entropy

from helpers.training import (
    EPOCHS,
    STEPS_PER_EPOCH,
    TEST_SIZE,
    TRAIN_SIZE,
    GoneError,
    SmallDavidNet,
    SmallSpeedNet,
    all_but_seconds,
    all_files,
    copy_of,
    direct_logits,
    interrupt,
    make_pictures,
    make_plan,
    make_speed_plan,
    never_fit,
    read_table,
    same_weights,
    weights,
)
from utils import InputError, Interrupted
from utils.batch.one_run import COMPLETE, INTERRUPTED, state_of
from utils.data.augment import Augmentation, augment
from utils.data.sources import load_pictures
from utils.models.registry import MODELS, create_model
from utils.pipeline.sequence import NOTEBOOKS
from utils.publish.book import chapters_of
from utils.runs import MEASURED
from utils.training import lr_finder
from utils.training.callbacks import LastCheckpoint
from utils.training.fit import fit

pytestmark = pytest.mark.usefixtures("small_network")


# What a complete run leaves behind


def test_run_json_tells_everything_of_a_complete_run(trained):
    record = json.loads(trained.run.path("run.json").read_text())
    assert record["name"] == "run"
    assert record["status"] == "complete"
    assert record["settings"] == {
        "dataset": "shapes", "data_dir": "data", "dataset_title": "drawn", "image_size": 16,
        "limit_train": None, "limit_test": None, "skip_unreadable": False,
        "labels_from": None, "keep_together": "copies",
        "data_fingerprint": "fingerprint", "val_fraction": 0.0, "balanced": False,
        "model": "davidnet",
        "recipe": "original", "epochs": 3, "batch_size": 8, "max_lr": 0.01,
        "max_lr_source": "given",
        "warmup_share": 0.3, "initial_lr_divisor": 100.0, "final_lr_divisor": 1e4,
        "min_momentum": 0.85, "max_momentum": 0.9, "crop_padding": 4, "flip_probability": 0.5,
        "cutout_size": 8, "precision": "32-true", "devices": "cpu", "seed": 0,
        "num_nodes": 1, "strategy": "auto",
        "optimizer": "adam", "label_smoothing": 0.0, "growth": [], "alternate_flips": False,
        "whitening": True,
        "skipped": 0.0,
        "jitter": 0.0,
        "affine": None,
        "shrink": None,
        "holes": None,
        "views": 1,
        "depth_decay": 1.0,
        "head_share": 0.0,
        "fixed_statistics": False,
        "weights": "random",
        "weights_sha256": None,
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
    with pytest.raises(InputError, match="it was trained on different pictures"):
        fit(make_plan(trained.run.folder.parent, changed))
    with pytest.raises(InputError, match="limit_train was None, now 20"):
        fit(make_plan(trained.run.folder.parent, make_pictures(limit_train=20)))


def test_title_place_and_device_are_no_identity(trained, monkeypatch, tmp_path):
    pictures = make_pictures(
        dataset_title="Another title", data_dir="/mnt/elsewhere", dataset="/mnt/moved"
    )
    plan = copy_of(trained, tmp_path, pictures)
    settings = {**plan.run.settings, "devices": "cuda"}
    plan.run.update_record(settings=settings)
    monkeypatch.setattr(Trainer, "fit", never_fit)
    assert fit(plan).status == "complete"


def test_overwrite_replaces_the_run(trained, tmp_path):
    plan = copy_of(trained, tmp_path, seed=1, epochs=1)
    plan.run.update_metrics(made_by_05=1)
    plan.run.write_arrays("predictions.npz", index=np.arange(3))
    plan.run.write_json("lr_finder.json", {"suggestion": 0.1})
    measured = plan.run.path(MEASURED, "of-the-old-network.csv")
    measured.parent.mkdir()
    measured.write_text("method,block,measure,mean\n")
    fit(plan, overwrite=True)
    assert not measured.parent.exists()
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


def test_overwrite_leaves_nothing_that_chapters_made_of_the_old_network(trained, tmp_path):
    plan = copy_of(trained, tmp_path, seed=1, epochs=1)
    run, of_pictures = plan.run, ["01_data_exploration", "02_lr_finder"]
    figures = ("01_samples", "03_network", "04_losses", "05_confusion", "06_misclassified")
    files = [*(f"notebooks/{name}.ipynb" for name in NOTEBOOKS), "export/model.onnx"]
    files += [*(f"figures/{name}.png" for name in figures), "space/app.py"]
    for name in files:
        run.path(name).parent.mkdir(exist_ok=True)
        run.path(name).write_text("{}")
    os.utime(run.path("figures/03_network.png"), (0, 0))
    seconds = dict.fromkeys([*NOTEBOOKS, "training", "watching"], 1e9)
    run.update_record(status="complete", seconds=seconds)
    assert state_of(run, list(NOTEBOOKS)) == COMPLETE
    fit(plan, overwrite=True)
    assert {name for name in files if run.has(name)} == {
        *(f"notebooks/{name}.ipynb" for name in of_pictures),
        "figures/01_samples.png", "space/app.py",
    }  # fmt: skip
    assert not run.path("export").exists()
    assert run.record["seconds"].keys() == {*of_pictures, "training", "watching"}
    assert run.record["seconds"]["training"] < 1e9 > run.record["seconds"]["watching"]
    assert run.status == "complete" and state_of(run, list(NOTEBOOKS)) == INTERRUPTED
    with pytest.raises(InputError, match="lacks 03_training, 04_curves, 05_"):
        chapters_of(run)


def test_overwrite_keeps_what_the_running_chapter_has_drawn(trained, tmp_path):
    plan = copy_of(trained, tmp_path, seed=1, epochs=1)
    drawn = plan.run.path("figures", "03_network.png")
    drawn.parent.mkdir()
    drawn.write_text("drawn before the new training")
    os.utime(drawn, (time.time() + 2,) * 2)
    fit(plan, overwrite=True)
    assert drawn.exists()


# Interruption


def check_resumes_like(plan, trained, capsys, status="running"):
    assert plan.run.status == status
    assert not plan.run.is_trained
    capsys.readouterr()
    fit(plan)
    assert "resumed" in capsys.readouterr().out
    assert plan.run.status == "complete"
    assert all_but_seconds(plan.run) == all_but_seconds(trained.run)
    assert read_table(plan.run, "steps.csv") == read_table(trained.run, "steps.csv")
    seconds = plan.run.record["seconds"]  # of all epochs, those before the interruption included
    epochs = sum(float(row["seconds"]) for row in read_table(plan.run, "metrics.csv"))
    assert seconds["training"] == pytest.approx(epochs, abs=0.01) and seconds["watching"] < epochs
    assert same_weights(plan.run, trained.run)
    assert plan.run.read_json("metrics.json") == trained.run.read_json("metrics.json")


@pytest.mark.slow
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


@pytest.mark.slow
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


# The parts of the recipe speed


@pytest.mark.slow
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
    assert not plan.run.is_trained and plan.run.status == "failed"
    assert not plan.run.path("checkpoints", "last.ckpt").exists()


# Failures


def test_a_training_that_ends_in_an_error_is_marked_failed_with_it(tmp_path, monkeypatch):
    plan = make_plan(tmp_path)
    with monkeypatch.context() as patch, pytest.raises(AssertionError, match="was started"):
        patch.setattr(Trainer, "fit", never_fit)
        fit(plan)
    assert plan.run.status == "failed" and "was started" in plan.run.failure
    assert fit(plan).status == "complete" and plan.run.failure == ""


def test_a_test_that_ends_in_an_error_marks_the_run_failed(tmp_path, monkeypatch):
    def no_memory(*_):
        raise RuntimeError("not enough memory")

    plan = make_plan(tmp_path, epochs=1)
    monkeypatch.setattr("utils.training.fit.evaluate", no_memory)
    with pytest.raises(RuntimeError):
        fit(plan)
    assert (plan.run.status, plan.run.failure) == ("failed", "not enough memory")


@pytest.mark.parametrize(
    "begin", [fit, partial(lr_finder.sweep, steps=10)], ids=["training", "range test"]
)
def test_a_last_batch_that_cannot_be_normalised_is_refused_with_what_can(
    tmp_path, monkeypatch, begin
):
    monkeypatch.setitem(MODELS, "speednet", SmallSpeedNet)
    settings = {"recipe": "speed", "max_lr": None, "epochs": 1}  # of 24 pictures it shows 17
    with pytest.raises(InputError, match=r"batch_size 8, .* 17 pictures .*Give batch_size 9, or"):
        begin(make_plan(tmp_path, make_pictures(train_size=24), **settings))
    assert not (tmp_path / "run" / "run.json").exists()
    plan = make_plan(tmp_path, make_pictures(train_size=24), **{**settings, "batch_size": 9})
    begin(plan)


def test_a_last_batch_of_one_picture_is_no_matter_where_the_last_map_has_several_pixels(tmp_path):
    assert fit(make_plan(tmp_path, make_pictures(train_size=17), epochs=1)).status == "complete"


# What a plan decides


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


# Repeatability


@pytest.mark.slow
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


@pytest.mark.slow
def test_pictures_of_a_source_train_and_are_recorded(tmp_path):
    pictures = load_pictures(
        dataset="shapes", data_dir=tmp_path / "data", image_size=16, limit_train=40, limit_test=20
    )
    run = fit(make_plan(tmp_path, pictures, epochs=1))
    settings = run.record["settings"]
    assert (settings["limit_train"], settings["limit_test"], settings["image_size"]) == (40, 20, 16)
    assert settings["data_fingerprint"] == pictures.fingerprint
    assert run.read_json("metrics.json")["test_size"] == 20
