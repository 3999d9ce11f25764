"""Tables of many runs, by hand-worked cases."""

import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

from helpers.runs import copies_of, make_groups, make_run, rights
from utils.explain.compare import compare_groups
from utils.explain.hard_pictures import picture_table
from utils.explain.many_runs import comparison_folder, gather
from utils.explain.run_tables import (
    MOST_ROWS,
    curves,
    curves_in_words,
    front_in_words,
    group_table,
    pareto_front,
    run_table,
    shown_groups,
    shown_table,
    table_in_words,
)
from utils.files import ROOT
from utils.intervals import wilson_interval


@pytest.fixture(scope="module")
def gathered(tmp_path_factory):
    """Two groups of four runs, and a run on other pictures."""
    folder = tmp_path_factory.mktemp("runs")
    make_groups(folder)
    make_run(folder, "elsewhere", rights(1, 60)[0], fingerprint="x")
    return gather(folder)


def test_a_row_says_what_a_run_was_trained_with_and_what_came_of_it(gathered):
    table = run_table(gathered)
    assert len(table) == 9 and table["group"].iloc[-1] == "" and table["run"].is_unique
    row = table.set_index("run").loc["speed-seed2"]
    assert (row["recipe"], row["seed"], row["max_lr"]) == ("speed", 2, 0.17)
    assert row["pictures"] != table.set_index("run").loc["elsewhere", "pictures"]
    right = gathered.group("speed").right[2]
    assert row["accuracy"] == right.mean()
    assert [row["low"], row["high"]] == pytest.approx(
        [*map(float, wilson_interval(right.sum(), 60))]
    )
    assert row["training_seconds"] == pytest.approx(30 - 3)  # without watching
    assert row["pictures_a_second"] == pytest.approx(3 * 600 / 27)
    assert row["device"] == "a CPU, 32-true" and row["epochs_run"] == 3


def test_tables_are_written_as_csv_and_parquet_with_the_same_contents(gathered, tmp_path):
    folder = comparison_folder("c", "outputs", tmp_path)
    for name, table in (("runs", run_table(gathered)), ("pictures", picture_table(gathered))):
        folder.write_table(name, table)
        csv = pd.read_csv(folder.path(f"{name}.csv"), keep_default_na=False)
        parquet = pd.read_parquet(folder.path(f"{name}.parquet"))
        assert list(csv) == list(parquet) == list(table)
        pd.testing.assert_frame_equal(parquet, table, check_dtype=False)
        for column in ("run", "seed", "accuracy") if name == "runs" else ("wrong", "kind"):
            assert csv[column].tolist() == table[column].tolist()


def test_a_setting_that_some_runs_lack_or_that_is_a_list_goes_into_both_files(tmp_path):
    right = rights(3, 30)
    make_run(tmp_path / "runs", "a", right[0], growth=[[0.75, 0.5]], limit_train=500)
    make_run(tmp_path / "runs", "b", right[1], max_lr=1)
    make_run(tmp_path / "runs", "c", right[2], max_lr=0.5, shrink={"padding": 4})
    folder = comparison_folder("c", "outputs", tmp_path)
    folder.write_table("runs", run_table(gather(tmp_path / "runs")))
    read = pd.read_parquet(folder.path("runs.parquet")).set_index("run")
    assert read.loc["a", "growth"] == "[[0.75, 0.5]]" and read.loc["a", "limit_train"] == 500
    assert pd.isna(read.loc["b", "limit_train"]) and read.loc["c", "max_lr"] == 0.5


def test_a_chapter_shows_figures_in_words_and_not_too_many(gathered):
    table = run_table(gathered)
    shown = shown_table(table)
    assert list(shown)[:4] == ["run", "group", "recipe", "seed"]
    assert shown["right"].str.contains(r"% \(95% interval").all()
    assert (shown["averaged"] == "–").all()
    assert len(shown_table(pd.concat([table] * 10))) == MOST_ROWS
    assert table_in_words(pd.concat([table] * 10)).startswith(f"{MOST_ROWS} of 90 runs are shown")
    assert shown_groups(table)["n"].tolist() == [4, 4]
    mean = 100 * gathered.group("speed").accuracies.mean()
    assert shown_groups(table)["right, %"][1].startswith(f"{mean:.2f} ± ")


def test_what_the_groups_say_is_shown_once(tmp_path):
    for number in range(4):
        right, epochs = rights(1, 30)[0], 1 + number // 2
        make_run(tmp_path, f"r{number}", right, number % 2, epochs=epochs)
    shown = shown_table(run_table(gather(tmp_path)))
    assert shown["group"].tolist() == ["epochs=1"] * 2 + ["epochs=2"] * 2
    assert "epochs" not in shown


