"""Between which values a share that was counted, or a mean, probably lies."""

import math
import statistics
from collections.abc import Sequence

import numpy as np
from scipy.special import stdtrit

from utils import as_percent

#: Of the intervals around accuracies.
COVERAGE = 0.95


def wilson_interval(right, count, coverage=COVERAGE):
    """Return between which accuracies the true one probably lies, as `right` of `count` are right.

    The score interval (Wilson 1927, "Probable inference, the law of succession, and statistical
    inference"): the accuracies that such a share of all samples of this size would agree with. It
    stays in [0, 1], and is of use where all or none are right, and where there are few pictures.

    Args:
        right, count: arrays of the same length; counts are at least 1.
        coverage: share of samples, in (0, 1).

    Returns:
        the low and the high ends, in [0, 1].
    """
    z = statistics.NormalDist().inv_cdf((1 + coverage) / 2)
    right, count = np.asarray(right, dtype=float), np.asarray(count, dtype=float)
    centre = (right + z**2 / 2) / (count + z**2)
    half = z / (count + z**2) * np.sqrt(right * (count - right) / count + z**2 / 4)
    # exactly 0 and 1 at the ends, where rounding would leave a little more or less
    low = np.where(right == 0, 0.0, centre - half)
    return low, np.where(right == count, 1.0, centre + half)


def mean_share_interval(right, count) -> tuple[float, float]:
    """Return between which values the mean over groups of their true shares probably lies.

    What `wilson_interval` leaves open of each share is combined as independent errors are (MOVER:
    Zou & Donner 2008, "Construction of confidence limits about effect measures"), which is of use
    for groups of few pictures, too.

    Args:
        right, count: int, a number a group: how many are right, and of how many; at least 1.

    Returns:
        the low and the high end, in [0, 1].
    """
    shares = np.divide(right, count)
    low, high = wilson_interval(right, count)
    below, above = (
        float(np.sqrt(((shares - end) ** 2).sum())) / len(shares) for end in (low, high)
    )
    return float(shares.mean()) - below, float(shares.mean()) + above


def share_in_words(right: int, count: int, digits: int = 1, coverage: float = COVERAGE) -> str:
    """Return a share in percent with its `wilson_interval`; `count` is at least 1.

    >>> share_in_words(45, 50)
    '90.0% (95% interval 78.6% to 95.7%)'
    """
    low, high = wilson_interval(right, count, coverage)
    return f"{as_percent(right / count, digits)} ({interval_in_words(low, high, digits, coverage)})"


def interval_in_words(low: float, high: float, digits: int = 1, coverage: float = COVERAGE) -> str:
    """Return an interval of shares in percent.

    >>> interval_in_words(0.1, 0.123)
    '95% interval 10.0% to 12.3%'
    """
    ends = f"{as_percent(low, digits)} to {as_percent(high, digits)}"
    return f"{coverage:.0%} interval {ends}"


def student_half(errors: Sequence[tuple[float, float]], coverage: float = COVERAGE) -> float:
    """Return how far an interval reaches to either side of a mean (Student 1908).

    Of few values an error is itself uncertain, so the interval is wider than the normal one: 2.8
    errors to either side for five of them. Where several errors add up, each has such an interval,
    and their squares add up (Zou & Donner 2008, "Construction of confidence limits about effect
    measures: a general approach").

    Args:
        errors: standard errors of the mean that are independent of each other, each with its
            degrees of freedom.
        coverage: of the interval, in (0, 1).

    >>> print(f"{student_half([(1.0, 4)]):.3f} {student_half([(3.0, 1e9), (4.0, 1e9)]):.3f}")
    2.776 9.800
    """
    tail = (1 - coverage) / 2
    return math.sqrt(sum((stdtrit(freedom, tail) * error) ** 2 for error, freedom in errors))


def gain_in_words(gained: Sequence[float], what: str) -> str:
    """Return the mean of some differences, in points, with Student's interval and their number.

    Args:
        gained: at least two.
        what: they are, such as "pairs".

    >>> gain_in_words([1.0, 2.0, 3.0], "pairs")
    'gained: 2.00 points (95% interval -0.48 to 4.48; n = 3 pairs)'
    """
    mean = statistics.mean(gained)
    error = statistics.stdev(gained) / math.sqrt(len(gained))
    half = student_half([(error, len(gained) - 1)])
    interval = f"{COVERAGE:.0%} interval {mean - half:.2f} to {mean + half:.2f}"
    return f"gained: {mean:.2f} points ({interval}; n = {len(gained)} {what})"


def mean_and_spread(values: list[float], digits: int) -> str:
    """Return the mean, and with several values ± their standard deviation; a dash for none.

    >>> mean_and_spread([94.1, 94.3], 2), mean_and_spread([94.1], 1), mean_and_spread([], 1)
    ('94.20 ± 0.14', '94.1', '–')
    """
    if not values:
        return "–"
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{spread}"
