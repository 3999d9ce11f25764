"""How long runs will take: as those like them took, in proportion to their epochs."""

import pytest

from helpers.records import valid_record
from utils.batch.estimate import Clock, expected_seconds, paces
from utils.runs import Run
from utils.training.preflight import resolved_settings
from utils.training.recipes import RECIPES

NOTEBOOKS = ("03_training", "04_curves")


def complete_run(folder, name, seconds, **settings):
    run = Run(name, folder)
    asked = {**resolved_settings({"dataset": "shapes", **settings}), "dataset_title": "drawn"}
    record = valid_record()
    record["settings"].update({k: v for k, v in asked.items() if k in record["settings"]})
    record["settings"]["views"] = asked["views"]
    run.update_record(status="complete", seconds=seconds, **record)
    return run


def test_a_run_takes_as_long_as_those_like_it(tmp_path):
    seconds = {"training": 70.0, "03_training": 80.0, "04_curves": 2.0}
    slower = {"training": 90.0, "03_training": 100.0, "04_curves": 2.0}
    known = paces(
        [complete_run(tmp_path, "a", seconds, seed=1), complete_run(tmp_path, "b", slower, seed=2)],
        NOTEBOOKS,
    )
    assert expected_seconds(resolved_settings({"seed": 9}), known) == pytest.approx(92)
    twice = resolved_settings({"epochs": 2 * RECIPES["quick"].epochs})
    assert expected_seconds(twice, known) == pytest.approx(2 * 80 + 12)
    for other in ({"recipe": "speed"}, {"limit_train": 100}, {"image_size": 16}):
        assert expected_seconds(resolved_settings(other), known) is None


def test_training_counts_only_where_its_notebook_is_run(tmp_path):
    seconds = {"training": 55.0, "03_training": 60.0, "04_curves": 4.0, "05_misclassified": 6.0}
    known = paces([complete_run(tmp_path, "a", seconds)], ("04_curves", "05_misclassified"))
    assert expected_seconds(resolved_settings({}), known) == pytest.approx(10)
    del seconds["training"]
    known = paces([complete_run(tmp_path, "b", seconds)], ("04_curves", "05_misclassified"))
    assert expected_seconds(resolved_settings({}), known) == pytest.approx(10)


def test_a_run_that_was_gone_over_again_tells_what_its_training_took(tmp_path):
    seconds = {"training": 55.0, "03_training": 3.0, "04_curves": 15.0}
    known = paces([complete_run(tmp_path, "a", seconds)], NOTEBOOKS)
    assert expected_seconds(resolved_settings({}), known) == pytest.approx(70)


def test_a_run_that_lacks_a_notebook_or_is_not_complete_says_nothing(tmp_path):
    lacking = complete_run(tmp_path, "a", {"training": 70.0, "03_training": 80.0})
    begun = complete_run(tmp_path, "b", dict.fromkeys(("training", *NOTEBOOKS), 1.0))
    begun.update_record(status="running")
    assert paces([lacking, begun, Run("none", tmp_path)], NOTEBOOKS) == {}


def test_what_is_left_follows_what_was_done():
    kinds = dict.fromkeys("abc", "slow") | dict.fromkeys("xyz", "fast")
    assert Clock(kinds, {}).left({}, 2) is None  # nothing is known of any
    clock = Clock(kinds, dict.fromkeys("abc", 100.0))
    assert clock.left({}, 2) is None  # nothing is known of the fast ones
    clock.ended("a", 50.0)
    assert clock.left({}, 1) == 5 * 50  # the fast ones are taken for any
    clock.ended("x", 10.0)
    assert clock.left({}, 2) == (2 * 50 + 2 * 10) / 2
    clock.ended("y", None)
    assert clock.left({"b": 30.0, "z": 15.0}, 1) == 20 + 50  # none takes less than nothing
    assert clock.left({}, 0) is None


def test_workers_that_have_nothing_to_do_make_nothing_faster():
    clock = Clock({"a": "slow"}, {"a": 3600.0})
    assert clock.left({"a": 1800.0}, 8) == 1800
    expected = dict.fromkeys("abc", 100.0) | {"x": 10.0}
    clock = Clock(dict.fromkeys("abc", "slow") | {"x": "fast"}, expected)
    assert clock.left({"a": 90.0, "b": 60.0}, 2) == 110  # "c" begins when "a" is done
    assert clock.left({"c": 40.0}, 8) == 100
