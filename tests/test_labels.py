"""Labels in doubt: those that were swapped on purpose come first."""

import numpy as np
import pytest

from helpers.predictions import from_probabilities, of_classes
from utils.explain.labels import doubted_labels, doubts_in_words
from utils.training.predictions import Predictions

SIZE, SWAPPED = 4_000, 120


@pytest.fixture(scope="module")
def planted():
    """Predictions, mostly right, and 3 % of the labels swapped; the truth, and which these are."""
    random = np.random.default_rng(0)
    truth = random.integers(0, 10, SIZE)
    logits = random.normal(size=(SIZE, 10))
    logits[np.arange(SIZE), truth] += 3
    swapped = random.choice(SIZE, SWAPPED, replace=False)
    labels = truth.copy()
    labels[swapped] = (truth[swapped] + random.integers(1, 10, SWAPPED)) % 10
    logits = logits.astype(np.float32)
    return Predictions(np.arange(SIZE), labels, logits.argmax(1), logits), truth, swapped


def mistakes_of(predictions):
    return np.flatnonzero(predictions.predicted != predictions.target)


def test_swapped_labels_come_first_with_the_right_class_beside_them(planted):
    predictions, truth, swapped = planted
    wrong = mistakes_of(predictions)
    assert len(wrong) > 1.5 * SWAPPED  # most mistakes would be a poor guess
    doubts = doubted_labels(predictions, wrong)
    first = doubts.positions[:50]
    assert np.isin(first, swapped).mean() > 0.9
    assert (doubts.suggested[:50] == truth[first]).mean() > 0.9
    assert sorted(doubts.positions) == sorted(wrong)
    assert 0.5 * SWAPPED < doubts.likely < 2 * SWAPPED


def test_neighbours_that_know_better_are_heard(planted):
    predictions, truth, swapped = planted
    wrong = mistakes_of(predictions)
    neighbours = np.repeat(truth[wrong, None], 5, axis=1)
    alone, together = (doubted_labels(predictions, wrong, n) for n in (None, neighbours))
    share = [np.isin(d.positions[:SWAPPED], swapped).mean() for d in (alone, together)]
    assert share[1] > share[0] + 0.05 and share[1] > 0.95


def test_the_order_is_that_of_the_margin_between_label_and_best_other_class():
    probabilities = [[0.5, 0.4, 0.1], [0.05, 0.9, 0.05], [0.3, 0.3, 0.4], [0.1, 0.1, 0.8]]
    predictions = from_probabilities(probabilities, [1, 0, 0, 2])
    doubts = doubted_labels(predictions, np.array([0, 1, 2]))
    assert doubts.positions.tolist() == [1, 0, 2] or doubts.positions.tolist() == [1, 2, 0]
    assert doubts.evidence[0] == pytest.approx(0.9)
    votes = np.array([[1, 1], [0, 0], [2, 2]])
    heard = doubted_labels(predictions, np.array([0, 1, 2]), votes)
    # margins: 0.7 − 0.25, 0.525 − 0.45, 0.15 − 0.7
    assert heard.positions.tolist() == [2, 1, 0]
    assert heard.suggested.tolist() == [2, 1, 0]
    np.testing.assert_allclose(heard.evidence, [0.7, 0.45, 0.25], atol=1e-6)


def test_the_labels_in_doubt_are_counted_in_words():
    right = of_classes([0, 1, 2], [0, 1, 2])
    none = doubted_labels(right, np.empty(0, int))
    assert doubts_in_words(none, 3).startswith("The network agrees with every label, so none is in")
    some = of_classes([0] * 30 + [1] * 30 + [2] * 30, [0] * 28 + [1] * 32 + [2] * 30, sure=0.9)
    doubts = doubted_labels(some, mistakes_of(some))
    assert doubts.likely == 2
    assert doubts_in_words(doubts, 90).startswith(
        "cleanlab's estimate, from the network's probabilities: 2 labels of 90 wrong. "
    )
    told = doubts_in_words(doubts, 90, [f"{number}.jpg" for number in range(90)])
    assert told.endswith("The files, in that order: 28.jpg, 29.jpg.")
    assert "Those of the training pictures are not asked about" in told
    alike = of_classes([0] * 5, [0] * 4 + [1])
    told = doubts_in_words(doubted_labels(alike, mistakes_of(alike)), 5)
    assert told == "All labels are the same, so there is no estimate of how many are wrong."