def test_times_from_several_machines_are_told(gathered):
    table = run_table(gathered)
    assert "different hardware" not in table_in_words(table)
    table.loc[0, "device"] = "a GPU, 16-mixed"
    assert "different hardware: a GPU, 16-mixed; a CPU, 32-true" in table_in_words(table)


def test_the_front_is_of_those_that_none_beats_in_both():
    random = np.random.default_rng(0)
    seconds, accuracy = random.integers(1, 20, 60), random.integers(1, 20, 60)
    found = pareto_front(seconds, accuracy)
    points = list(zip(seconds, accuracy, strict=True))
    for point, is_front in zip(points, found, strict=True):
        beaten = any(s <= point[0] and a >= point[1] and (s, a) != point for s, a in points)
        assert is_front != beaten  # of equal ones, none is beaten by another
    assert pareto_front([], []).tolist() == []


def test_groups_are_told_by_mean_and_spread(gathered):
    groups = group_table(run_table(gathered)).set_index("group")
    accuracies = gathered.group("original").accuracies
    assert groups.loc["original", "accuracy"] == pytest.approx(accuracies.mean())
    assert groups.loc["original", "accuracy_spread"] == pytest.approx(accuracies.std(ddof=1))
    assert groups["n"].tolist() == [4, 4] and groups.loc["speed", "is_front"]
    said = front_in_words(groups.reset_index())
    assert said.startswith("On the front, by their means: speed (")
    assert said.endswith("in no more time: original.")
    equal = groups.assign(accuracy=0.5, training_seconds=9.0)
    equal["is_front"] = pareto_front(equal["training_seconds"], equal["accuracy"])
    assert front_in_words(equal.reset_index()).endswith("That is every group.")


def test_curves_are_means_and_spreads_over_the_runs_of_a_group(gathered):
    bands = curves(gathered)
    assert bands.groupby("group")["epoch"].apply(list).tolist() == [[1, 2, 3]] * 2
    last = bands[(bands["group"] == "speed") & (bands["epoch"] == 3)].iloc[0]
    accuracies = gathered.group("speed").accuracies
    assert (last["n"], last["val_loss"]) == (4, 0.5)
    assert last["val_acc"] == pytest.approx(accuracies.mean())
    assert last["val_acc_spread"] == pytest.approx(accuracies.std(ddof=1))
    assert "speed: the accuracy of its 4 runs scattered most after epoch 3" in curves_in_words(
        bands
    )


def test_curves_are_told_as_far_as_all_runs_of_a_group_went(tmp_path):
    for seed, right in enumerate(rights(4, 60)):
        make_run(tmp_path, f"run{seed}", right, seed, epochs=2 + 2 * (seed % 2), recipe="quick")
    make_run(tmp_path, "other", rights(1, 60)[0], recipe="speed", epochs=3)
    bands = curves(gather(tmp_path, "recipe"))
    quick = bands[bands["group"] == "quick"]
    assert quick["n"].tolist() == [4, 4, 2, 2]
    assert quick["is_whole"].tolist() == [True, True, False, False]
    assert bands.loc[bands["group"] != "quick", "is_whole"].all()
    said = curves_in_words(bands)
    assert "accuracy of its 4 runs scattered most after epoch 2" in said
    assert "after epoch 2, the last that all of them have" in said and "at the end" not in said


def test_a_single_run_shows_no_spread(gathered):
    single = curves_in_words(curves(gathered).assign(val_acc_spread=np.nan))
    assert single.count("one run, which shows no spread") == 2


@pytest.mark.slow
def test_a_thousand_runs_are_read_and_compared_in_ten_seconds(tmp_path):
    run = make_run(tmp_path, "stub", rights(1, 2_000)[0], epochs=10)
    copies_of(run, 500)
    other = make_run(tmp_path, "other", rights(1, 2_000, seed=1)[0], epochs=10, recipe="speed")
    copies_of(other, 500)
    begun = time.perf_counter()
    gathered = gather(tmp_path)
    found = compare_groups(*gathered.pair())
    tables = run_table(gathered), curves(gathered), picture_table(gathered)
    assert time.perf_counter() - begun < 10
    assert [len(table) for table in tables] == [1_000, 20, 2_000]
    assert len(found.tests) == 500 and found.is_paired


@pytest.mark.slow
def test_tables_and_comparisons_need_no_torch():
    modules = "compare, many_runs, run_tables, hard_pictures"
    code = f"import sys; from utils.explain import {modules}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
