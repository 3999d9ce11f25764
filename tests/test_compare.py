"""Runs and groups of runs beside each other: by hand-worked cases, SciPy, and simulation."""

import json

import numpy as np
import pytest
from scipy.stats import binom, nct, ttest_ind, ttest_rel
from scipy.stats import t as student

from helpers.predictions import of_classes
from utils import InputError
from utils.explain.compare import (
    BOTH,
    PICTURES,
    SEEDS,
    Difference,
    Group,
    compare_groups,
    groups_in_words,
    in_short,
    mcnemar,
    mcnemar_in_words,
    mcnemar_of_rights,
    over_both,
    over_pictures,
    over_seeds,
    verdict_in_words,
)
from utils.intervals import student_half


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


# Groups of runs


def simulated(random, runs, pictures=400, gain=0.0, spread=0.12, own=0.0):
    """Two groups of runs: some pictures are hard, and some runs better than the others.

    Args:
        random: NumPy's generator.
        runs: how many in each group.
        pictures: how many.
        gain: how far the second group's logits are above the first's.
        spread: deviation of runs, in logits.
        own: deviation of what each picture gains in one group alone, in logits.

    Returns:
        bool, runs × pictures, two of them.
    """
    hard = random.normal(2.5, 1.5, pictures)
    both = []
    for more in (0.0, gain):
        logits = hard + random.normal(0, own, pictures) + random.normal(0, spread, (runs, 1)) + more
        both.append(random.random((runs, pictures)) < 1 / (1 + np.exp(-logits)))
    return both


def called(measure, comparisons=1_000, **options):
    """The share of simulated comparisons that a test calls different at 5 %."""
    random = np.random.default_rng(0)
    values = [measure(*simulated(random, **options)).p_value for _ in range(comparisons)]
    return np.mean(np.array(values) < 0.05)


def both_paired(first, second):
    return over_both(first, second, is_paired=True)


def both_apart(first, second):
    return over_both(first, second, is_paired=False)


def seeds_paired(first, second):
    return over_seeds(first.mean(axis=1), second.mean(axis=1), first.shape[1], True)


def seeds_apart(first, second):
    return over_seeds(first.mean(axis=1), second.mean(axis=1), first.shape[1], False)


def added_up(first, second):
    return mcnemar_of_rights(first.ravel(), second.ravel())


@pytest.mark.parametrize(
    ("measure", "options"),
    [
        (both_paired, {"runs": 5}),
        (both_apart, {"runs": 5}),
        (both_paired, {"runs": 2}),
        (both_paired, {"runs": 3, "own": 1.0}),
        (both_apart, {"runs": 5, "own": 0.6}),
        (both_paired, {"runs": 10, "own": 0.3}),
        (seeds_paired, {"runs": 5}),
        (seeds_apart, {"runs": 5}),
        (over_pictures, {"runs": 5, "spread": 0.0}),
    ],
)
def test_of_a_thousand_comparisons_without_a_difference_about_one_in_twenty_is_called_one(
    measure, options
):
    assert 0.03 <= called(measure, **options) <= 0.07


@pytest.mark.parametrize("spreads", [(1, 1), (3, 1), (1, 3)])
def test_two_runs_against_many_call_no_more_than_one_in_twenty(spreads):
    random = np.random.default_rng(0)
    calls = [
        over_seeds(
            random.normal(0.9, 0.01 * spreads[0], 2),
            random.normal(0.9, 0.01 * spreads[1], 10),
            10**6,
            False,
        ).p_value
        < 0.05
        for _ in range(1_000)
    ]  # of Welch's own, one in ten
    assert np.mean(calls) <= 0.06


def test_two_runs_keep_a_freedom_of_their_own():
    first, second = np.array([0.90, 0.92]), np.array([0.93, 0.94, 0.97])
    errors = [
        (values.std(ddof=1) / len(values) ** 0.5, len(values) - 1) for values in (first, second)
    ]
    assert np.array(over_seeds(first, second, 10_000, False).errors) == pytest.approx(
        np.array(errors)
    )
    assert over_seeds(second, first, 10_000, False).p_value == pytest.approx(
        over_seeds(first, second, 10_000, False).p_value
    )


def test_counts_that_are_added_up_over_seeds_call_too_many():
    assert called(added_up, 300, runs=5) > 0.1
    assert called(over_pictures, 300, runs=10, own=0.0, spread=0.3) > 0.1  # of these very networks


