"""How near a training comes to the original: which trainings, which figures, which distances."""

from dataclasses import replace

import pandas as pd
import pytest

from helpers.records import valid_record
from utils import InputError
from utils.measure import trials
from utils.measure.reproduction import (
    LOGGED,
    curves_of,
    distances,
    print_candidates,
    read_kept,
    summary_of,
)
from utils.measure.trials import Trial
from utils.runs import HISTORY_COLUMNS, Run
from utils.training.recipes import CANDIDATES, RECIPES


def made(tmp_path, name, train_loss=0.5, train_acc=0.5, val_loss=0.4, val_acc=0.75):
    """A complete run of twenty epochs, each with these figures."""
    run = Run(name.replace(" ", "-"), tmp_path)
    run.update_record(**valid_record(views=1), versions={"torch": "2.8"}, status="complete")
    figures = (train_loss, train_acc, val_loss, val_acc)
    rows = [
        dict(zip(HISTORY_COLUMNS, (epoch, epoch, 0.1, *figures, 1.0), strict=True))
        for epoch in range(1, 21)
    ]
    run.write_csv("metrics.csv", HISTORY_COLUMNS, rows)
    return Trial(name, run, 20.0, 1.0, val_acc, None)


def test_the_original_is_at_no_distance_from_itself():
    assert distances(LOGGED).to_dict() == {"train_loss": 0.0, "pooled": 0.0, "test_loss": 0.0}
    assert LOGGED.index.tolist() == list(range(1, 21))
    assert LOGGED["test_loss"].count() == 20 and LOGGED.loc[20, "test_loss"] == 0.232
    assert LOGGED["pooled"].dropna().to_dict() == {5: 0.71, 10: 0.845, 15: 0.895, 20: 0.932}


def test_a_distance_is_the_mean_over_the_points_at_which_the_log_was_read():
    moved = LOGGED + pd.Series({"train_loss": 0.1, "pooled": -0.02, "test_loss": 0.0})
    moved = moved.fillna(7.0)  # where the log says nothing, nothing is compared
    moved.loc[1, "test_loss"] += 2.0
    expected = {"train_loss": 0.1, "pooled": 0.02, "test_loss": 0.1}
    assert distances(moved).to_dict() == pytest.approx(expected)


def test_curves_pool_training_and_test_pictures_as_the_original_did(tmp_path):
    trial = made(tmp_path, "run", train_acc=0.5, val_acc=0.75)  # 8 pictures shown, 4 watched
    (curves,) = curves_of(summary_of([trial]))
    assert curves["pooled"].tolist() == pytest.approx([(8 * 0.5 + 4 * 0.75) / 12] * 20, abs=1e-5)
    assert curves["train_loss"].tolist() == [0.5] * 20
    assert curves["test_loss"].tolist() == [0.4] * 20
    assert curves.index.tolist() == list(range(1, 21))


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """What is asked of a training that makes complete runs at once."""
    asked = {}

    def train(picture_set, variants, seeds, output_dir, **options):
        asked.update(variants=variants, seeds=seeds, place=output_dir, **options)
        for seed in range(seeds):
            for name in variants:
                loss = 0.1 * "abc".index(name[-1]) + seed
                yield made(tmp_path / str(seed), name, train_loss=0.5 + seed, val_loss=loss)

    monkeypatch.setattr(trials, "train_in_turn", train)
    return asked


def test_candidates_are_trained_and_stand_in_the_table_beside_the_log(trained, tmp_path, capsys):
    kept, written = tmp_path / "kept.json", tmp_path / "table.md"
    print_candidates("pictures", ["a", "b", "c"], "place", kept, written, devices="cpu")
    printed = capsys.readouterr().out
    assert printed.endswith(written.read_text())
    lines = written.read_text().splitlines()
    assert lines[0] == (
        "|  | the original's log | augmentation a | augmentation b | augmentation c |"
    )
    assert (
        "| training loss after epochs 5, 10, 15, 20 | 0.770, 0.370, 0.290, 0.190 "
        "| 0.500, 0.500, 0.500, 0.500 |"
    ) in printed
    far = [(LOGGED["test_loss"] - loss).abs().mean() for loss in (0.0, 0.1, 0.2)]
    assert (
        "| mean distance in test loss, 20 points | – "
        f"| {far[0]:.3f} | {far[1]:.3f} | {far[2]:.3f} |"
    ) in lines
    assert (trained["seeds"], trained["place"], trained["devices"]) == (1, "place", "cpu")
    plain = RECIPES["original"]
    recipes = [replace(plain, augmentation=a) for a in CANDIDATES.values()]
    assert list(trained["variants"].values()) == recipes


def test_of_several_seeds_stand_the_mean_curve_and_the_spread_of_distances(
    trained, tmp_path, capsys
):
    print_candidates("pictures", ["c"], "place", tmp_path / "kept.json", seeds=2)
    printed = capsys.readouterr().out
    assert "| 0.770, 0.370, 0.290, 0.190 | 1.000, 1.000, 1.000, 1.000 |" in printed
    far = [(LOGGED["train_loss"] - loss).abs().mean() for loss in (0.5, 1.5)]
    spread = abs(far[1] - far[0]) / 2**0.5
    assert f"| – | {sum(far) / 2:.3f} ± {spread:.3f} |" in printed
    assert "| n | 1 | 2 |" in printed
    with pytest.raises(InputError, match="--seeds is 0"):
        print_candidates("pictures", ["c"], "place", tmp_path / "kept.json", seeds=0)


def test_candidates_that_were_trained_elsewhere_are_compared_too(trained, tmp_path, capsys):
    kept = tmp_path / "kept.json"
    print_candidates("pictures", ["c"], "place", kept)
    before = read_kept(kept)
    print_candidates("pictures", ["a"], "place", kept)
    assert list(trained["variants"]) == ["augmentation a"]
    assert "| augmentation a | augmentation c |" in capsys.readouterr().out
    assert read_kept(kept)["augmentation c"] == before["augmentation c"]


def test_what_cannot_be_compared_is_refused(trained, tmp_path):
    with pytest.raises(InputError, match=r"--only 'd' is unknown\. Choose one of: a, b, c"):
        print_candidates("pictures", ["a", "d"], "place", tmp_path / "kept.json")
    assert not trained
    damaged = tmp_path / "kept.json"
    for content in ("", "[]", '{"a": {}}', '{"a": {"runs": [{"curves": {"train_loss": ["x"]}}]}}'):
        damaged.write_text(content)
        with pytest.raises(InputError, match="does not hold the curves of candidates"):
            print_candidates("pictures", ["a"], "place", damaged)
    assert not trained
