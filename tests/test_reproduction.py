"""How near a training comes to the original: which trainings, which figures, which distances."""

from dataclasses import replace

import pytest

from helpers.records import valid_record
from utils.measure import reproduction, trials
from utils.measure.reproduction import LOGGED, Curves, curves_of, distances
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
    assert distances(LOGGED) == {"train_loss": 0.0, "pooled": 0.0, "test_loss": 0.0}
    assert len(LOGGED.test_loss) == 20 and LOGGED.test_loss[-1] == 0.232


def test_a_distance_is_the_mean_over_the_points_of_a_curve():
    moved = Curves(
        [loss + 0.1 for loss in LOGGED.train_loss],
        [pooled - 0.02 for pooled in LOGGED.pooled],
        [LOGGED.test_loss[0] + 2.0, *LOGGED.test_loss[1:]],
    )
    found = distances(moved)
    assert found == pytest.approx({"train_loss": 0.1, "pooled": 0.02, "test_loss": 0.1})


def test_curves_pool_training_and_test_pictures_as_the_original_did(tmp_path):
    trial = made(tmp_path, "run", train_acc=0.5, val_acc=0.75)  # 8 pictures shown, 4 watched
    curves = curves_of(trial)
    assert curves.pooled == pytest.approx([(8 * 0.5 + 4 * 0.75) / 12] * 4)
    assert curves.train_loss == pytest.approx([0.5] * 4)
    assert curves.test_loss == pytest.approx([0.4] * 20)


def test_every_candidate_is_trained_and_stands_in_the_table_beside_the_log(
    tmp_path, monkeypatch, capsys
):
    trained = {}

    def train(picture_set, variants, seeds, output_dir, **options):
        trained.update(variants, seeds=seeds, place=output_dir, **options)
        for position, name in enumerate(variants):
            yield made(tmp_path, name, val_loss=0.1 * position)

    monkeypatch.setattr(trials, "train_in_turn", train)
    written = tmp_path / "table.md"
    reproduction.print_candidates("pictures", "place", written, devices="cpu")
    printed = capsys.readouterr().out
    assert printed.endswith(written.read_text())
    assert "| the original's log | augmentation a | augmentation b | augmentation c |" in printed
    assert "| training loss | 0.770, 0.370, 0.290, 0.190 | 0.500, 0.500, 0.500, 0.500 |" in printed
    logged = LOGGED.test_loss
    far = [sum(abs(loss - 0.1 * position) for loss in logged) / 20 for position in range(3)]
    assert printed.splitlines()[-1].endswith(f"| {far[0]:.3f} | {far[1]:.3f} | {far[2]:.3f} |")
    assert (trained.pop("seeds"), trained.pop("place"), trained.pop("devices")) == (
        1,
        "place",
        "cpu",
    )
    plain = RECIPES["original"]
    assert list(trained.values()) == [replace(plain, augmentation=a) for a in CANDIDATES.values()]
