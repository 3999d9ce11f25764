"""Time to accuracy: which trainings are made, what is read from them, and the table."""

import statistics
from dataclasses import replace

import pytest

from helpers.training import SmallDavidNet, make_pictures
from utils import InputError
from utils.cli import main
from utils.measure import trials
from utils.models.registry import MODELS
from utils.runs import Run
from utils.training.recipes import RECIPES, Recipe, choose_recipe, without_each_part

TINY = replace(RECIPES["quick"], name="tiny", epochs=1, batch_size=8, max_lr=0.01)


@pytest.fixture(autouse=True)
def small_network(monkeypatch):
    monkeypatch.setitem(MODELS, "davidnet", SmallDavidNet)
    monkeypatch.setitem(RECIPES, "tiny", TINY)


@pytest.mark.slow
def test_variants_are_trained_in_turn_seed_by_seed(tmp_path, capsys):
    variants = {"tiny": TINY, "with smoothing": replace(TINY, label_smoothing=0.1, views=2)}
    made = list(trials.train_in_turn(make_pictures(), variants, 2, tmp_path, devices="cpu"))
    assert [(t.variant, t.run.settings["seed"]) for t in made] == [
        ("tiny", 0), ("with smoothing", 0), ("tiny", 1), ("with smoothing", 1),
    ]  # fmt: skip
    for trial in made:
        metrics = trial.run.read_json("metrics.json")
        assert trial.accuracy == metrics["test_acc"]
        rows = trial.run.path("metrics.csv").read_text().splitlines()[1:]
        assert trial.watching == trial.run.record["seconds"]["watching"] >= 0
        seconds = sum(float(row.split(",")[-1]) for row in rows) - trial.watching
        assert (trial.averaged is None) == (trial.variant == "tiny")
        if trial.averaged is not None:
            assert trial.averaged == metrics["averaged"]["test_acc"]
            seconds += metrics["averaged"]["seconds"]
        assert trial.seconds == pytest.approx(seconds)
    capsys.readouterr()
    again = list(trials.train_in_turn(make_pictures(), variants, 2, tmp_path, devices="cpu"))
    assert capsys.readouterr().out.count("is reused") == 4
    assert [t.seconds for t in again] == [t.seconds for t in made]


def test_the_table_has_mean_and_spread_of_each_variant_and_says_what_it_is_of(tmp_path, capsys):
    written = tmp_path / "table.md"
    trials.print_trials(
        make_pictures(), "tiny", 2, output_dir=tmp_path, table_file=written, devices="cpu"
    )
    printed = capsys.readouterr().out
    assert printed.endswith(written.read_text())
    runs = [Run(f"tiny-shapes-seed{seed}", tmp_path) for seed in (0, 1)]
    accuracies = [100 * run.read_json("metrics.json")["test_acc"] for run in runs]
    mean, spread = statistics.mean(accuracies), statistics.stdev(accuracies)
    assert f"| {mean:.2f} ± {spread:.2f} | – |" in printed
    assert "drawn, 33 test pictures, n = 2 seeds; " in printed
    assert all(f"tiny, seed {seed}: " in printed for seed in (0, 1))


def test_leaving_out_changes_one_part_at_a_time():
    variants = without_each_part(RECIPES["speed"])
    assert len(variants) >= 6
    whole = RECIPES["speed"].as_settings()
    changed = {
        what: {name for name, value in variant.as_settings().items() if value != whole[name]}
        for what, variant in variants.items()
    }
    assert changed.pop("Adam instead of Muon") >= {"optimizer", "max_lr"}
    assert changed.pop("every picture in every epoch") == {"skipped", "epochs"}
    assert all(len(names) == 1 for names in changed.values())
    assert len(set(map(frozenset, changed.values()))) == len(changed)


def test_a_plain_recipe_has_no_parts_to_leave_out():
    plain = choose_recipe("original", "cifar10")
    assert isinstance(plain, Recipe) and without_each_part(plain) == {}


@pytest.mark.parametrize(
    ("recipe", "seeds", "words"), [("fastest", 1, "recipe"), ("tiny", 0, "--seeds")]
)
def test_what_cannot_be_trained_is_refused(tmp_path, recipe, seeds, words):
    with pytest.raises(InputError, match=words):
        trials.print_trials(make_pictures(), recipe, seeds, output_dir=tmp_path)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--rounds", "0"], "--rounds is 0; it must be a whole number from 1"),
        (["--rounds", "0", "--train", "fastest"], "recipe 'fastest' is unknown"),
        (["--rounds", "0", "--train", "quick", "--dataset", "nowhere"], "'nowhere' is unknown"),
        (
            ["--rounds", "0", "--train", "quick", "--dataset", "shapes", "--seeds", "0"],
            "--seeds is 0",
        ),
    ],
)
def test_the_command_refuses_what_cannot_be_before_it_measures(arguments, words, monkeypatch):
    monkeypatch.setattr("utils.measure.bench.benchmark", lambda *_: pytest.fail("it measured"))
    with pytest.raises(SystemExit) as stopped:
        main(["bench", *arguments])
    assert words in str(stopped.value)
