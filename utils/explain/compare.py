"""Two runs beside each other."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

from utils import InputError, counted
from utils.training.predictions import Predictions


@dataclass(frozen=True)
class McNemar:
    """On which pictures two runs differ, and how likely chance alone makes them differ so.

    Attributes:
        only_first, only_second: how many pictures only that run has right.
        p_value: two-sided, exact, in [0, 1].
    """

    only_first: int
    only_second: int
    p_value: float

    def __str__(self) -> str:
        return (
            f"{counted(self.only_first, 'picture')} only the first has right, "
            f"{self.only_second:,} only the second (McNemar, exact: p = {self.p_value:.2g})"
        )


def mcnemar(first: Predictions, second: Predictions) -> McNemar:
    """Test whether two runs are equally accurate, on the same pictures (McNemar 1947).

    Only the pictures that one has right and the other wrong can tell. Were both equally accurate,
    each of these would be the first's with a probability of a half, so the exact test is that of a
    fair coin. Two separate intervals would waste that the pictures are the same.

    Args:
        first, second: predictions of the same split.

    Raises:
        InputError: they are about different pictures.
    """
    if not np.array_equal(first.target, second.target):
        raise InputError(
            "These two runs were tested on different pictures, so they cannot be compared picture "
            "by picture. Compare runs on the same data set, with the same limit_test."
        )
    rights = [run.predicted == run.target for run in (first, second)]
    only_first = int((rights[0] & ~rights[1]).sum())
    only_second = int((rights[1] & ~rights[0]).sum())
    differing = only_first + only_second
    p_value = float(binomtest(only_first, differing, 0.5).pvalue) if differing else 1.0
    return McNemar(only_first, only_second, p_value)
