"""Properties of picture files that give the class away, whatever the pictures show.

If all herons were taken with one camera, a network need not look at a heron. Each property is tried
alone, on pictures that it was not fitted to, and held against always naming the most frequent
class.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np

from utils import as_percent, brief
from utils.data.groups import one_of_each
from utils.data.picture_set import SPLIT_SEED
from utils.data.traits import Traits
from utils.intervals import share_in_words, wilson_interval

#: Pictures are held out in so many parts, one after the other.
FOLDS = 5
#: Of the intervals. As several properties are tried, 95 % would often claim one by chance alone.
COVERAGE = 0.99
#: What is gained on guessing is claimed from so much on, as a share of all pictures: among
#: thousands of pictures, what helps next to nothing is beyond chance as well.
LEAST_GAIN = 0.05
#: A number is cut into bins of equally many pictures, about so many each, and at most so many bins.
PER_BIN, MOST_BINS = 20, 20


@dataclass(frozen=True)
class Tell:
    """What one property of the files alone says of the class.

    Attributes:
        name: of the property.
        right: how many pictures, each held out in turn, it named the class of,
        count: of how many.
        guess: share of the most frequent class, in [0, 1].
        clue: which of its values says most, in words.
    """

    name: str
    right: int
    count: int
    guess: float
    clue: str

    @property
    def is_claimed(self) -> bool:
        """Whether it says more than chance would, and enough to matter."""
        low, _ = wilson_interval(self.right, self.count, COVERAGE)
        return bool(low > self.guess and self.right / self.count >= self.guess + LEAST_GAIN)

    def in_words(self) -> str:
        """Return how well it names the class, with an interval, beside guessing."""
        share = share_in_words(self.right, self.count, coverage=COVERAGE)
        return f"{share}, where guessing is right in {as_percent(self.guess)}"


def find_tells(
    traits: Traits, targets: np.ndarray, groups: np.ndarray, classes: Sequence[str]
) -> list[Tell]:
    """Try each property that is not the same in all files, the best first.

    Args:
        traits: of N files.
        targets: int64, N.
        groups: int64, N: copies have the same number, and those of a class count as one picture.
        classes: names of the classes.
    """
    members = one_of_each(groups, targets)
    targets = targets[members]
    guess, folds = np.bincount(targets).max() / len(targets), _folds(targets)
    found = []
    for name, (values, labels) in _properties(traits.subset(members)).items():
        if len(labels) > 1:
            right = _right_when_held_out(values, targets, folds)
            clue = _clue(name, values, labels, targets, classes)
            found.append(Tell(name, right, len(targets), guess, clue))
    return sorted(found, key=lambda tell: -tell.right)


def _properties(traits: Traits) -> dict[str, tuple[np.ndarray, list[str]]]:
    """Return for each property which of its values a file has, int64 N, and the values' names."""
    return {
        "brightness": _binned(traits.brightness, lambda value: as_percent(value, 0)),
        "size": _binned(traits.width * traits.height, lambda value: f"{value:,.0f} pixels"),
        "aspect": _binned(traits.width / traits.height, lambda value: f"{value:.2f}"),
        "file type": _named(traits.kind),
        "camera": _named(traits.camera),
        "date": _binned(traits.date, lambda value: date.fromordinal(int(value)).isoformat()),
    }


def _named(words: np.ndarray) -> tuple[np.ndarray, list[str]]:
    found, values = np.unique(words, return_inverse=True)
    return values, [brief(str(word)) if word else "none given" for word in found]


def _binned(numbers: np.ndarray, write: Callable[[float], str]) -> tuple[np.ndarray, list[str]]:
    """Cut numbers into bins of equally many; those that are missing (NaN) have one of their own."""
    known = np.isfinite(numbers)
    bins = int(np.clip(known.sum() // PER_BIN, 2, MOST_BINS))
    edges = []
    if known.any():
        edges = np.unique(np.quantile(numbers[known], np.linspace(0, 1, bins + 1)[1:-1]))
    places = np.where(known, np.searchsorted(edges, numbers, side="right"), len(edges) + 1)
    found, values = np.unique(places, return_inverse=True)
    labels = []
    for place in range(len(found)):
        inside = numbers[values == place]
        ends = dict.fromkeys(write(end) for end in (inside.min(), inside.max()) if end == end)
        labels.append(" to ".join(ends) or "none given")
    return values, labels


def _folds(targets: np.ndarray) -> np.ndarray:
    """Return in which part each picture is held out, every class in proportion: int64, N."""
    order = np.random.default_rng(SPLIT_SEED).permutation(len(targets))
    order = order[np.argsort(targets[order], kind="stable")]
    folds = np.empty(len(targets), np.int64)
    folds[order] = np.arange(len(targets)) % FOLDS
    return folds


def _right_when_held_out(values: np.ndarray, targets: np.ndarray, folds: np.ndarray) -> int:
    """Count the pictures whose class is the most frequent one, in other folds, of their value."""
    right = 0
    for fold in range(FOLDS):
        held_out = folds == fold
        table = _table(values[~held_out], targets[~held_out], values.max() + 1, targets.max() + 1)
        usual = table.sum(0).argmax()
        named = np.where(table.any(1), table.argmax(1), usual)
        right += int((named[values[held_out]] == targets[held_out]).sum())
    return right


def _table(values: np.ndarray, targets: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Return how many pictures have each value and class: int64, rows × columns."""
    table = np.zeros((rows, columns), np.int64)
    np.add.at(table, (values, targets), 1)
    return table


def _clue(
    name: str, values: np.ndarray, labels: list[str], targets: np.ndarray, classes: Sequence[str]
) -> str:
    """Return the value of which most pictures more than usual are of one class, in words."""
    table = _table(values, targets, len(labels), len(classes))
    usual = table.sum(1, keepdims=True) * table.sum(0) / table.sum()
    value, target = np.unravel_index((table - usual).argmax(), table.shape)
    return (
        f"of {table[value].sum():,} with {name} {labels[value]}, {table[value, target]:,} are "
        f"{classes[target]}"
    )
