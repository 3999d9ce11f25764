"""Sets of classes that hold the right one as often as promised: split conformal prediction.

The scores are those of RAPS (Angelopoulos, Bates, Malik and Jordan 2021, "Uncertainty Sets for
Image Classifiers using Conformal Prediction", section 2), with a threshold for each class (Vovk
2012, "Conditional Validity of Inductive Conformal Predictors"). Both are a few lines of NumPy:
MAPIE 1.6, the well-kept library for it, has RAPS but no thresholds by class, and wants a
scikit-learn estimator at hand where a run keeps a number for each class.
"""

from collections.abc import Sequence

import numpy as np

#: How often a set is to hold the right class.
PROMISE = 0.9
#: What each class in a set costs from the one after the first so many on: RAPS' lambda and k.
PENALTY, FREE = 0.1, 2
#: Share of a class's score that its own probability makes; see `class_scores`.
OWN_SHARE = -1.0
#: A class with fewer calibration pictures has the threshold of all pictures together.
ENOUGH = 100
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


def some_of_each(sets: np.ndarray, targets: np.ndarray, each: int = 4) -> np.ndarray:
    """Return the positions of some sets of one class, of several, and that tell nothing.

    Args:
        sets: bool, N×C.
        targets: the pictures' classes, int64, N.
        each: how many of each kind at most.

    Returns:
        int64, at most three times as many.
    """
    sizes, unknown = sets.sum(axis=1), is_unknown(sets)
    kinds = ((sizes == 1) & ~unknown, (sizes > 1) & ~unknown, unknown)
    return np.concatenate([across_classes(np.flatnonzero(k), targets, each) for k in kinds])


def across_classes(positions: np.ndarray, targets: np.ndarray, count: int) -> np.ndarray:
    """Return some of these positions, of as many classes as there are.

    A test split may be sorted by class, and its first pictures then be all alike.

    Args:
        positions: int64, M.
        targets: classes of all pictures, int64, N.
        count: how many to return at most.

    >>> across_classes(np.array([0, 1, 2, 5, 6]), np.array([3, 3, 3, 4, 4, 4, 8]), 4)
    array([0, 1, 5, 6])
    """
    classes = targets[positions]
    turn = np.array([int((classes[:place] == c).sum()) for place, c in enumerate(classes)])
    return np.sort(positions[np.lexsort((classes, turn))[:count]])


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
