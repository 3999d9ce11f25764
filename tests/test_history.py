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
    curves_in_short,
    gain_in_words,
    gap_by_epoch,
    gap_in_words,
    losses_in_words,
    picture_sides,
    pooled_accuracy,
    read_history,
    read_steps,
    result_in_words,
    rise_in_words,
    schedule_in_words,
    stopped_in_words,
    summarise,
    training_in_short,
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
            "epochs_since_best": 2,
        }
    )


def test_best_accuracy_and_lowest_loss_may_fall_in_different_epochs(history):
    history.loc[3, "val_acc"] = 0.9
    summary = summarise(history)
    assert (summary["best_epoch"], summary["lowest_loss_epoch"]) == (4, 2)
    assert summary["epochs_since_best"] == 0


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


# In words


def test_the_schedule_that_was_followed_is_said():
    steps = pd.DataFrame({"step": [0, 50, 1_199], "lr": [1e-4, 1e-2, 1e-8]})
    assert schedule_in_words(steps) == (
        "3 steps were logged. The rate began at 0.0001, was highest after 50 steps (0.01) and "
        "ended at 1e-08."
    )
    assert schedule_in_words(steps[:1]) == (
        "1 step was logged. The rate began at 0.0001, was highest at its first step (0.0001) and "
        "ended at 0.0001."
    )


@pytest.mark.parametrize(
    ("watched", "split"),
    [("test", "test split (watched)"), ("validation", "held-out part (watched)")],
)
def test_whatever_is_said_of_watched_figures_names_their_split(history, watched, split, tmp_path):
    assert losses_in_words(history, watched) == (
        f"The loss of the {split} was lowest in epoch 2 (0.600), and 0.800 after the last "
        "epoch; the train loss went from 1.500 to 0.250."
    )
    assert gain_in_words(history, watched) == (
        f"From epoch 2 to 4 the accuracy of the {split} changed by -5.0 points, to 75.00%."
    )
    gap = (
        f"In the last epoch train accuracy was 95.00%, and that of the {split} 80.00% before it "
        "and 75.00% after it: by the mean of these, the gap is +17.5 points."
    )
    assert gap_in_words(history, watched) == gap
    run = Run("r", tmp_path)
    record = valid_record()
    run.update_record(**record | {"data": record["data"] | {"watched": watched, "title": "a*b"}})
    assert curves_in_short(run, history) == (
        f"Run **r** on a\\*b, 4 epochs, figures of the {split} in 32-true: accuracy 75.00% at "
        "the end and 80.00% at its best, in epoch 2 (not the last); lowest loss 0.600 in epoch 2. "
        f"{gap}"
    )
    metrics = {"test_acc": 0.9312, "test_loss": 0.25, "test_size": 1_000}
    assert f"The {split} decided nothing" in training_in_short(run.record, metrics)


def test_one_epoch_is_said_as_one(history, tmp_path):
    run = Run("r", tmp_path)
    run.update_record(**valid_record())
    one = history[:1]
    assert "1 epoch, " in curves_in_short(run, one) and "(the last)" in curves_in_short(run, one)
    assert gain_in_words(one, "test") == (
        "After its one epoch the accuracy of the test split (watched) is 50.00%."
    )
    assert gap_in_words(one, "test") == "One epoch alone has no gap: nothing was watched before it."
    assert "One epoch alone cannot tell" in rise_in_words(one, "test")
    assert stopped_in_words(one, "test").startswith("1 epoch is too few to tell")
    assert "lowest at the end: 1.400 after the last epoch;" in losses_in_words(one, "test")


def of_epochs(losses, accuracies=None):
    """A history of which only what was watched counts."""
    accuracies = losses if accuracies is None else accuracies
    epochs = range(1, 1 + len(losses))
    table = pd.DataFrame({"epoch": epochs, "val_loss": losses, "val_acc": accuracies})
    return table.reindex(columns=HISTORY_COLUMNS, fill_value=0.5)


def test_the_largest_rise_of_the_watched_loss_is_said_with_its_epoch_and_values(history):
    history.loc[3, "val_loss"] = 0.75
    assert rise_in_words(history, "test") == (
        "The loss of the test split (watched) rose most in epoch 3, from 0.600 to 0.700."
    )
    falls_back = of_epochs([2.0, 1.5, 1.9, 1.2, 1.3, 0.9, 0.8])
    assert rise_in_words(falls_back, "validation") == (
        "The loss of the held-out part (watched) rose most in epoch 3, from 1.500 to 1.900."
    )
    assert "as the pictures grew" in rise_in_words(falls_back, "test", [16, 16, 32, 32, 32, 32, 32])
    assert "grew" not in rise_in_words(falls_back, "test", [16, 32, 32, 32, 32, 32, 32])
    fell = rise_in_words(of_epochs([2.0, 1.0]), "test")
    assert fell.endswith("never rose from one epoch to the next.")
    late = of_epochs([1.0, 2.0, 1.0, 3.0])[2:]  # a log may begin late, with any index
    assert rise_in_words(late, "test").endswith("in epoch 4, from 1.000 to 3.000.")


