"""Whether prediction sets keep their promise on a run's test pictures, and what the run keeps."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from utils import InputError, as_percent, counted
from utils.explain.prediction_sets import (
    ENOUGH,
    PROMISE,
    UNKNOWN,
    class_thresholds,
    is_unknown,
    prediction_sets,
)
from utils.runs import Run
from utils.training.predictions import Predictions

SPLITS = 20


# What a run keeps


def keep_thresholds(run: Run, predictions: Predictions) -> None:
    """Write the thresholds that a run's whole test split gives into its ``metrics.json``."""
    thresholds = class_thresholds(predictions.probabilities, predictions.target)
    run.update_metrics(
        prediction_sets={
            "promise": PROMISE,
            "pictures": len(predictions.target),
            "thresholds": thresholds.tolist(),
        }
    )


def kept_thresholds(run: Run) -> np.ndarray:
    """Return the thresholds of a run: float64, C.

    Raises:
        InputError: chapter 5 has not written them, or they are of another number of classes.
    """
    kept = run.read_json("metrics.json").get("prediction_sets")
    run_chapter = f"python -m utils run --run-name {run.name} --only 05"
    if kept is None:
        raise InputError(
            f"Run {run.name!r} has no prediction sets yet: chapter 5 works them out from its test "
            f"pictures. Run that first: {run_chapter}"
        )
    classes = len(run.record["data"]["classes"])
    if len(kept["thresholds"]) != classes:
        raise InputError(
            f"Run {run.name!r} has {counted(classes, 'class', 'classes')}, and prediction sets for "
            f"{len(kept['thresholds'])}. Work them out again: {run_chapter}"
        )
    return np.array(kept["thresholds"], dtype=np.float64)


# Whether the promise is kept


@dataclass(frozen=True)
class Promise:
    """What became of the promise where each half of the test split was judged by the other.

    Attributes:
        splits: a row a split into halves: coverage (share of sets that hold the right class), size
            (mean number of classes in a set), single, unknown (shares of such sets).
        by_class: float64, C: the mean coverage in each class; NaN where a half had fewer than
            ``ENOUGH`` pictures of it to give a threshold.
    """

    splits: pd.DataFrame
    by_class: np.ndarray


def try_promise(predictions: Predictions, splits: int = SPLITS, seed: int = 0) -> Promise:
    """Halve the test split at random, class by class, and judge each half by the other.

    Args:
        predictions: of the test split.
        splits: how often.
        seed: of the halves.
    """
    probabilities, targets = predictions.probabilities, predictions.target
    random = np.random.default_rng(seed)
    rows, by_class = [], []
    for _ in range(splits):
        first = _half(targets, random)
        sets = np.empty(probabilities.shape, dtype=bool)
        for judged in (first, ~first):
            thresholds = class_thresholds(probabilities[~judged], targets[~judged])
            sets[judged] = prediction_sets(probabilities[judged], thresholds)
        held, sizes = sets[np.arange(len(sets)), targets], sets.sum(axis=1)
        rows.append((held.mean(), sizes.mean(), (sizes == 1).mean(), is_unknown(sets).mean()))
        by_class.append(_by_class(held, targets, first, predictions.num_classes))
    columns = ["coverage", "size", "single", "unknown"]
    return Promise(pd.DataFrame(rows, columns=columns), np.mean(by_class, axis=0))


def _half(targets: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Choose half of each class at random, of an odd number the smaller half: bool, N."""
    chosen = np.zeros(len(targets), dtype=bool)
    odd = []
    for target in np.unique(targets):
        members = random.permutation(np.flatnonzero(targets == target))
        chosen[members[: len(members) // 2]] = True
        odd += members[2 * (len(members) // 2) :].tolist()
    chosen[odd[: -(-len(odd) // 2)]] = True  # so that small classes do not leave one half empty
    return chosen


def _by_class(
    held: np.ndarray, targets: np.ndarray, first: np.ndarray, num_classes: int
) -> np.ndarray:
    halves = [np.bincount(targets[half], minlength=num_classes) for half in (first, ~first)]
    right = np.bincount(targets, held, minlength=num_classes)
    share = right / np.maximum(sum(halves), 1)
    return np.where(np.minimum(*halves) >= ENOUGH, share, np.nan)


# In words


def promise_in_words(found: Promise, classes: Sequence[str]) -> str:
    """Return what was promised, what was kept, in the worst class too, and how large sets are."""
    splits, mean = found.splits, found.splits.mean()
    lowest, highest = splits["coverage"].min(), splits["coverage"].max()
    lines = [
        f"Promised: {as_percent(PROMISE, 0)}. Kept: {as_percent(mean.coverage)} on average over "
        f"{counted(len(splits), 'split')} of the test pictures into halves "
        f"({as_percent(lowest)} to {as_percent(highest)}).",
        _worst_in_words(found.by_class, classes),
        f"A set holds {mean['size']:.2f} classes on average; {as_percent(mean.single)} hold just "
        f'one, and {as_percent(mean.unknown)} are an "{UNKNOWN}".',
    ]
    return "\n".join(lines)


def _worst_in_words(by_class: np.ndarray, classes: Sequence[str]) -> str:
    judged = np.flatnonzero(~np.isnan(by_class))
    if not len(judged):
        return (
            f"No class has {ENOUGH} pictures in a half, so one threshold serves them all, and "
            "nothing is promised of a single class."
        )
    worst = judged[by_class[judged].argmin()]
    told = f"Lowest of any class: {classes[worst]}, {as_percent(by_class[worst])}."
    if len(judged) < len(classes):
        rest = len(classes) - len(judged)
        told += (
            f" {counted(rest, 'class has', 'classes have')} fewer than {ENOUGH} pictures in a "
            "half: nothing is promised of each alone."
        )
    return told
