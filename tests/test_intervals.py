"""Intervals of shares, against SciPy's."""

import numpy as np
import pytest
from scipy.stats import binomtest

from utils.intervals import mean_share_interval, share_in_words, wilson_interval

COUNTED = [(0, 1), (1, 1), (0, 7), (3, 7), (7, 7), (50, 100), (9_300, 10_000), (10_000, 10_000)]


@pytest.mark.parametrize("coverage", [0.95, 0.99])
@pytest.mark.parametrize(("right", "count"), COUNTED)
def test_an_interval_is_that_of_scipy(right, count, coverage):
    expected = binomtest(right, count).proportion_ci(coverage, method="wilson")
    low, high = wilson_interval([right], [count], coverage)
    assert (low[0], high[0]) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_the_interval_of_a_mean_share_holds_the_true_one_as_often_as_it_says():
    generator = np.random.default_rng(1)
    counts = np.array([200, 40, 5])
    true = generator.uniform(0.3, 1.0, (2_000, 3))
    held = [
        low <= shares.mean() <= high
        for shares in true
        for low, high in [mean_share_interval(generator.binomial(counts, shares), counts)]
    ]
    assert 0.935 <= np.mean(held) <= 0.975
    alone = wilson_interval([37], [100])
    assert mean_share_interval([37], [100]) == pytest.approx((alone[0][0], alone[1][0]))


def test_a_share_is_never_rounded_to_all_or_nothing():
    assert share_in_words(9_999, 10_000, 0) == "99.99% (95% interval 99.9% to 99.998%)"
    assert share_in_words(10, 10) == "100.0% (95% interval 72.2% to 100.0%)"


def test_the_coverage_is_said():
    assert share_in_words(45, 50, coverage=0.99) == "90.0% (99% interval 74.0% to 96.6%)"
