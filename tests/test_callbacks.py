"""What is logged and kept while training goes on: tables, events and the checkpoint."""

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score
from torch.nn.functional import cross_entropy

from helpers.training import EPOCHS, STEPS_PER_EPOCH, direct_logits, read_table
from utils import InputError
from utils.training.callbacks import RunCheckpointIO
from utils.training.plan import CHECKPOINT


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
    rates = [event.value for event in events.Scalars("learning_rate")]
    steps = [float(row["lr"]) for row in read_table(trained.run, "steps.csv")]
    assert rates == pytest.approx(steps, rel=1e-5)
    logged = [event.value for event in events.Scalars("val_loss")]
    table = [float(row["val_loss"]) for row in read_table(trained.run, "metrics.csv")]
    assert logged == pytest.approx(table, rel=1e-5)


def test_a_checkpoint_of_an_earlier_version_lacks_what_that_had_no_name_for(trained, tmp_path):
    checkpoint = torch.load(trained.run.path(*CHECKPOINT), weights_only=True)
    for name in ("affine", "shrink", "holes", "jitter", "skipped"):
        del checkpoint["identity"][name]
    torch.save(checkpoint, tmp_path / "old.ckpt")
    reader = RunCheckpointIO(trained.identity)
    assert reader.load_checkpoint(tmp_path / "old.ckpt")["epoch"] == checkpoint["epoch"]
    otherwise = RunCheckpointIO({**trained.identity, "jitter": 0.2})
    with pytest.raises(InputError, match="belongs to a training with other settings"):
        otherwise.load_checkpoint(tmp_path / "old.ckpt")
