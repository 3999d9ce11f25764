"""What training logged: read back as written, and summed up."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from helpers.records import valid_record
from utils import InputError
from utils.runs import Run
from utils.training.history import (
    HISTORY_COLUMNS,
    STEP_COLUMNS,
    picture_sides,
    pooled_accuracy,
    read_history,
    read_steps,
    summarise,
)
from utils.training.recipes import RECIPES

ROWS = [
    # epoch, step, lr, train_loss, train_acc, val_loss, val_acc, seconds
    (1, 98, 2e-3, 1.50, 0.40, 1.40, 0.50, 12.5),
    (2, 196, 1e-2, 0.90, 0.70, 0.60, 0.80, 11.0),
    (3, 294, 5e-3, 0.50, 0.85, 0.70, 0.80, 11.25),
    (4, 392, 1e-8, 0.25, 0.95, 0.80, 0.75, 10.25),
]


@pytest.fixture
def history():
    return pd.DataFrame(ROWS, columns=HISTORY_COLUMNS)


def test_summary_of_a_table_made_by_hand(history):
    assert summarise(history) == pytest.approx(
        {
            "epochs": 4,
            "seconds": 45.0,
            "final_train_loss": 0.25,
            "final_train_acc": 0.95,
            "final_val_loss": 0.80,
            "final_val_acc": 0.75,
            "best_acc": 0.80,
            "best_epoch": 2,  # the first of two equals
            "lowest_loss": 0.60,
            "lowest_loss_epoch": 2,
            "gap": 0.20,
            "epochs_since_best": 2,
        }
    )


def test_best_accuracy_and_lowest_loss_may_fall_in_different_epochs(history):
    history.loc[3, "val_acc"] = 0.9
    summary = summarise(history)
    assert (summary["best_epoch"], summary["lowest_loss_epoch"]) == (4, 2)
    assert summary["epochs_since_best"] == 0
    assert summary["gap"] == pytest.approx(0.05)


def test_summary_of_one_epoch_and_of_a_table_with_another_index(history):
    assert summarise(history[:1])["best_epoch"] == 1
    assert summarise(history[1:].set_axis([7, 8, 9]))["best_epoch"] == 2


def test_summary_can_be_written_as_json(history, tmp_path):
    run = Run("r", tmp_path)
    run.write_json("summary.json", summarise(history))
    assert run.read_json("summary.json") == summarise(history)


def test_history_comes_back_as_training_wrote_it(history, tmp_path):
    run = Run("r", tmp_path)
    run.write_csv("metrics.csv", HISTORY_COLUMNS, history.to_dict("records"))
    pd.testing.assert_frame_equal(read_history(run), history, check_dtype=False)
    assert list(read_history(run).columns) == [
        "epoch", "step", "lr", "train_loss", "train_acc", "val_loss", "val_acc", "seconds",
    ]  # fmt: skip


def test_steps_come_back_as_training_wrote_them(tmp_path):
    run = Run("r", tmp_path)
    rng = np.random.default_rng(0)
    steps = pd.DataFrame(rng.random((20, 4)), columns=STEP_COLUMNS).assign(step=range(0, 200, 10))
    run.write_csv("steps.csv", STEP_COLUMNS, steps.to_dict("records"))
    pd.testing.assert_frame_equal(read_steps(run), steps, check_dtype=False, check_exact=True)


def test_a_missing_or_damaged_history_is_refused(tmp_path):
    run = Run("r", tmp_path)
    with pytest.raises(InputError, match=r"metrics\.csv does not exist"):
        read_history(run)
    run.folder.mkdir()
    run.path("metrics.csv").write_text(",".join(HISTORY_COLUMNS) + "\n1,98,0.01\n")
    with pytest.raises(InputError, match=r"metrics\.csv is damaged"):
        read_history(run)
    run.path("steps.csv").write_text("step,epoch,lr,train_loss\n0,0.0,0.1,oops\n")
    with pytest.raises(InputError, match=r"steps\.csv is damaged"):
        read_steps(run)


def test_a_table_with_other_columns_is_refused(tmp_path):
    run = Run("r", tmp_path)
    run.write_csv("metrics.csv", ["epoch", "loss"], [{"epoch": 1, "loss": 2.0}])
    with pytest.raises(InputError, match=r"metrics\.csv"):
        read_history(run)


def test_picture_sides_are_those_the_recipe_trained_with(tmp_path):
    run = Run("r", tmp_path)
    recipe = replace(RECIPES["speed"], epochs=4, growth=((0.5, 0.5),))
    record = valid_record(**recipe.as_settings() | {"image_size": 48})
    run.update_record(**record)
    assert picture_sides(run) == [24, 24, 48, 48]
    run.update_record(**valid_record(**RECIPES["original"].as_settings()))
    assert picture_sides(run) == []


def test_pooled_accuracy_counts_every_picture_once(history):
    pooled = pooled_accuracy(history, shown=50_000, watched=10_000)
    assert pooled[0] == pytest.approx((50_000 * 0.40 + 10_000 * 0.50) / 60_000)
    assert pooled[3] == pytest.approx((50_000 * 0.95 + 10_000 * 0.75) / 60_000)