def test_a_difference_that_is_there_is_found_and_lies_in_the_interval():
    random = np.random.default_rng(1)
    first, second = simulated(random, 500, 4_000, gain=1.0)
    truth = second.mean() - first.mean()
    found = [both_paired(*simulated(random, 5, gain=1.0)) for _ in range(200)]
    assert 0.03 < truth < 0.12 and all(difference.p_value < 0.05 for difference in found)
    inside = [low <= truth <= high for low, high in (each.interval for each in found)]
    assert 0.9 <= np.mean(inside) <= 0.99


@pytest.mark.parametrize("is_paired", [True, False])
def test_over_seeds_is_the_t_test_of_scipy(is_paired):
    random = np.random.default_rng(2)
    first, second = random.normal(0.9, 0.01, 6), random.normal(0.92, 0.02, 6)
    test = ttest_rel(second, first) if is_paired else ttest_ind(second, first, equal_var=False)
    found = over_seeds(first, second, 10_000, is_paired)
    assert found.p_value == pytest.approx(test.pvalue)
    assert found.interval == pytest.approx(tuple(test.confidence_interval(0.95)))
    ((_, freedom),) = found.errors
    assert freedom == pytest.approx(test.df)


def test_over_pictures_takes_each_picture_once_however_many_runs_there_are():
    first, second = simulated(np.random.default_rng(3), 4, 200)
    test = ttest_rel(second.mean(axis=0), first.mean(axis=0))
    found = over_pictures(first, second)
    assert (found.p_value, found.mean) == pytest.approx((test.pvalue, second.mean() - first.mean()))
    again = over_pictures(np.repeat(first, 3, axis=0), np.repeat(second, 3, axis=0))
    assert again.p_value == pytest.approx(found.p_value)  # copies of runs are no new pictures


def test_over_both_adds_the_two_errors_and_takes_off_what_they_share():
    gains = np.array([[1, 0, 1, 0], [1, 0, 0, 0], [1, 0, 0, 0]])  # of the second over the first
    first, second = np.zeros((3, 4), bool), gains.astype(bool)
    rows, columns, whole = gains.mean(1), gains.mean(0), gains.mean()
    left = sum(
        (gains[r, c] - rows[r] - columns[c] + whole) ** 2 for r in range(3) for c in range(4)
    )
    of_seeds = sum((rows - whole) ** 2) / 2 / 3
    of_pictures = sum((columns - whole) ** 2) / 3 / 4 - left / (2 * 3) / 12
    found = over_both(first, second, True)
    assert found.mean == pytest.approx(whole)
    assert found.errors == ((pytest.approx(of_seeds**0.5), 2), (pytest.approx(of_pictures**0.5), 3))
    half = np.hypot(student.ppf(0.975, 2) * of_seeds**0.5, student.ppf(0.975, 3) * of_pictures**0.5)
    assert found.interval == pytest.approx((whole - half, whole + half))


def test_pictures_count_where_they_add_more_than_single_answers_scatter():
    random = np.random.default_rng(0)
    alike, own = (simulated(random, 5, own=own) for own in (0.0, 2.0))
    assert both_paired(*alike) == seeds_paired(*alike)
    assert len(both_paired(*own).errors) == 2
    assert both_paired(*own).p_value > seeds_paired(*own).p_value


@pytest.mark.parametrize("mean", [0.0, 1e-4, 0.02, 0.9])
def test_p_is_of_the_interval_that_just_reaches_zero(mean):
    found = Difference(mean, ((0.01, 4), (0.005, 300)))
    p_value = found.p_value
    if mean == 0.9:
        assert p_value < 1e-5
    assert student_half(found.errors, 1 - p_value) == pytest.approx(mean, abs=1e-6)
    assert Difference(-mean, found.errors).p_value == p_value
    alone = Difference(mean, ((0.01, 4), (0.0, 300))).p_value
    assert alone == pytest.approx(Difference(mean, ((0.01, 4),)).p_value)


def test_pairs_that_happen_to_gain_the_same_count_prove_nothing():
    first = np.array([0.90, 0.92])
    found = over_seeds(first, first + 0.01, 100, True)
    assert found.p_value > 0.1 and found.interval[0] < 0 < found.interval[1]
    assert over_seeds(first[:1], first[1:], 100, True) is None


def group(name, seeds, right):
    return Group(name, tuple(seeds), np.asarray(right, bool))


