"""Two runs, or two groups of runs, beside each other: how far they differ, and how sure that is."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.special import fdtrc, stdtr
from scipy.stats import binomtest

from utils import InputError, as_markdown, counted
from utils.intervals import COVERAGE, mean_and_spread, student_half

if TYPE_CHECKING:  # it needs torch, which reading many runs does not
    from utils.training.predictions import Predictions

#: What a difference may hold for beyond the runs and the pictures that it was seen on.
SEEDS, PICTURES, BOTH = "other seeds", "other pictures", "other seeds and pictures"
#: Of the differences that `Comparison.detectable` speaks of, the share that would be found.
POWER = 0.8


def _p(value: float) -> str:
    """Return a p-value as text; nobody tells the smallest ones apart."""
    return "p < 1e-12" if value < 1e-12 else f"p = {value:.2g}"


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
            f"{self.only_second:,} only the second (McNemar, exact: {_p(self.p_value)})"
        )


def mcnemar(first: "Predictions", second: "Predictions") -> McNemar:
    """Test whether two runs are equally accurate, on the same pictures (McNemar 1947).

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
    return mcnemar_of_rights(first.predicted == first.target, second.predicted == second.target)


def mcnemar_of_rights(first: np.ndarray, second: np.ndarray) -> McNemar:
    """Test whether two runs are equally accurate, by which pictures each has right.

    Only the pictures that one has right and the other wrong can tell. Were both equally accurate,
    each of these would be the first's with a probability of a half, so the exact test is that of a
    fair coin. Two separate intervals would waste that the pictures are the same.

    Args:
        first, second: bool, N, of the same pictures.
    """
    only_first = int((first & ~second).sum())
    only_second = int((second & ~first).sum())
    return McNemar(only_first, only_second, _fair_coin(only_first, only_second))


def _fair_coin(heads: int, tails: int) -> float:
    """Return how likely a fair coin falls at least as unevenly; two-sided, exact."""
    return float(binomtest(heads, heads + tails, 0.5).pvalue) if heads + tails else 1.0