def test_whether_it_stopped_improving_is_said_for_any_number_of_epochs():
    def said(*accuracies):
        return stopped_in_words(of_epochs(list(accuracies)), "test")

    assert said(0.5, 0.6) == "2 epochs are too few to tell whether it had stopped improving."
    assert "too few" in said(0.5, 0.6, 0.7) and "too few" not in said(0.5, 0.6, 0.7, 0.8)
    assert said(0.1, 0.4, 0.6, 0.7, 0.75, 0.8) == (
        "In the last 2 of 6 epochs the best accuracy of the test split (watched) rose from 70.00% "
        "to 80.00%: it had not stopped improving. (The falling rate alone can do that.)"
    )
    assert said(0.1, 0.4, 0.6, 0.7, 0.9, 0.5, 0.9) == (
        "None of the last 2 of 7 epochs was more accurate on the test split (watched) than epoch "
        "5, with 90.00%: it had stopped improving."
    )
    assert "last 2 of 8 epochs" in said(*np.linspace(0.1, 0.9, 8))
    assert "last 5 of 20 epochs" in said(*np.linspace(0.1, 0.9, 20))
    last_of_all = said(*np.linspace(0.1, 0.9, 15), 0.8, 0.8, 0.8, 0.8, 0.91)
    assert "from 90.00% to 91.00%: it had not" in last_of_all
    assert "than epoch 15, with 90.00%" in said(*np.linspace(0.1, 0.9, 15), *[0.9] * 5)


def test_training_is_compared_with_what_was_watched_around_it():
    """Where both learn along one line, there is no gap, though the epochs' ends are ahead."""
    epoch = np.arange(1, 7)
    one_line = of_epochs([1.0] * 6, 0.1 * epoch).assign(train_acc=0.1 * (epoch - 0.5))
    gaps = gap_by_epoch(one_line)
    np.testing.assert_allclose(gaps["gap"], 0, atol=1e-12)
    assert gaps["epoch"].tolist() == [1.5, 2.5, 3.5, 4.5, 5.5]
    assert gap_by_epoch(one_line[:1]).empty
    ahead = one_line.assign(train_acc=one_line["train_acc"] + 0.03)
    np.testing.assert_allclose(gap_by_epoch(ahead)["gap"], 0.03)


def test_a_gain_that_growing_pictures_share_in_is_said_to_be(history):
    assert "because the pictures grew" in gain_in_words(history, "test", [16, 16, 24, 24])
    assert "grew" not in gain_in_words(history, "test", [16, 24, 24, 24])
    assert "grew" not in gain_in_words(history, "test", [])


def test_the_result_of_a_training_is_said_with_what_it_cost():
    record = valid_record(epochs=2) | {"seconds": {"training": 12.0, "watching": 2.0}, "name": "r"}
    metrics = {"test_acc": 0.9312, "test_loss": 0.25, "test_size": 1_000}
    assert result_in_words(record, metrics, 50).splitlines() == [
        "test accuracy 93.12%, test loss 0.250",
        "on 1,000 test pictures, float32, one view each; n = 1 run",
        "training time 10.0 s on a CPU (32-true), without 2.0 s of watching: 2 epochs of 50 "
        "pictures, 10 pictures a second",
    ]
    averaged = {"test_acc": 0.94, "test_loss": 0.2, "views": 6, "precision": "bf16-mixed"}
    both = metrics | {"averaged": averaged | {"seconds": 3.5}}
    assert result_in_words(record, both, 50).splitlines()[2:] == [
        "averaged over 6 views: accuracy 94.00%, loss 0.200 (bf16-mixed)",
        "training time 13.5 s on a CPU (32-true), without 2.0 s of watching and with 3.5 s of "
        "averaged test: 2 epochs of 50 pictures, 10 pictures a second",
    ]
    copied = metrics | {"new": {"size": 990, "right": 920}}
    assert result_in_words(record, copied, 50).splitlines()[2] == (
        "10 test pictures are nearly the same as training pictures; accuracy without: 92.93% (95% "
        "interval 91.16% to 94.37%)"
    )
    all_copied = metrics | {"new": {"size": 0, "right": 0}}
    assert "accuracy without: there are no others" in result_in_words(record, all_copied, 50)
    # a run of an earlier version does not say how long it watched
    one = valid_record() | {"seconds": {"training": 1.0}}
    said = result_in_words(one, metrics | {"test_size": 1}, 1)
    assert "on 1 test picture, " in said and "training time 1.0 s" in said
    assert said.endswith(", 1.0 pictures a second")  # a slow one is not rounded to none
    short = valid_record() | {"seconds": {"training": 0.01, "watching": 0.01}}
    assert "training time 0.0 s" in result_in_words(short, metrics, 1)
    assert training_in_short(record, metrics) == (
        "Run **r**: 5 parameters, trained on drawn with the recipe `quick`, right on **93.12%** of "
        "1,000 test pictures. The test split (watched) decided nothing that the program does."
    )
