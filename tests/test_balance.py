"""Classes of unequal frequency: which pictures are kept, and what two trainings are compared by."""

from itertools import product

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from helpers.training import make_pictures
from utils import InputError
from utils.cli import main
from utils.measure.balance import long_tailed, print_balance

OPTIONS = {"epochs": 2, "batch_size": 8, "max_lr": 0.01, "precision": "32-true", "devices": "cpu"}


def test_frequencies_fall_by_the_same_factor_from_class_to_class():
    pictures = make_pictures(train_size=300, test_size=30)
    before = pictures.train.targets.bincount().tolist()
    unequal = long_tailed(pictures, ratio=25.0)
    after = unequal.train.targets.bincount().tolist()
    assert after == [before[0], round(before[1] / 5), round(before[2] / 25)]
    assert unequal.test is pictures.test
    assert unequal.fingerprint != pictures.fingerprint
    assert long_tailed(pictures, 1e5).train.targets.bincount().min() == 1


@pytest.mark.slow
def test_pairs_are_trained_and_their_gain_has_an_interval(small_network, tmp_path, capsys):
    print_balance(make_pictures(train_size=120, test_size=33), 10.0, 2, tmp_path, **OPTIONS)
    lines = capsys.readouterr().out.splitlines()
    assert len(list(tmp_path.glob("*/metrics.json"))) == 4
    reached = []
    for seed, kind in product((0, 1), ("unequal", "balanced")):
        (file,) = tmp_path.glob(f"{kind}-*seed{seed}/predictions.npz")
        made = np.load(file)
        reached.append(100 * balanced_accuracy_score(made["target"], made["predicted"]))
    told = [line.split()[-2] for line in lines if line.startswith("balanced=")]
    assert told == [f"{each:.2f}" for each in reached]
    gained = (reached[1] - reached[0] + reached[3] - reached[2]) / 2
    assert lines[-1].startswith(f"gained: {gained:.2f} points (95% interval ")
    assert lines[-1].endswith("n = 2 pairs)")


def test_numbers_that_cannot_be_used_are_refused():
    with pytest.raises(InputError, match=r"--ratio is 0\.5"):
        print_balance(make_pictures(), 0.5)
    with pytest.raises(SystemExit, match="--seeds is 1"):
        main(["balance", "--seeds", "1"])
