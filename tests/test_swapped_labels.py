"""Labels swapped on purpose: which are swapped, and what is counted of those in doubt."""

import numpy as np
import pytest

from helpers.training import make_pictures
from utils import InputError
from utils.cli import main
from utils.measure import swapped_labels
from utils.measure.swapped_labels import Found, find_swapped, print_found, with_swapped_labels

OPTIONS = {"epochs": 5, "batch_size": 8, "max_lr": 0.01, "precision": "32-true", "devices": "cpu"}


def test_three_in_a_hundred_labels_of_each_split_become_another_class():
    pictures = make_pictures(train_size=400, test_size=200)
    swapped, is_swapped = with_swapped_labels(pictures, seed=3)
    assert (len(swapped.train), len(swapped.test)) == (300, 300)
    assert (swapped.train.images == pictures.train.images[:300]).all()
    assert (swapped.test.images[:100] == pictures.train.images[300:]).all()
    assert (swapped.test.images[100:] == pictures.test.images).all()
    assert (swapped.train.targets != pictures.train.targets[:300]).sum() == 9
    before = np.concatenate([pictures.train.targets[300:], pictures.test.targets])
    np.testing.assert_array_equal(is_swapped, swapped.test.targets.numpy() != before)
    assert is_swapped.sum() == 9
    assert swapped.test.targets.min() >= 0 and swapped.test.targets.max() <= 2
    again, other = (with_swapped_labels(pictures, seed)[1] for seed in (3, 4))
    assert (again == is_swapped).all() and not (other == is_swapped).all()
    assert swapped.fingerprint != pictures.fingerprint


@pytest.mark.slow
def test_a_network_that_learned_the_classes_finds_them(small_network, tmp_path, monkeypatch):
    monkeypatch.setattr(swapped_labels, "SWAPPED", 0.1)
    monkeypatch.setattr(swapped_labels, "FIRST", 15)
    pictures = make_pictures(train_size=400, test_size=100)  # brightness tells the class: easy
    (found,) = find_swapped(pictures, 1, tmp_path, **OPTIONS)
    assert (found.pictures, found.swapped, found.shown) == (200, 20, 15)
    assert found.first >= 12 and found.first_alone >= 12
    assert 15 <= found.mistakes_swapped <= 20 and found.mistakes >= found.mistakes_swapped


def test_what_was_found_is_printed_seed_by_seed(monkeypatch, capsys):
    found = Found(4_000, 120, 400, 110, 97, 90, 100, 130)
    monkeypatch.setattr(swapped_labels, "find_swapped", lambda *_, **__: [found, found])
    print_found(make_pictures(), 2)
    told = capsys.readouterr().out
    assert told.startswith(
        "seed 0: 120 of 4,000 labels swapped; 400 mistakes, 28% of them swapped labels; cleanlab's "
        "estimate: 130 labels\nprecision of the first 100: 97.0% (95% interval 91.5% to 99.0%); "
        "by the network alone 90.0% ("
    )
    assert "\nseed 1: " in told


def test_numbers_that_cannot_be_used_are_refused():
    with pytest.raises(InputError, match="--seeds is 0"):
        print_found(make_pictures(), 0)
    with pytest.raises(SystemExit, match="--seeds is 0"):
        main(["labels", "--seeds", "0"])
