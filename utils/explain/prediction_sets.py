"""Sets of classes that hold the right one as often as promised: split conformal prediction.

The scores are those of RAPS (Angelopoulos, Bates, Malik and Jordan 2021, "Uncertainty Sets for
Image Classifiers using Conformal Prediction", section 2), with a threshold for each class (Vovk
2012, "Conditional Validity of Inductive Conformal Predictors"). Both are a few lines of NumPy:
MAPIE 1.6, the well-kept library for it, has RAPS but no thresholds by class, and wants a
scikit-learn estimator at hand where a run keeps ten numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from utils import InputError, as_percent, counted
from utils.runs import Run
from utils.training.predictions import Predictions

#: How often a set is to hold the right class.
PROMISE = 0.9
#: What each class in a set costs from the one after the first so many on: RAPS' lambda and k.
PENALTY, FREE = 0.1, 2
#: Share of a class's score that its own probability makes; see `class_scores`.
OWN_SHARE = -1.0
#: A class with fewer calibration pictures has the threshold of all pictures together.
ENOUGH = 100
SPLITS = 20
UNKNOWN = "I do not know"


def class_scores(probabilities: np.ndarray) -> np.ndarray:
    """Return how badly each class fits a picture: float64, N×C.

    RAPS adds the probabilities of all classes above this one, a share U of its own, and a penalty
    for a low rank. U is drawn at random there, so that coverage is exact and not above what was
    promised; but of an accurate network, sets then are empty by the toss of a coin, surest
    pictures included. Here U is −1 for all. Any fixed U keeps the promise, and this one makes the
    top class fit the worse the less probable it is: sets are empty where the network is unsure.

    Args:
        probabilities: N×C, rows that add up to 1.
    """
    probabilities = probabilities.astype(np.float64)
    order = np.argsort(-probabilities, axis=1, kind="stable")
    ranked = np.take_along_axis(probabilities, order, axis=1)
    above = np.cumsum(ranked, axis=1) - ranked
    penalty = PENALTY * np.maximum(np.arange(1, ranked.shape[1] + 1) - FREE, 0)
    scores = np.empty_like(ranked)
    np.put_along_axis(scores, order, above + OWN_SHARE * ranked + penalty, axis=1)
    return scores


def class_thresholds(
    probabilities: np.ndarray, targets: np.ndarray, promise: float = PROMISE
) -> np.ndarray:
    """Return the score up to which each class is in a set: float64, C.

    Among new pictures of a class that has ``ENOUGH`` here, the set holds that class with a
    probability of at least `promise`. The other classes share the threshold of all pictures
    together; of each of them alone nothing is promised.

    Args:
        probabilities: of pictures that the network was not trained on, N×C.
        targets: their classes, int64, N.
        promise: in (0, 1).
    """
    num_classes = probabilities.shape[1]
    scores = class_scores(probabilities)[np.arange(len(targets)), targets]
    many = np.bincount(targets, minlength=num_classes) >= ENOUGH
    common = _threshold(scores, promise, num_classes)
    own = [_threshold(scores[targets == c], promise, num_classes) for c in range(num_classes)]
    return np.where(many, own, common)


def _threshold(scores: np.ndarray, promise: float, num_classes: int) -> float:
    """Return the ⌈(n + 1) · promise⌉-th smallest score; above all scores where n is too small."""
    place = int(np.ceil(round((len(scores) + 1) * promise, 9)))
    if place > len(scores):
        return 1 + PENALTY * num_classes
    return float(np.sort(scores)[place - 1])


def prediction_sets(probabilities: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Return which classes are in each picture's set: bool, N×C.

    Args:
        probabilities: N×C.
        thresholds: float, C, from `class_thresholds`.
    """
    return class_scores(probabilities) <= thresholds


def is_unknown(sets: np.ndarray) -> np.ndarray:
    """Return which sets tell nothing: those without a class, or with more than half of all.

    Args:
        sets: bool, N×C.

    Returns:
        bool, N.
    """
    sizes = sets.sum(axis=1)
    return (sizes == 0) | (sizes > sets.shape[1] // 2)


def some_of_each(sets: np.ndarray, each: int = 4) -> np.ndarray:
    """Return the positions of the first sets of one class, of several, and that tell nothing.

    Args:
        sets: bool, N×C.
        each: how many of each kind at most.

    Returns:
        int64, at most three times as many.
    """
    sizes, unknown = sets.sum(axis=1), is_unknown(sets)
    kinds = ((sizes == 1) & ~unknown, (sizes > 1) & ~unknown, unknown)
    return np.concatenate([np.flatnonzero(kind)[:each] for kind in kinds])


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
    """What became of the promise where one half of the test split gave the thresholds.

    Attributes:
        splits: a row a split into halves: coverage (share of sets that hold the right class), size
            (mean number of classes in a set), single, unknown (shares of such sets).
        by_class: float64, C: the mean coverage in each class; NaN where it had fewer than
            ``ENOUGH`` pictures to be calibrated by.
    """

    splits: pd.DataFrame
    by_class: np.ndarray


def try_promise(predictions: Predictions, splits: int = SPLITS, seed: int = 0) -> Promise:
    """Halve the test split at random, class by class, and judge one half by the other.

    Args:
        predictions: of the test split.
        splits: how often.
        seed: of the halves.
    """
    probabilities, targets = predictions.probabilities, predictions.target
    random = np.random.default_rng(seed)
    rows, by_class = [], []
    for _ in range(splits):
        judged = _half(targets, random)
        sets = prediction_sets(
            probabilities[judged], class_thresholds(probabilities[~judged], targets[~judged])
        )
        held = sets[np.arange(len(sets)), targets[judged]]
        sizes = sets.sum(axis=1)
        rows.append((held.mean(), sizes.mean(), (sizes == 1).mean(), is_unknown(sets).mean()))
        by_class.append(_by_class(held, targets, judged, predictions.num_classes))
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
    held: np.ndarray, targets: np.ndarray, judged: np.ndarray, num_classes: int
) -> np.ndarray:
    calibrated_by = np.bincount(targets[~judged], minlength=num_classes)
    count = np.bincount(targets[judged], minlength=num_classes)
    right = np.bincount(targets[judged], held, minlength=num_classes)
    return np.where(calibrated_by >= ENOUGH, right / np.maximum(count, 1), np.nan)


# In words


def set_in_words(members: np.ndarray, classes: Sequence[str]) -> str:
    """Return the names in a set, or that it tells nothing.

    Args:
        members: bool, C.
        classes: their names.

    >>> set_in_words(np.array([True, False, True, False]), ("cat", "elk", "dog", "fox"))
    'cat or dog'
    >>> set_in_words(np.zeros(2, dtype=bool), ("cat", "dog"))
    'I do not know'
    """
    if is_unknown(members[None])[0]:
        return UNKNOWN
    return " or ".join(classes[place] for place in np.flatnonzero(members))


def sets_in_words(
    probabilities: np.ndarray, thresholds: np.ndarray, classes: Sequence[str]
) -> list[str]:
    """Return each picture's set in words, as `prediction_sets` and `set_in_words` have it."""
    return [
        set_in_words(members, classes) for members in prediction_sets(probabilities, thresholds)
    ]


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