def test_runs_are_paired_by_seed_in_whatever_order_they_come():
    first, second = simulated(np.random.default_rng(4), 3, 50)
    found = compare_groups(group("a", (2, 0, 7), first), group("b", (0, 5, 2), second))
    assert found.is_paired and found.first.keys == found.second.keys == (2, 0)
    assert found.left_out == 2 and len(found.tests) == 2
    gains = second[[2, 0]].mean(axis=1) - first[[0, 1]].mean(axis=1)
    assert found.gains == pytest.approx(gains)
    assert found.tests[0] == mcnemar_of_rights(first[0], second[2])
    assert "2 runs without a partner left out" in groups_in_words(found)


def test_without_two_shared_seeds_each_group_has_a_spread_of_its_own():
    first, second = simulated(np.random.default_rng(5), 3, 50)
    found = compare_groups(group("a", (0, 1, 2), first), group("b", (2, 3, 4), second))
    assert not found.is_paired and found.left_out == 0 and not found.tests
    assert found.differences[SEEDS] == seeds_apart(first, second)
    assert found.differences[BOTH] == both_apart(first, second)
    assert not len(found.gains)
    assert "partner of the same seed in the other" in groups_in_words(found)
    assert "not paired" in groups_in_words(found) and "no pair" in mcnemar_in_words(found)


def test_two_single_runs_say_nothing_of_other_seeds():
    first, second = simulated(np.random.default_rng(6), 1, 300, gain=2.0)
    found = compare_groups(group("a", (0,), first), group("b", (0,), second))
    assert list(found.differences) == [PICTURES] and found.effect_size is None
    assert found.tests == (mcnemar_of_rights(first[0], second[0]),)
    assert "nothing of other seeds" in verdict_in_words(found)
    assert f"{found.tests[0].only_second:,} only the second" in mcnemar_in_words(found)
    said = in_short(found, 2, "drawn")
    assert "for other pictures: more than chance" in said and "nothing of other seeds" in said


def test_runs_that_are_the_same_do_not_differ():
    right = simulated(np.random.default_rng(7), 3, 60)[0]
    found = compare_groups(group("a", range(3), right), group("b", range(3), right))
    assert found.verdict.mean == 0 and not found.is_shown
    assert all(difference.p_value == 1 for difference in found.differences.values())


def test_groups_that_cannot_be_compared_are_refused():
    with pytest.raises(InputError, match="a has several runs of seed 3"):
        compare_groups(group("a", (3, 3), np.ones((2, 5))), group("b", (3,), np.ones((1, 5))))
    with pytest.raises(InputError, match="a and b were tested on one picture"):
        compare_groups(group("a", (3,), np.ones((1, 1))), group("b", (3,), np.zeros((1, 1))))
    with pytest.raises(InputError, match="on 5 and 6 pictures"):
        compare_groups(group("a", (3,), np.ones((1, 5))), group("b", (3,), np.ones((1, 6))))


def test_the_effect_is_told_in_spreads_and_so_is_what_would_have_been_found():
    first, second = simulated(np.random.default_rng(8), 5, 400, gain=0.3)
    found = compare_groups(group("a", range(5), first), group("b", range(5), second))
    pooled = np.sqrt((found.first.accuracies.var(ddof=1) + found.second.accuracies.var(ddof=1)) / 2)
    plain = found.verdict.mean / pooled
    assert found.effect_size == pytest.approx(plain * (1 - 3 / (4 * 8 - 1)))
    assert found.verdict == found.differences[SEEDS]  # pictures add nothing of their own
    ((error, freedom),) = found.verdict.errors
    shift = found.detectable / error
    power = nct.sf(student.ppf(0.975, freedom), freedom, shift)
    assert power == pytest.approx(0.8, abs=0.03)
    said = verdict_in_words(found)
    assert said.startswith("b less a: +") and f"{found.effect_size:+.1f} times" in said


def test_what_was_found_is_kept_as_plain_json():
    first, second = simulated(np.random.default_rng(9), 3, 50)
    found = compare_groups(group("a", range(3), first), group("b", range(3), second))
    kept = json.loads(json.dumps(found.as_record(), allow_nan=False))
    assert [row["holds_for"] for row in kept["differences"]] == [SEEDS, PICTURES, BOTH]
    assert kept["mcnemar"][0]["p_value"] == found.tests[0].p_value
    assert kept["pairs"] == ["0", "1", "2"] and len(kept["accuracies"][1]) == 3
