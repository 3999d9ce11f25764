"""Many runs: which are read, which can be compared, and which form a group."""

import shutil

import numpy as np
import pandas as pd
import pytest

from helpers.runs import make_groups, make_run, rights
from utils import InputError
from utils.explain.many_runs import (
    MOST_NAMES,
    comparison_folder,
    few,
    gather,
    gathered_in_words,
    list_trained,
    telling,
)
from utils.runs import Run


def test_runs_that_differ_in_the_seed_alone_are_a_group(tmp_path):
    first, second = make_groups(tmp_path, seeds=3)
    gathered = gather(tmp_path)
    assert gathered.names == ["original", "speed"]  # the recipe says what its max_lr says
    assert list(gathered.settings) == ["recipe", "seed", "max_lr"]
    assert not gathered.mixed and not gathered.others and gathered.title == "drawn"
    assert [outcome.seed for outcome in gathered.outcomes] == [0, 1, 2, 0, 1, 2]
    assert np.array_equal(gathered.right, np.concatenate([first, second]))
    group = gathered.group("speed")
    assert group.keys == (0, 1, 2) and np.array_equal(group.right, second)
    assert gathered_in_words(gathered) == (
        "6 runs on drawn, tested on the same 60 pictures, in 2 groups: original, speed"
    )


def test_a_grid_is_told_apart_by_as_few_settings_as_will_do(tmp_path):
    right = rights(1, 30)[0]
    for recipe, epochs, max_lr in (("speed", 3, 0.1), ("speed", 5, 0.1), ("quick", 5, 0.004)):
        for seed in (0, 1):
            name = f"{recipe}-{epochs}-{seed}"
            make_run(tmp_path, name, right, seed, epochs, recipe=recipe, max_lr=max_lr)
    gathered = gather(tmp_path)
    assert gathered.names == ["quick epochs=5", "speed epochs=3", "speed epochs=5"]
    assert gather(tmp_path, "epochs").names == ["epochs=3", "epochs=5"]
    assert gather(tmp_path, "epochs").mixed == ("recipe", "max_lr")
    assert "one group differ in more than the seed" in gathered_in_words(gather(tmp_path, "epochs"))
    first, second = gather(tmp_path, "epochs").pair()
    assert first.paired_by == ("seed", "recipe", "max_lr")
    assert first.keys == ((0, "speed", 0.1), (1, "speed", 0.1))
    assert set(first.keys) < set(second.keys) and len(second.keys) == 4
    with pytest.raises(InputError, match=r"group_by is 'epoch'.*differ in: recipe, seed, epochs"):
        gather(tmp_path, "epoch")


def test_groups_stand_in_the_order_of_the_numbers_in_their_names(tmp_path):
    right = rights(1, 30)[0]
    for epochs in (10, 5, 2):
        make_run(tmp_path, f"e{epochs}", right, epochs=epochs)
    for place, rate in enumerate((0.05, 0.5, 1e-05, 0.3)):
        make_run(tmp_path / "rates", f"r{place}", right, max_lr=rate)
    assert gather(tmp_path).names == ["epochs=2", "epochs=5", "epochs=10"]
    rates = ["max_lr=1e-05", "max_lr=0.05", "max_lr=0.3", "max_lr=0.5"]
    assert gather(tmp_path / "rates").names == rates


def test_values_that_are_not_the_same_never_share_a_name(tmp_path):
    right = rights(1, 30)[0]
    for number, (limit, rate) in enumerate([(None, 0.1), (1234567, 0.1), (1234568, 0.1)]):
        make_run(tmp_path / "limits", f"r{number}", right, limit_train=limit, max_lr=rate)
    for number, rate in enumerate((0.1234567, 0.1234568)):
        make_run(tmp_path / "rates", f"r{number}", right, max_lr=rate)
    limits = ["limit_train=1234567", "limit_train=1234568", "limit_train=None"]
    assert sorted(gather(tmp_path / "limits").names) == limits
    assert gather(tmp_path / "rates").names == ["max_lr=0.1234567", "max_lr=0.1234568"]