# Groups


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seed alone, or in little else.

    Attributes:
        name: how figures and tables call it.
        keys: one a run, by which it finds its partner in another group: its seed, or that and what
            else differs within the group.
        right: bool, runs × pictures: whether the run is right on the picture.
        paired_by: what the keys are.
    """

    name: str
    keys: tuple[Hashable, ...]
    right: np.ndarray
    paired_by: tuple[str, ...] = ("seed",)

    @property
    def accuracies(self) -> np.ndarray:
        """Of each run, in [0, 1]."""
        return self.right.mean(axis=1)

    def of(self, keys: Sequence[Hashable]) -> "Group":
        """Return its runs of these keys, in their order."""
        places = [self.keys.index(key) for key in keys]
        return replace(self, keys=tuple(keys), right=self.right[places])


@dataclass(frozen=True)
class Difference:
    """How much more often the second group is right than the first, on average over its runs.

    Attributes:
        mean: in [-1, 1]; above 0 the second is better.
        errors: its standard errors, by what they come from, each with its degrees of freedom.
    """

    mean: float
    errors: tuple[tuple[float, float], ...]

    @property
    def interval(self) -> tuple[float, float]:
        """The differences that `COVERAGE` of all samples like this would agree with."""
        half = student_half(self.errors)
        return self.mean - half, self.mean + half

    @property
    def p_value(self) -> float:
        """How likely a difference at least as large is where there is none; two-sided.

        One less the coverage of the interval that just reaches zero.
        """
        size = abs(self.mean)
        if not any(error for error, _ in self.errors):  # every picture gained or lost the same
            return float(size == 0)
        if len(self.errors) == 1:
            ((error, freedom),) = self.errors
            return 2 * float(stdtr(freedom, -size / error))

        def beyond(exponent: float) -> float:
            return student_half(self.errors, 1 - 10**exponent) - size

        return 10 ** brentq(beyond, -15, 0) if beyond(-15) > 0 else 0.0

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"{100 * self.mean:+.2f} points ({COVERAGE:.0%} interval {100 * low:+.2f} to "
            f"{100 * high:+.2f}, {_p(self.p_value)})"
        )


def over_seeds(
    first: np.ndarray, second: np.ndarray, pictures: int, is_paired: bool
) -> Difference | None:
    """Return the difference with the error that other seeds would make, on these very pictures.

    Of pairs, the error is that of the mean of their differences (Student 1908). Without pairs, each
    group has a spread of its own (Welch 1947). His freedom is too large where a group has two runs
    and the other many: up to a tenth of differences that are not there would be found at 5 %. There
    each group keeps its own error and freedom, as `student_half` adds them up.

    An accuracy is a count of pictures, and so a rounded value: no spread is taken to be smaller
    than what rounding makes, or else two pairs that happen to differ by the same count would prove
    anything.

    Args:
        first, second: float, accuracies in [0, 1], one a run; pairs stand at the same place.
        pictures: how many they are shares of.
        is_paired: whether the runs are pairs.

    Returns:
        None where a group has a single run, since one run shows no spread.
    """
    samples, rounding = ([second - first], 1 / 6) if is_paired else ([first, second], 1 / 12)
    if min(map(len, samples)) < 2:
        return None
    least = rounding / pictures**2
    parts = [max(values.var(ddof=1), least) / len(values) for values in samples]
    freedoms = [len(values) - 1 for values in samples]
    mean = float(second.mean() - first.mean())
    if not is_paired and min(freedoms) == 1:
        return Difference(mean, tuple(zip(map(math.sqrt, parts), freedoms, strict=True)))
    shares = [part**2 / freedom for part, freedom in zip(parts, freedoms, strict=True)]
    error = float(np.sqrt(sum(parts))), float(sum(parts) ** 2 / sum(shares))
    return Difference(mean, (error,))


def over_pictures(first: np.ndarray, second: np.ndarray) -> Difference:
    """Return the difference with the error that other pictures would make, for these very networks.

    McNemar's question for several networks a group. Their answers to one picture belong together,
    so the unit is the picture and what it gained on average over the runs, not the single answer
    (Durkalski et al. 2003, "Analysis of clustered matched-pair data"). Adding up the counts of all
    pairs would take the answers of five runs to one picture for five pictures.

    Args:
        first, second: bool, runs × pictures, of the same pictures.
    """
    gained = second.mean(axis=0) - first.mean(axis=0)
    error = float(gained.std(ddof=1) / np.sqrt(gained.size)), gained.size - 1
    return Difference(float(gained.mean()), (error,))


def over_both(first: np.ndarray, second: np.ndarray, is_paired: bool) -> Difference | None:
    """Return the difference with the error that other seeds and other pictures would make.

    Runs and pictures are crossed: every run answers every picture. What single answers scatter by
    is in the error over seeds and in that over pictures, so it is taken off the latter: the
    estimate by mean squares of a two-way layout (Searle, Casella & McCulloch 1992, "Variance
    Components"), as in studies where many readers judge many cases. What is left of it counts
    where it is more than the scatter of single answers makes (F test at 5 %).

    Args:
        first, second: bool, runs × pictures; pairs stand at the same place.
        is_paired: whether the runs are pairs.

    Returns:
        None where a group has a single run.
    """
    count = first.shape[1]
    seeds = over_seeds(first.mean(axis=1), second.mean(axis=1), count, is_paired)
    if seeds is None:
        return None
    pictures = over_pictures(first, second)
    ((of_pictures, freedom),) = pictures.errors
    layouts = [second.astype(float) - first] if is_paired else [first, second]
    scatter = sum(_interaction(layout) / layout.size for layout in layouts)
    runs = sum(len(layout) - 1 for layout in layouts)
    if scatter and fdtrc(freedom, freedom * runs, of_pictures**2 / scatter) >= 1 - COVERAGE:
        return seeds
    left = float(np.sqrt(max(of_pictures**2 - scatter, 0.0)))
    return Difference(seeds.mean, (*seeds.errors, (left, freedom)))


def _interaction(layout: np.ndarray) -> float:
    """Return the mean square of what is left of runs × pictures without their own means."""
    rows, columns = layout.mean(axis=1, keepdims=True), layout.mean(axis=0, keepdims=True)
    left = layout - rows - columns + layout.mean()
    return float((left**2).sum() / np.prod(np.subtract(layout.shape, 1)))


@dataclass(frozen=True)
class Comparison:
    """Two groups of runs, compared.

    Attributes:
        first, second: the runs that were compared; of pairs, those at the same place.
        is_paired: whether they are pairs, of the same seed.
        left_out: how many runs have no partner, and were left out.
        differences: of the second less the first, by what each holds for: `SEEDS`, `PICTURES` and
            `BOTH`; only the second of them where a group has a single run.
        tests: McNemar's of each pair; of two single runs, too.
    """

    first: Group
    second: Group
    is_paired: bool
    left_out: int
    differences: dict[str, Difference]
    tests: tuple[McNemar, ...]

    @property
    def verdict(self) -> Difference:
        """The difference that holds for the most: for seeds and pictures, where that is known."""
        return self.differences.get(BOTH, self.differences[PICTURES])

    @property
    def is_shown(self) -> bool:
        """Whether chance alone seldom makes such a difference."""
        return self.verdict.p_value < 1 - COVERAGE

    @property
    def gains(self) -> np.ndarray:
        """Of each pair, what the second run is better by, in [-1, 1]; empty without pairs."""
        if not self.is_paired:
            return np.empty(0)
        return self.second.accuracies - self.first.accuracies

    @property
    def effect_size(self) -> float | None:
        """The difference in units of the spread of runs within the groups: Hedges' g (1981).

        None where a group has a single run, or no run differs from another of its group.
        """
        groups = [self.first.accuracies, self.second.accuracies]
        if min(map(len, groups)) < 2:
            return None
        freedom = sum(len(values) - 1 for values in groups)
        squares = sum(((values - values.mean()) ** 2).sum() for values in groups)
        if not squares:
            return None
        few = 1 - 3 / (4 * freedom - 1)  # few runs make the plain ratio too large
        return float(few * self.verdict.mean / np.sqrt(squares / freedom))

    @property
    def detectable(self) -> float:
        """The true difference that about `POWER` of comparisons like this find, in [0, 1]."""
        return sum(student_half(self.verdict.errors, share) for share in (COVERAGE, 2 * POWER - 1))

    def table(self) -> pd.DataFrame:
        """Return a row for each of `differences`: holds_for, difference, low, high, p."""
        rows = [
            (name, found.mean, *found.interval, found.p_value)
            for name, found in self.differences.items()
        ]
        return pd.DataFrame(rows, columns=["holds_for", "difference", "low", "high", "p"])

    def as_record(self) -> dict:
        """Return what was found, as JSON takes it; shares and differences in [-1, 1]."""
        return {
            "first": self.first.name,
            "second": self.second.name,
            "pairs": [str(key) for key in self.first.keys] if self.is_paired else [],
            "accuracies": [group.accuracies.tolist() for group in (self.first, self.second)],
            "differences": self.table().to_dict("records"),
            "effect_size": self.effect_size,
            "mcnemar": [vars(test) for test in self.tests],
        }


def compare_groups(first: Group, second: Group) -> Comparison:
    """Compare two groups of runs that were tested on the same pictures.

    Runs are paired where at least two keys occur in both groups; the others are then left out.

    Raises:
        InputError: they were tested on different numbers of pictures, or on a single one, or a
            group has a key twice.
    """
    if first.right.shape[1] != second.right.shape[1]:
        raise InputError(
            f"{first.name} and {second.name} were tested on {first.right.shape[1]:,} and "
            f"{second.right.shape[1]:,} pictures. Compare runs with the same limit_test."
        )
    if first.right.shape[1] < 2:
        raise InputError(
            f"{first.name} and {second.name} were tested on one picture, which shows nothing of "
            "others. Compare runs that were tested on more."
        )
    for group in (first, second):
        _check_keys(group)
    shared = [key for key in first.keys if key in second.keys]
    is_paired, before = len(shared) > 1, len(first.keys) + len(second.keys)
    if is_paired:
        first, second = first.of(shared), second.of(shared)
    found = {
        SEEDS: over_seeds(first.accuracies, second.accuracies, first.right.shape[1], is_paired),
        PICTURES: over_pictures(first.right, second.right),
        BOTH: over_both(first.right, second.right, is_paired),
    }
    are_pairs = is_paired or len(first.keys) == len(second.keys) == 1
    pairs = zip(first.right, second.right, strict=True) if are_pairs else ()
    return Comparison(
        first,
        second,
        is_paired,
        before - len(first.keys) - len(second.keys),
        {name: difference for name, difference in found.items() if difference is not None},
        tuple(mcnemar_of_rights(*pair) for pair in pairs),
    )


def _check_keys(group: Group) -> None:
    twice = [key for key in group.keys if group.keys.count(key) > 1]
    if twice:
        raise InputError(
            f"Group {group.name} has several runs of {' and '.join(group.paired_by)} {twice[0]}, "
            "so none of them is the partner of another group's. Leave group_by at None, or choose "
            "fewer runs by a pattern."
        )


# In words


def groups_in_words(found: Comparison) -> str:
    """Return which runs are compared, and how accurate they are."""
    groups = [
        f"{group.name}: {mean_and_spread((100 * group.accuracies).tolist(), 2)}% right, "
        f"n = {counted(len(group.keys), 'run')}"
        for group in (found.first, found.second)
    ]
    better = int((found.gains > 0).sum())
    if found.is_paired:
        how = (
            f"{len(found.gains)} pairs of the same {' and '.join(found.first.paired_by)}; "
            f"{found.second.name} is better in {better} of them."
        )
    else:
        how = (
            f"Fewer than two runs have a partner of the same {' and '.join(found.first.paired_by)} "
            "in the other group, so they are not paired."
        )
    alone = f" {counted(found.left_out, 'run')} without a partner left out." * bool(found.left_out)
    return "\n".join([*groups, how + alone])


def verdict_in_words(found: Comparison) -> str:
    """Return what the comparison shows, and what it could have shown."""
    name = f"{found.second.name} less {found.first.name}"
    if BOTH not in found.differences:
        return (
            f"{name}: {found.verdict}, for other pictures and these networks alone. A group "
            "with a single run says nothing of other seeds. Train each with at least three."
        )
    size, least = found.effect_size, 100 * found.detectable
    spread = "" if size is None else f" It is {size:+.1f} times the spread of runs (Hedges' g)."
    return (
        f"{name}: {found.verdict}, for {BOTH}: {_chance(found)}.{spread}\n"
        f"A true difference of {least:.2f} points would be found by about {POWER:.0%} of "
        "comparisons like this one, if they scatter as this one does."
    )


def mcnemar_in_words(found: Comparison) -> str:
    """Return what McNemar's test says of each pair of runs."""
    if not found.tests:
        return "Without pairs there is no pair of runs for McNemar's test."
    if len(found.tests) == 1:
        return f"{found.first.name} and {found.second.name}: {found.tests[0]}."
    below = sum(test.p_value < 1 - COVERAGE for test in found.tests)
    highest = max(test.p_value for test in found.tests)
    return (
        f"McNemar's test of each pair: p is below {1 - COVERAGE:.2f} in {below} of "
        f"{len(found.tests)}, and {_p(highest)} at the highest. {_pooled_in_words(found)}"
    )


def _pooled_in_words(found: Comparison) -> str:
    """Return what adding up the counts of all pairs, which nobody should do, would have said."""
    first, second = (
        sum(getattr(test, name) for test in found.tests) for name in ("only_first", "only_second")
    )
    honest = found.differences[PICTURES].p_value
    return (
        f"Added up, as if every answer were of another picture, the counts would give "
        f"{_p(_fair_coin(first, second))}; with the picture as the unit, {_p(honest)}."
    )


def in_short(found: Comparison | None, runs: int, title: str) -> str:
    """Return what the chapter found, as Markdown.

    Args:
        found: None where there is one group alone.
        runs: how many there are.
        title: the data set's.
    """
    about = f"{counted(runs, 'run')} on {as_markdown(title)}."
    if found is None:
        return f"{about} They are one group, so there was nothing to compare it with."
    names = [as_markdown(group.name) for group in (found.second, found.first)]
    told = f"{about} **{names[0]}** less **{names[1]}**: {as_markdown(str(found.verdict))}"
    if BOTH in found.differences:
        return f"{told}, for {BOTH}: {_chance(found)}."
    alone = "With a single run, a group says nothing of other seeds."
    return f"{told}, for {PICTURES}: {_chance(found)}. {alone}"


def _chance(found: Comparison) -> str:
    """Return whether chance makes such a difference."""
    return "more than chance would make" if found.is_shown else "no more than chance can make"
