"""Prediction sets: their scores by hand, and their promise on data with a known answer."""

import numpy as np
import pytest

from helpers.predictions import drawn_from
from utils.explain.prediction_sets import (
    ENOUGH,
    FREE,
    PENALTY,
    UNKNOWN,
    class_scores,
    class_thresholds,
    is_unknown,
    prediction_sets,
    set_in_words,
    some_of_each,
)

NAMES = tuple("abcdefghij")


def test_scores_are_those_of_a_hand_worked_case():
    scores = class_scores(np.array([[0.2, 0.5, 0.1, 0.2], [0.1, 0.2, 0.3, 0.4]]))
    # above: what is more probable; less its own; from the third class on, 0.1 each
    expected = [
        [0.5 - 0.2, 0 - 0.5, 0.9 - 0.1 + 0.2, 0.7 - 0.2 + 0.1],
        [0.9 - 0.1 + 0.2, 0.7 - 0.2 + 0.1, 0.4 - 0.3, 0 - 0.4],
    ]
    assert (PENALTY, FREE) == (0.1, 2)
    np.testing.assert_allclose(scores, expected)


def test_a_more_probable_class_never_fits_worse():
    probabilities = drawn_from(200).probabilities
    ranked = -np.sort(-probabilities, axis=1)
    assert (np.diff(class_scores(ranked), axis=1) > 0).all()


def test_a_threshold_is_the_ninety_first_of_a_hundred_scores():
    sure = np.linspace(0.51, 0.99, 100)
    probabilities = np.stack([sure, 1 - sure], axis=1)
    first, second = class_thresholds(probabilities, np.zeros(100, int))
    assert first == pytest.approx(-np.sort(sure)[9])  # the scores are minus the confidences
    assert second == first  # no picture of its own: that of all together
    few = class_thresholds(probabilities[:8], np.zeros(8, int))
    assert prediction_sets(probabilities, few).all()  # eight cannot promise nine in ten


def test_a_class_with_enough_pictures_has_its_own_threshold():
    predictions = drawn_from(3_000)
    counts = np.bincount(predictions.target, minlength=10)
    assert counts.min() >= ENOUGH
    thresholds = class_thresholds(predictions.probabilities, predictions.target)
    assert len(set(thresholds)) == 10
    part = predictions.target != 3
    part[np.flatnonzero(~part)[: ENOUGH - 1]] = True
    few = class_thresholds(predictions.probabilities[part], predictions.target[part])
    scores = class_scores(predictions.probabilities[part])
    own = scores[np.arange(part.sum()), predictions.target[part]]
    assert few[3] == np.sort(own)[int(np.ceil(0.9 * (part.sum() + 1))) - 1]
    np.testing.assert_array_equal(np.delete(few, 3), np.delete(thresholds, 3))


@pytest.mark.parametrize("sharper", [0.3, 1.0, 4.0])
def test_the_promise_holds_in_new_pictures_of_every_class_however_sure_the_network(sharper):
    known, new = drawn_from(4_000, 0, sharper), drawn_from(40_000, 1, sharper)
    sets = prediction_sets(new.probabilities, class_thresholds(known.probabilities, known.target))
    held = sets[np.arange(len(sets)), new.target]
    assert held.mean() == pytest.approx(0.9, abs=0.01)
    for target in range(10):
        assert held[new.target == target].mean() > 0.86
    assert 1 < sets.sum(axis=1).mean() < 8  # without all classes in all sets


@pytest.mark.parametrize(
    ("classes", "size", "unknown"),
    [(10, 0, True), (10, 1, False), (10, 5, False), (10, 6, True), (2, 1, False), (2, 2, True)],
)
def test_a_set_without_a_class_or_with_most_of_them_tells_nothing(classes, size, unknown):
    members = np.arange(classes) < size
    assert is_unknown(members[None]).tolist() == [unknown]
    words = set_in_words(members, NAMES[:classes])
    assert words == (UNKNOWN if unknown else " or ".join(NAMES[:size]))


def test_some_of_each_kind_are_chosen():
    sizes = [1, 1, 1, 2, 0, 3, 9, 1]
    sets = np.arange(10) < np.array(sizes)[:, None]
    targets = np.array([0, 0, 1, 0, 0, 1, 0, 2])  # of all classes, though they come in their order
    assert some_of_each(sets, targets, each=2).tolist() == [0, 2, 3, 5, 4, 6]
    assert some_of_each(sets, targets, each=9).tolist() == [0, 1, 2, 7, 3, 5, 4, 6]
