"""Error analysis against scikit-learn and plain numpy."""

from itertools import pairwise

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support

from utils.explain.mistakes import (
    calibration_error,
    calibration_table,
    confusion,
    misclassified,
    most_confused,
    per_class_table,
)
from utils.training.predictions import Predictions

CLASSES = ("ant", "bee", "cat", "dog", "elk", "fox")
NEVER_PREDICTED, NEVER_OCCURS = 2, 4


def make_predictions(size=400, seed=0, sharpness=2.0):
    """Random predictions, right about half of the time; confidences all over [1/6, 1]."""
    random = np.random.default_rng(seed)
    occurring = [c for c in range(6) if c != NEVER_OCCURS]
    target = random.choice(occurring, size)
    logits = random.normal(size=(size, 6)) * sharpness
    logits[np.arange(size), target] += 2
    logits[:, NEVER_PREDICTED] = -20
    logits = logits.astype(np.float32)
    return Predictions(np.arange(size), target, logits.argmax(1), logits)


def from_probabilities(probabilities, target):
    """Predictions with exactly these probabilities."""
    probabilities = np.asarray(probabilities, np.float64)
    return Predictions(
        np.arange(len(target)), np.asarray(target), probabilities.argmax(1),
        np.log(probabilities).astype(np.float32),
    )  # fmt: skip


# Tables


@pytest.mark.parametrize("seed", range(5))
def test_confusion_counts_actual_in_rows_and_predicted_in_columns(seed):
    predictions = make_predictions(seed=seed)
    matrix = confusion(predictions)
    expected = confusion_matrix(predictions.target, predictions.predicted, labels=range(6))
    np.testing.assert_array_equal(matrix, expected)
    assert matrix.dtype == np.int64
    assert not matrix[NEVER_OCCURS].any() and not matrix[:, NEVER_PREDICTED].any()
    assert not np.array_equal(matrix, matrix.T)  # the wrong way round would show


@pytest.mark.parametrize("seed", range(5))
def test_figures_of_each_class_are_those_of_scikit_learn(seed):
    predictions = make_predictions(seed=seed)
    assert set(predictions.predicted) == {0, 1, 3, 4, 5}
    table = per_class_table(predictions, CLASSES)
    expected = precision_recall_fscore_support(
        predictions.target, predictions.predicted, labels=range(6), zero_division=0
    )
    assert list(table["class"]) == list(CLASSES)
    for name, values in zip(("precision", "recall", "f1", "support"), expected, strict=True):
        np.testing.assert_allclose(table[name], values, rtol=1e-6, err_msg=name)
    assert table["support"][NEVER_OCCURS] == 0
    assert table[["precision", "recall", "f1"]].iloc[NEVER_PREDICTED].eq(0).all()
    assert not table.isna().any(axis=None)


def test_accuracy_is_that_of_scikit_learn():
    predictions = make_predictions()
    expected = accuracy_score(predictions.target, predictions.predicted)
    assert 0.2 < expected < 0.9
    assert predictions.accuracy == pytest.approx(expected)


def test_confidence_is_the_probability_of_the_predicted_class():
    predictions = make_predictions()
    exponentials = np.exp(predictions.logits.astype(np.float64))
    expected = exponentials / exponentials.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(predictions.probabilities, expected, atol=1e-6)
    chosen = expected[np.arange(len(expected)), predictions.predicted]
    np.testing.assert_allclose(predictions.confidence, chosen, atol=1e-6)


def test_misclassified_are_all_the_wrong_ones_the_most_confident_first():
    predictions = make_predictions()
    found = misclassified(predictions)
    wrong = [i for i in range(400) if predictions.predicted[i] != predictions.target[i]]
    assert sorted(found) == wrong
    confidences = predictions.confidence[found]
    assert (np.diff(confidences) <= 0).all() and confidences[0] > confidences[-1]


def test_nothing_is_misclassified_where_all_is_right():
    predictions = from_probabilities([[0.9, 0.1], [0.2, 0.8]], [0, 1])
    assert len(misclassified(predictions)) == 0


def test_most_confused_lists_the_most_frequent_mistakes_with_their_share():
    matrix = np.array([[90, 7, 3], [20, 80, 0], [0, 5, 45]])
    table = most_confused(matrix, ("ant", "bee", "cat"))
    rows = list(table.itertuples(index=False, name=None))
    assert rows == [
        ("bee", "ant", 20, 0.2),
        ("ant", "bee", 7, 0.07),
        ("cat", "bee", 5, 0.1),
        ("ant", "cat", 3, 0.03),
    ]
    shown = most_confused(matrix, ("ant", "bee", "cat"), count=2)
    assert list(shown["count"]) == [20, 7]


def test_most_confused_is_an_empty_table_where_nothing_is_wrong():
    table = most_confused(np.diag([3, 0, 4]), ("ant", "bee", "cat"))
    assert list(table.columns) == ["actual", "predicted", "count", "share"]
    assert table.empty


# Calibration


def direct_bins(predictions, bins):
    """Guo et al. 2017: bin m holds confidences in ((m − 1)/M, m/M]."""
    probabilities = np.exp(predictions.logits.astype(np.float64))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    confidence = probabilities.max(axis=1)
    right = predictions.logits.argmax(1) == predictions.target
    edges = np.linspace(0, 1, bins + 1)
    rows = []
    for low, high in pairwise(edges):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            rows.append((confidence[inside].mean(), right[inside].mean(), inside.sum()))
    return np.array(rows)


@pytest.mark.parametrize("bins", [5, 15])
@pytest.mark.parametrize("seed", range(3))
def test_calibration_error_is_the_weighted_gap_of_the_bins(seed, bins):
    predictions = make_predictions(seed=seed, sharpness=3.0)
    confidence, accuracy, count = direct_bins(predictions, bins).T
    expected = (np.abs(confidence - accuracy) * count).sum() / count.sum()
    assert expected > 0.01
    assert calibration_error(predictions, bins) == pytest.approx(expected, abs=1e-5)


def test_calibration_error_of_known_cases():
    sure_and_wrong = from_probabilities([[0.99999, 0.00001]] * 10, [1] * 10)
    assert calibration_error(sure_and_wrong) == pytest.approx(1, abs=1e-3)
    honest = from_probabilities([[0.75, 0.25]] * 100, [0] * 75 + [1] * 25)
    assert calibration_error(honest) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_calibration_table_has_a_row_a_filled_bin(seed):
    predictions = make_predictions(seed=seed)
    table = calibration_table(predictions)
    np.testing.assert_allclose(
        table[["confidence", "accuracy", "count"]], direct_bins(predictions, 15), atol=1e-5
    )
    assert table["count"].sum() == 400


def test_full_confidence_falls_into_the_last_bin():
    predictions = Predictions(
        np.arange(2), np.zeros(2, int), np.zeros(2, int),
        np.array([[90, -90], [0.1, 0]], np.float32),
    )  # fmt: skip
    table = calibration_table(predictions, bins=10)
    assert table["confidence"].tolist() == pytest.approx([0.525, 1.0], abs=1e-3)
    assert table["count"].tolist() == [1, 1]
