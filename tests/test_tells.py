"""Properties that give the class away are found, and chance alone is not."""

import re

import numpy as np
import pytest

from utils.data import tells
from utils.data.tells import Tell, find_tells
from utils.data.traits import Traits

CLASSES = ("heron", "kestrel", "wren")


def made(count, rng, **changes):
    """Traits that know nothing of any class, but for those that are given."""
    chance = {
        "width": rng.choice([640, 800, 1024], count),
        "height": rng.choice([480, 600], count),
        "brightness": rng.random(count),
        "darkest": np.zeros(count),
        "lightest": np.ones(count),
        "sharpness": np.ones(count),
        "kind": rng.choice(["JPEG", "PNG"], count),
        "camera": rng.choice(["", "D90", "EOS 5D"], count),
        "date": np.where(rng.random(count) < 0.3, np.nan, rng.integers(738_000, 739_000, count)),
    }
    return Traits(**{**chance, **changes})


def found(traits, targets, groups=None):
    groups = np.arange(len(targets)) if groups is None else groups
    return {tell.name: tell for tell in find_tells(traits, targets, groups, CLASSES)}


def given_away(targets, rng):
    """For each property, traits by which it alone tells the first class."""
    first = targets == 0
    count = len(targets)
    return {
        "brightness": {"brightness": np.where(first, 0.9, 0.5) + 0.1 * rng.random(count)},
        "size": {"width": np.where(first, 2048, 640), "height": np.where(first, 1536, 480)},
        "aspect": {"width": np.where(first, 720, 960), "height": np.where(first, 960, 720)},
        "file type": {"kind": np.where(first, "PNG", "JPEG")},
        "camera": {"camera": np.where(first, "D90", "")},
        "date": {"date": np.where(first, np.nan, 738_000.0 + rng.integers(0, 99, count))},
    }


@pytest.mark.parametrize("name", list(given_away(np.zeros(2), np.random.default_rng(0))))
def test_a_property_that_gives_a_class_away_is_found(name):
    rng = np.random.default_rng(1)
    targets = np.repeat([0, 1, 2], 40)
    tell = found(made(120, rng, **given_away(targets, rng)[name]), targets)[name]
    assert tell.is_claimed and tell.guess == 1 / 3
    assert 72 <= tell.right <= 90  # all of the first class, and about half of the others
    all_of_them = r"of (\d+) with .+, \1 are heron"
    assert re.fullmatch(all_of_them, tell.clue)


@pytest.mark.slow
def test_nothing_is_claimed_by_chance():
    rng, claims = np.random.default_rng(2), []
    for _ in range(200):
        count = int(rng.choice([30, 60, 200]))
        targets = rng.choice(3, count, p=rng.dirichlet([5, 5, 5]))
        traits = made(count, rng)
        claims.append(any(tell.is_claimed for tell in found(traits, targets).values()))
    print(f"claimed in {sum(claims)} of {len(claims)} folders without any")
    assert np.mean(claims) <= 0.05


def test_copies_count_as_one_picture():
    """Each picture twenty times, of random classes: what tells the copies tells nothing else."""
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(30), 20)
    targets, days = rng.integers(0, 3, 30)[groups], (738_000.0 + 10 * np.arange(30))[groups]
    traits = made(600, rng, date=days)
    assert found(traits, targets)["date"].is_claimed
    apart = found(traits, targets, groups)
    assert not any(tell.is_claimed for tell in apart.values()) and apart["date"].count == 30


def test_a_group_counts_in_each_of_its_classes():
    """As patients do who have pictures of several, or days that all classes were taken on."""
    rng = np.random.default_rng(5)
    targets, groups = np.repeat([0, 1, 2], 40), np.tile(np.arange(40), 3)
    traits = made(120, rng, camera=np.where(targets == 2, "D90", ""))
    assert found(traits, targets, groups)["camera"].is_claimed
    assert {(tell.count, tell.guess) for tell in found(traits, targets, groups).values()} == {
        (120, 1 / 3)
    }
    twice = np.concatenate((groups, groups))  # each has a second picture of every class
    traits = made(240, rng, camera=np.where(np.tile(targets, 2) == 2, "D90", ""))
    assert found(traits, np.tile(targets, 2), twice)["camera"].count == 120


def test_folds_hold_every_class_in_proportion():
    targets = np.repeat([0, 1, 2], [50, 20, 5])
    folds = tells._folds(targets)
    for target, each in ((0, 10), (1, 4), (2, 1)):
        assert np.bincount(folds[targets == target], minlength=5).tolist() == [each] * 5


def test_what_is_the_same_in_all_files_is_not_tried():
    rng, same = np.random.default_rng(4), np.full(60, 500)
    traits = made(60, rng, width=same, height=same, kind=np.full(60, "JPEG"),
                  camera=np.full(60, ""), date=np.full(60, np.nan))  # fmt: skip
    assert list(found(traits, np.repeat([0, 1, 2], 20))) == ["brightness"]


def test_a_little_better_than_guessing_is_not_claimed_of_many():
    assert Tell("size", 600, 1_000, 0.5, "").is_claimed
    assert not Tell("size", 53_000, 100_000, 0.5, "").is_claimed  # beyond chance, and too little
    assert not Tell("size", 13, 20, 0.5, "").is_claimed  # much, and maybe by chance


def test_it_is_said_with_an_interval_beside_guessing():
    assert Tell("camera", 45, 50, 0.25, "").in_words() == (
        "90.0% (99% interval 74.0% to 96.6%), where guessing is right in 25.0%"
    )


def test_numbers_are_cut_where_pictures_are_and_missing_ones_are_apart():
    values, labels = tells._binned(
        np.array([1.0] * 50 + [4 / 3] * 30 + [np.nan] * 20), "{:.2f}".format
    )
    assert labels == ["1.00", "1.33", "none given"]
    assert np.bincount(values).tolist() == [50, 30, 20]
    values, labels = tells._binned(np.arange(400.0), "{:.0f}".format)
    assert len(labels) == 20 and labels[0] == "0 to 19"
    assert set(np.bincount(values)) == {20}
