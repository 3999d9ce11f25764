"""Two runs beside each other, by hand-worked cases."""

import numpy as np
import pytest
from scipy.stats import binom

from helpers.predictions import of_classes
from utils import InputError
from utils.explain.compare import mcnemar


def of_rights(rights):
    """Predictions of class 0 that are right where this says so."""
    return of_classes([0] * len(rights), [0 if right else 1 for right in rights])


def test_mcnemar_is_the_test_of_a_fair_coin_on_the_pictures_that_differ():
    first = of_rights([1] * 8 + [0] * 2 + [1] * 50 + [0] * 7)
    second = of_rights([0] * 8 + [1] * 2 + [1] * 50 + [0] * 7)
    found = mcnemar(first, second)
    assert (found.only_first, found.only_second) == (8, 2)
    assert found.p_value == pytest.approx(2 * (1 + 10 + 45) / 2**10)  # 0, 1 or 2 of 10, both sides
    assert str(found) == (
        "8 pictures only the first has right, 2 only the second (McNemar, exact: p = 0.11)"
    )


@pytest.mark.parametrize(("only_first", "only_second"), [(0, 1), (3, 30), (60, 40), (12, 12)])
def test_mcnemar_is_the_same_either_way_round(only_first, only_second):
    first = of_rights([1] * only_first + [0] * only_second)
    second = of_rights([0] * only_first + [1] * only_second)
    found, turned = mcnemar(first, second), mcnemar(second, first)
    assert found.p_value == pytest.approx(turned.p_value)
    few, all_of_them = min(only_first, only_second), only_first + only_second
    expected = min(1, 2 * binom.cdf(few, all_of_them, 0.5))
    assert found.p_value == pytest.approx(expected)


def test_runs_that_differ_nowhere_do_not_differ():
    same = of_rights([1, 1, 0])
    assert mcnemar(same, same).p_value == 1


def test_runs_on_different_pictures_are_refused():
    with pytest.raises(InputError, match="different pictures"):
        mcnemar(of_classes([0, 1], [0, 1]), of_classes([0, 2], [0, 1]))
    with pytest.raises(InputError, match="different pictures"):
        mcnemar(of_rights([1]), of_rights(np.ones(2)))