def test_what_runs_were_trained_with_beside_their_settings_is_told(tmp_path):
    make_groups(tmp_path, seeds=2)
    for run in list_trained(tmp_path)[0]:
        run.update_record(versions={"torch": "2.15.0"}, git_commit="a" * 40)
    assert "Trained with" not in gathered_in_words(gather(tmp_path))
    device = {"type": "gpu", "name": "a GPU"}
    Run("speed-seed1", tmp_path).update_record(
        versions={"torch": "2.14.0"}, git_commit=None, device=device
    )
    said = gathered_in_words(gather(tmp_path))
    assert "different hardware, which may be what differs: a CPU (3 runs), a GPU (1 run)" in said
    assert "commits of this project, which may be what differs: aaaaaaa (3 runs), unk" in said
    assert "versions of torch, which may be what differs: 2.15.0 (3 runs), 2.14.0 (1 run)" in said


def test_settings_that_change_no_training_make_no_group(tmp_path):
    right = rights(2, 30)
    make_run(tmp_path, "a", right[0], data_dir="here", devices="cpu")
    make_run(tmp_path, "b", right[1], seed=1, data_dir="there", devices="gpu")
    assert gather(tmp_path).names == ["quick"]
    assert gather(tmp_path).pair() is None


def test_names_without_their_seeds_group_what_no_setting_tells_apart(tmp_path):
    for number, right in enumerate(rights(4, 30)):
        name = f"{'marked' if number % 2 else 'clean'}-seed{number // 2}"
        make_run(tmp_path, name, right, number // 2, fingerprint=f"f, {name}")
    with pytest.raises(InputError, match=r'different pictures.*group_by="pictures" or "name"'):
        gather(tmp_path)
    gathered = gather(tmp_path, "name")
    assert gathered.names == ["clean", "marked"] and gathered.mixed == ("pictures",)
    assert "do not all look the same" in gathered_in_words(gathered)
    assert gather(tmp_path, "pictures").names == [f"pictures={n}" for n in (1, 2, 3, 4)]


def test_a_hint_says_how_runs_that_are_all_alone_would_be_grouped(tmp_path):
    for number, right in enumerate(rights(3, 30)):
        make_run(tmp_path, f"try-seed{number}", right, number, batch_size=8 + number)
    assert 'group_by="name" would make fewer' in gathered_in_words(gather(tmp_path))


def test_what_cannot_be_compared_is_left_out_and_named(tmp_path):
    make_groups(tmp_path, seeds=2)
    make_run(tmp_path, "others", rights(1, 60)[0], fingerprint="of other pictures")
    make_run(tmp_path, "fewer", rights(1, 30)[0])
    make_run(tmp_path, "silent", rights(1, 60)[0]).path("predictions.npz").unlink()
    make_run(tmp_path, "damaged", rights(1, 60)[0]).path("metrics.csv").write_text("x")
    make_run(tmp_path, "begun", rights(1, 60)[0]).path("model.safetensors").unlink()
    gathered = gather(tmp_path)
    assert len(gathered.outcomes) == 4
    assert {outcome.run.name for outcome in gathered.others} == {"others", "fewer", "silent"}
    assert gathered.unfinished == ("begun",)
    said = gathered_in_words(gathered)
    assert "Left out, as not trained to the end: begun" in said
    assert "metrics.csv is damaged" in said and "silent" in said


def test_a_training_that_was_repeated_counts_once(tmp_path):
    make_groups(tmp_path, seeds=2)
    make_run(tmp_path, "again", rights(1, 60)[0], seed=1, recipe="speed", max_lr=0.17)
    gathered = gather(tmp_path)
    assert [outcome.run.name for outcome in gathered.repeats] == ["speed-seed1"]  # the older
    assert len(gathered.outcomes) == 4 and "again" in gathered.labels
    assert "repeats of a newer run, seed and all: speed-seed1" in gathered_in_words(gathered)
    with pytest.raises(InputError, match=r"one trained run, again\. The others repeat it"):
        gather(_only(tmp_path, "again", "speed-seed1"))


def _only(folder, *names):
    """Remove all runs but these."""
    for path in folder.iterdir():
        if path.name not in names:
            shutil.rmtree(path)
    return folder


def test_an_earlier_run_has_the_values_that_it_does_not_name(tmp_path):
    for seed, right in enumerate(rights(2, 30)):
        make_run(tmp_path, f"early-{seed}", right, seed)
    for seed, right in enumerate(rights(2, 30, seed=1), start=2):
        make_run(tmp_path, f"late-{seed}", right, seed, views=1, skipped=0.0, optimizer="adam")
    assert gather(tmp_path).names == ["quick"]
    make_run(tmp_path, "other", rights(1, 30)[0], skipped=0.5)
    assert gather(tmp_path).names == ["skipped=0", "skipped=0.5"]


@pytest.mark.parametrize(
    ("count", "words"), [(0, "there is no trained run"), (1, "one trained run, only")]
)
def test_fewer_than_two_runs_are_refused_with_what_to_do(tmp_path, count, words):
    if count:
        make_run(tmp_path, "only", rights(1, 30)[0])
    Run("begun", tmp_path).update_record(status="running")
    with pytest.raises(InputError, match=f"{words}, and unfinished: begun.*needs at least two"):
        gather(tmp_path)


def test_a_place_that_holds_no_runs_is_refused(tmp_path):
    make_groups(tmp_path, seeds=1)
    with pytest.raises(InputError, match=r"there is no folder .*nowhere"):
        gather(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"which is one run\. Give the folder that it lies in"):
        gather(tmp_path / "speed-seed0")


def test_a_pattern_chooses_among_the_runs_of_a_folder(tmp_path):
    make_groups(tmp_path, seeds=2)
    assert gather(tmp_path / "speed*").names == ["speed"]
    assert len(gather(str(tmp_path / "*-seed[01]")).outcomes) == 4
    with pytest.raises(InputError, match="one trained run, speed-seed1"):
        gather(tmp_path / "speed-seed1*")


def test_two_groups_are_taken_by_name_or_the_first_two(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        make_run(tmp_path, f"{name}-seed{seed}", rights(1, 30)[0], seed, fingerprint=name)
    gathered = gather(tmp_path, "name")
    names = [group.name for group in gathered.pair()]
    assert names == ["a", "b"]
    assert [group.name for group in gathered.pair(" c , a")] == ["c", "a"]
    for wrong in ("a", "a,d", "a,a", "a,b,c", ""):
        with pytest.raises(InputError, match=r"must name two of these.*: a \| b \| c"):
            gathered.pair(wrong)


def test_few_columns_tell_all_rows_apart():
    table = pd.DataFrame(
        {"a": [1, 1, 2, 2], "b": [1, 1, 1, 1], "c": [1, 1, 2, 2], "d": [1, 2, 3, 4]}
    )
    assert telling(table) == ["a", "d"]
    assert telling(table[["b"]]) == [] == telling(table[[]])
    assert telling(table[["d", "a"]]) == ["d"]


def test_a_long_list_is_cut():
    assert few(["a", "b"]) == "a, b"
    assert few([str(n) for n in range(MOST_NAMES + 1_000)]).endswith(", 7 and 1,000 more")


@pytest.mark.parametrize(
    ("runs", "name"),
    [
        ("outputs", "comparison-outputs"),
        ("outputs/trials/speed*", "comparison-trials-speed"),
        ("/data/my runs (2)/", "comparison-my_runs_2"),
        ("*", "comparison"),
        ("x" * 200, "comparison-" + "x" * 109),
    ],
)
def test_a_comparison_is_named_after_the_runs(runs, name, tmp_path):
    assert comparison_folder(None, runs, tmp_path).name == name


def test_a_comparison_never_writes_into_a_run(tmp_path):
    make_run(tmp_path, "speed", rights(1, 30)[0])
    with pytest.raises(InputError, match="comparison is 'speed', which is the name of a run"):
        comparison_folder("speed", tmp_path, tmp_path)
    with pytest.raises(InputError, match="cannot name a folder"):
        comparison_folder("../up", tmp_path, tmp_path)
