"""Calibration against scikit-learn, the paper's own loops, and logits of a known temperature."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.calibration import calibration_curve
from sklearn.metrics import log_loss

from helpers.predictions import drawn_from, from_probabilities, make_predictions, of_classes
from utils.explain.calibration import (
    best_temperature,
    bins_in_words,
    calibration_error,
    calibration_in_words,
    calibration_interval,
    calibration_table,
    negative_log_likelihood,
    scaled,
    scaling_in_words,
)
from utils.training.predictions import Predictions

# Bins


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


def test_a_bin_has_its_edges_and_its_interval():
    predictions = make_predictions()
    table = calibration_table(predictions)
    assert ((table["start"] <= table["confidence"]) & (table["confidence"] <= table["stop"])).all()
    np.testing.assert_allclose(table["stop"] - table["start"], 1 / 15)
    for row in table.itertuples():
        right = round(row.accuracy * row.count)
        expected = binomtest(right, row.count).proportion_ci(method="wilson")
        assert (row.low, row.high) == pytest.approx((expected.low, expected.high), abs=1e-9)
        assert 0 <= row.low <= row.accuracy <= row.high <= 1


def test_bins_are_those_of_scikit_learn():
    predictions = make_predictions(sharpness=3.0)
    right = predictions.predicted == predictions.target
    accuracy, confidence = calibration_curve(right, predictions.confidence, n_bins=15)
    table = calibration_table(predictions)
    np.testing.assert_allclose(table["accuracy"], accuracy, atol=1e-12)
    np.testing.assert_allclose(table["confidence"], confidence, atol=1e-6)


def test_full_confidence_is_in_the_last_bin_of_the_error_as_in_the_paper():
    """torchmetrics gives it a bin of its own: here that would be 0.025, and not 0.005."""
    logits = np.zeros((200, 2), np.float32)
    logits[:100, 0], logits[100:, 0] = 200, np.log(0.97 / 0.03)
    target = np.repeat([0, 1, 0], [98, 2, 100])
    predictions = Predictions(np.arange(200), target, np.zeros(200, int), logits)
    assert (predictions.confidence == 1).sum() == 100
    confidence, accuracy, count = direct_bins(predictions, 15).T
    textbook = (np.abs(confidence - accuracy) * count).sum() / 200
    assert calibration_error(predictions) == pytest.approx(textbook, abs=1e-6)
    assert textbook == pytest.approx(0.005, abs=1e-6)


@pytest.mark.parametrize("temperature", [1.3, 2.0])
def test_the_interval_holds_the_error_of_many_more_pictures(temperature):
    truth = calibration_error(drawn_from(200_000, seed=1, sharper=temperature))
    ends = [
        calibration_interval(drawn_from(1_000, seed, sharper=temperature), resamples=200)
        for seed in range(2, 62)
    ]
    held = np.mean([low <= truth <= high for low, high in ends])
    assert 0.85 <= held <= 1
    assert np.mean([high - low for low, high in ends]) < 0.1


def test_the_interval_is_the_same_every_time_and_shrinks_with_more_pictures():
    few, many = (drawn_from(size, 0, sharper=2.0) for size in (500, 5_000))
    assert calibration_interval(few) == calibration_interval(few)
    assert calibration_interval(few) != calibration_interval(few, seed=1)
    widths = [high - low for low, high in map(calibration_interval, (few, many))]
    assert widths[1] < 0.5 * widths[0]


# Temperature


def _sums_to_one(predictions):
    probabilities = predictions.probabilities.astype(float)
    return probabilities / probabilities.sum(axis=1, keepdims=True)


def test_the_likelihood_is_that_of_scikit_learn():
    predictions = make_predictions()
    expected = log_loss(predictions.target, _sums_to_one(predictions), labels=range(6))
    found = negative_log_likelihood(predictions.logits, predictions.target)
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("sharper", [0.5, 1.0, 3.0])
def test_the_temperature_that_was_put_in_is_found(sharper):
    predictions = drawn_from(20_000, 0, sharper)
    found = best_temperature(predictions.logits, predictions.target)
    assert found == pytest.approx(sharper, rel=0.03)
    assert best_temperature(predictions.logits[:0], predictions.target[:0]) == 1


@pytest.mark.parametrize("is_held_out", [False, True])
def test_scaling_mends_confidence_and_changes_no_prediction(is_held_out):
    predictions = drawn_from(4_000, 0, sharper=3.0)
    held_out = drawn_from(4_000, 1, sharper=3.0) if is_held_out else None
    scaling = scaled(predictions, held_out)
    after = scaling.predictions
    np.testing.assert_array_equal(after.logits.argmax(1), predictions.predicted)
    np.testing.assert_array_equal(after.predicted, predictions.predicted)
    assert scaling.temperatures == pytest.approx([3.0] * len(scaling.temperatures), rel=0.1)
    assert (len(scaling.temperatures), scaling.fitted_on) == ((1, 4_000) if is_held_out else (2, 0))
    assert calibration_error(after) < 0.2 * calibration_error(predictions)


def test_each_half_is_scaled_by_what_the_other_gave():
    predictions = drawn_from(400, 0, sharper=2.0)
    before = scaled(predictions)
    ratio = predictions.logits[:, 0] / before.predictions.logits[:, 0]
    first = np.isclose(ratio, before.temperatures[0], rtol=1e-4)
    assert first.sum() == 200
    targets = np.where(first, (predictions.target + 1) % 10, predictions.target)
    after = scaled(replace(predictions, target=targets))
    assert after.temperatures[0] == before.temperatures[0]  # its own labels count for nothing
    assert after.temperatures[1] > 2 * before.temperatures[1]


def test_held_out_pictures_alone_give_the_temperature():
    predictions, held_out = drawn_from(300, 0, 3.0), drawn_from(5_000, 1, 1.5)
    (found,) = scaled(predictions, held_out).temperatures
    assert found == pytest.approx(1.5, rel=0.1)


# In words


def test_confidence_beside_accuracy_is_said():
    too_sure = of_classes([0, 0, 0, 0], [0, 0, 1, 1])
    assert calibration_in_words(too_sure) == (
        "Its mean confidence is 75.00%, its accuracy 50.00% (95% interval 15.00% to "
        "85.00%): too sure by 25.00 points."
    )
    assert calibration_in_words(of_classes([0, 1], [0, 1])).endswith(
        ": not sure enough by 25.00 points."
    )
    honest = calibration_in_words(of_classes([0, 0, 0, 0], [0, 0, 0, 1]))
    assert "its accuracy 75.00% (" in honest and honest.endswith("): as sure as it is right.")


def test_bins_that_chance_does_not_explain_are_counted():
    too_sure = calibration_table(of_classes([0] * 40, [0] * 10 + [1] * 30, sure=0.9))
    assert bins_in_words(too_sure) == (
        "In 1 of 1 bin confidence lies outside the 95% interval: too sure in 1, not sure enough in "
        "0. Of a network whose confidence is right, about one bin in 20 would lie there by chance."
    )
    modest = calibration_table(of_classes([0] * 40, [0] * 40, sure=0.5))
    assert "too sure in 0, not sure enough in 1." in bins_in_words(modest)
    honest = calibration_table(of_classes([0] * 4, [0, 0, 0, 1]))
    assert bins_in_words(honest) == (
        "In none of 1 bin does confidence lie outside the 95% interval."
    )


def test_before_and_after_are_said():
    predictions = drawn_from(2_000, 0, sharper=3.0)
    scaling = scaled(predictions, drawn_from(2_000, 1, sharper=3.0))
    first, error, likelihood = scaling_in_words(predictions, scaling).splitlines()
    assert (
        first
        == f"Temperature {scaling.temperatures[0]:.2f}, from 2,000 held-out training pictures."
    )
    before, after = (100 * calibration_error(p) for p in (predictions, scaling.predictions))
    assert f"error: {before:.2f}% (95% interval " in error and f" before, {after:.2f}% (" in error
    assert likelihood.endswith(" after. No prediction changes.")
    halved = scaling_in_words(predictions, scaled(predictions))
    assert halved.startswith("Temperatures ") and "held no training pictures out." in halved
