"""What a network that may say nothing gains."""

import numpy as np
import pytest
from scipy.stats import binomtest

from helpers.predictions import drawn_from, from_probabilities, make_predictions
from utils.explain.refusal import answered_curve, refusal_in_words, refusal_table


def of_confidences(sure, right):
    """Two classes; the first is predicted with these confidences."""
    sure = np.asarray(sure)
    target = np.where(right, 0, 1)
    return from_probabilities(np.stack([sure, 1 - sure], axis=1), target)


def test_the_curve_is_the_accuracy_among_the_surest():
    predictions = of_confidences([0.6, 0.9, 0.7, 0.8], [False, True, True, False])
    curve = answered_curve(predictions)
    assert curve["answered"].tolist() == [0.25, 0.5, 0.75, 1.0]
    assert curve["count"].tolist() == [1, 2, 3, 4]
    assert curve["accuracy"].tolist() == pytest.approx([1, 1 / 2, 2 / 3, 1 / 2])


@pytest.mark.parametrize("points", [7, 200, 1_000])
def test_each_point_counts_for_itself_and_has_its_interval(points):
    predictions = make_predictions()
    curve = answered_curve(predictions, points)
    assert len(curve) == min(points, 400) and curve["answered"].iloc[-1] == 1
    order = sorted(range(400), key=lambda i: -predictions.confidence[i])
    for row in curve.iloc[::5].to_dict("records"):
        kept = order[: row["count"]]
        right = int((predictions.predicted == predictions.target)[kept].sum())
        expected = binomtest(right, row["count"]).proportion_ci(method="wilson")
        assert row["accuracy"] == pytest.approx(right / row["count"])
        assert (row["low"], row["high"]) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_refusing_the_least_certain_gains_what_was_wrong_among_them():
    sure = np.linspace(0.999, 0.51, 200)
    right = np.ones(200, bool)
    right[[150, 185, 195, 199]] = False  # one of the last 2, three of the last 20
    table = refusal_table(of_confidences(sure, right))
    assert table["refused"].tolist() == [0, 0.01, 0.05, 0.1]
    assert table["count"].tolist() == [200, 198, 190, 180]
    assert table["accuracy"].tolist() == pytest.approx([196 / 200, 195 / 198, 188 / 190, 179 / 180])
    assert table["gain"].tolist() == pytest.approx([0, 0.0048485, 0.0094737, 0.0144444], abs=1e-6)


def test_a_single_picture_is_never_refused():
    assert refusal_table(of_confidences([0.8], [True]))["count"].tolist() == [1, 1, 1, 1]


def test_a_network_that_is_surer_where_it_is_right_gains_and_another_loses():
    honest = drawn_from(5_000)
    assert (refusal_table(honest)["gain"].diff()[1:] > 0).all()
    sure = np.linspace(0.51, 0.99, 100)
    perverse = refusal_table(of_confidences(sure, sure < 0.9))
    assert (perverse["gain"][1:] < 0).all()


def test_what_refusals_gain_is_said():
    sure, right = np.linspace(0.99, 0.51, 100), np.ones(100, bool)
    right[[1, 99]] = False
    told = refusal_in_words(refusal_table(of_confidences(sure, right))).splitlines()
    assert told[0].startswith("All 100 pictures answered: 98.00% right (95% interval 93.00% to ")
    assert told[1].startswith("The least certain 1% refused: 98.99% right of the other 99 (95% int")
    assert told[1].endswith(", 0.99 points more.") and len(told) == 4
    unmoved = refusal_in_words(refusal_table(of_confidences(sure, np.ones(100, bool))))
    assert unmoved.endswith(", no more than before.")
    worse = refusal_in_words(refusal_table(of_confidences(sure, sure < 0.9)))
    assert worse.endswith(" points less.")
