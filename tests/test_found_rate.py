"""A found rate judged by training: what is trained, and what is compared."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from helpers.training import SmallDavidNet, make_pictures
from utils import InputError
from utils.cli import main
from utils.measure import found_rate
from utils.models.registry import MODELS
from utils.training.recipes import RECIPES

TINY = replace(RECIPES["quick"], name="tiny", batch_size=8, max_lr=0.01)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setitem(MODELS, "davidnet", SmallDavidNet)
    monkeypatch.setitem(RECIPES, "tiny", TINY)


def found_at(monkeypatch, rates):
    """Range tests that find these rates, in this order; returns the seeds they were asked with."""
    seeds = []

    def sweep(plan):
        seeds.append(plan.settings["seed"])
        return SimpleNamespace(suggestion=rates[len(seeds) - 1], reason="the loss never fell")

    monkeypatch.setattr(found_rate, "sweep", sweep)
    return seeds


@pytest.mark.slow
def test_each_pair_differs_in_its_rate_alone(monkeypatch, tmp_path, capsys):
    seeds = found_at(monkeypatch, [0.002, 0.003])
    written = tmp_path / "table.md"
    found_rate.print_rates(
        make_pictures(), "tiny", 1, 2, tmp_path, written, devices="cpu", precision="32-true"
    )
    assert seeds == [0, 1]
    assert len(list(tmp_path.glob("*/metrics.json"))) == 4
    lines = written.read_text().splitlines()
    assert "`tiny` for 1 epoch, n = 2 seeds" in lines[0]
    assert lines[4].startswith("| rate of the recipe | 0.01, 0.01 | ")
    assert lines[5].startswith("| rate found | 0.002, 0.003 | ")
    usual, found, difference = (float(line.split("|")[-2].split()[0]) for line in lines[4:])
    assert difference == pytest.approx(found - usual, abs=0.011)
    assert capsys.readouterr().out.endswith(written.read_text())


def test_a_range_test_without_a_suggestion_ends_it_with_its_reason(monkeypatch, tmp_path):
    found_at(monkeypatch, [None])
    with pytest.raises(InputError, match=r"With seed 0 .* nothing: the loss never fell\."):
        found_rate.print_rates(make_pictures(), "tiny", 1, 1, tmp_path, devices="cpu")
    assert not list(tmp_path.glob("*/metrics.json"))


def test_numbers_that_cannot_be_used_are_refused():
    with pytest.raises(SystemExit, match="--seeds is 0"):
        main(["rates", "--seeds", "0"])
